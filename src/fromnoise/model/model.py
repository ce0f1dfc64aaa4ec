"""A model: a denoiser, a codec, encoders and a card. It samples, streams, saves itself."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise import grids, guidance, samplers
from fromnoise.codecs import Codec
from fromnoise.core.config import plain
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise, seeds_for
from fromnoise.denoisers import Denoiser, NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.layers.condition import Condition
from fromnoise.layers.fast import best_dtype, prepare
from fromnoise.model.estimate import watched
from fromnoise.model.samples import Samples
from fromnoise.model.stream import Stream
from fromnoise.nets.base import SELF
from fromnoise.samplers import Sampler, Step
from fromnoise.samplers.ancestral import Ancestral
from fromnoise.samplers.wrappers import ClippedData

BATCH = 64
"""The largest batch a network is run at unless asked otherwise."""


@dataclass(frozen=True)
class Defaults:
    """How a model likes to be sampled.

    grid_options: arguments of its grid function, taken with that grid only. clip: every belief
    about pictures is kept within ±clip while sampling.
    """

    sampler: str = "dpm++2m"
    grid: str = "log_snr"
    steps: int = 20
    guidance: float = 1.0
    grid_options: dict[str, Any] = field(default_factory=dict)
    clip: float | None = None


@dataclass
class Card:
    """What is known of a model: name, data, figures, and what the fast path did.

    ancestry: the model it was fine-tuned from and, after it, that one's own: name, source,
    fingerprint, data and steps of each.
    """

    name: str = "model"
    data: str = ""
    summary: str = ""
    classes: list[str] = field(default_factory=list)
    levels: int | None = None
    speed: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    ancestry: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Draw:
    """One call of `sample`, all choices made."""

    sampler: Sampler
    grid: Tensor
    condition: Condition | None
    guidance: float | Tensor
    seeds: tuple[int, ...]
    batch: int
    dtype: torch.dtype
    start: Tensor | None
    shape: tuple[int, ...]


class Model:
    """Denoiser, codec, encoders and card behind one `sample`.

    shape: of one sample as data, (C, H, W) or (D,), without the batch.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        shape: Sequence[int],
        codec: Codec,
        conditioning: Conditioning,
        defaults: Defaults | None = None,
        card: Card | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.shape = tuple(shape)
        self.codec = codec
        self.conditioning = conditioning
        self.defaults = defaults or Defaults()
        self.card = card or Card()
        self.source: str | None = None
        self.fingerprint: str | None = None
        self._prepared: dict[torch.dtype, NetworkDenoiser] = {}

    def sample(
        self,
        count: int = 1,
        *,
        label: Any = None,
        prompt: str | Sequence[str] | None = None,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        grid: str | Tensor | None = None,
        guidance: float | Tensor | None = None,
        eta: float | None = None,
        seed: int | Sequence[int] = 0,
        start: Tensor | None = None,
        batch_size: int | None = None,
        dtype: str = "auto",
        shape: Sequence[int] | None = None,
    ) -> Samples:
        """Draw `count` samples.

        label: a class (number or name), one for each sample, or mixed weights; prompt: text.
        sampler, grid, steps: by the names of `fn.samplers.get` and `fn.grids.get`; the model's
        own defaults otherwise. guidance: 1 is none. eta: how much noise DDIM adds.
        seed: sample i draws all its noise from its own generator, seeded with seed + i.
        start: x at the first time of the grid (count, ...), in place of noise.
        batch_size: the batch the network is run at; the last one is padded to it, so that a
        sample can be repeated bit for bit. dtype: "auto" (bfloat16 where that is faster),
        "float32" (exact), "bfloat16" or "float64". shape: of one sample, where it may vary.
        A run that will take a minute or more says so with a warning, and what would be quicker.
        Raises UsageError for anything unknown to this model.
        """
        stream = self.stream(
            count, label=label, prompt=prompt, sampler=sampler, steps=steps, grid=grid,
            guidance=guidance, eta=eta, seed=seed, start=start, batch_size=batch_size,
            dtype=dtype, shape=shape,
        )  # fmt: skip
        walk = watched(stream, _warned, noisy=self.denoiser.process.noisy)
        return Samples(self.decode(samplers.last(walk)), stream.recipe)

    def stream(
        self,
        count: int = 1,
        *,
        label: Any = None,
        prompt: str | Sequence[str] | None = None,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        grid: str | Tensor | None = None,
        guidance: float | Tensor | None = None,
        eta: float | None = None,
        seed: int | Sequence[int] = 0,
        start: Tensor | None = None,
        batch_size: int | None = None,
        dtype: str = "auto",
        shape: Sequence[int] | None = None,
    ) -> Stream:
        """The same as `sample`, yielding a `Step` (index, count, t, x, x0) after each step.

        Previews, cancelling and film strips read this. `decode(step.x0)` gives pictures, and the
        stream's `recipe` is what the samples will carry; its `live()` shows each step in a
        notebook. Bad arguments raise here, not later.
        """
        _whole("count", count)
        batch = _whole("batch_size", min(count, BATCH) if batch_size is None else batch_size)
        if isinstance(grid, Tensor) and steps is not None:
            raise UsageError("give a grid of times or a number of steps, not both")
        grid, sampler = _grid_in_name(grid, sampler)
        rule, name = self._sampler(sampler, eta)
        times = self._grid(grid, self.defaults.steps if steps is None else steps)
        label = label.tolist() if isinstance(label, Tensor | np.ndarray) else label
        if start is not None and not bool(torch.isfinite(start).all()):
            raise UsageError("start holds NaN or infinity")
        draw = Draw(
            sampler=rule,
            grid=times,
            condition=self.condition(count, label, prompt),
            guidance=self._scale(guidance, count, told=label is not None or prompt is not None),
            seeds=seeds_for(seed, count),
            batch=batch,
            dtype=precision(dtype, self.denoiser.net),
            start=start,
            shape=tuple(shape or self.shape),
        )
        recipe = {
            "sampler": name,
            "steps": len(times) - 1,
            "grid": "explicit" if isinstance(grid, Tensor) else grid or self.defaults.grid,
            "guidance": torch.as_tensor(draw.guidance, dtype=torch.float64).tolist(),
            "eta": eta,
            "label": plain(label),
            "prompt": plain(prompt),
            "seeds": list(draw.seeds),
            "batch_size": batch,
            "dtype": str(draw.dtype).removeprefix("torch."),
            "shape": list(draw.shape),
            "start": "given" if start is not None else "noise",
        }
        return Stream(self._run(draw), self.decode, recipe)

    def decode(self, x: Tensor) -> Tensor:
        """Samples or previews as data: pictures (B, C, H, W) in [−1, 1], or points, float32."""
        with torch.no_grad():
            decoded: Tensor = self.codec.decode(x.float())
        return decoded if len(self.shape) == 1 else decoded.clamp(-1.0, 1.0)

    def condition(
        self, count: int, label: Any = None, prompt: str | Sequence[str] | None = None
    ) -> Condition | None:
        """What the network is told of `count` samples, null attached; None if it takes nothing."""
        raw = {"label": label, "prompt": prompt}
        given = {name: value for name, value in raw.items() if value is not None}
        if not self.conditioning.names and not given:
            return None
        told: Condition = self.conditioning(given, count)
        return told

    def prepared(self, dtype: torch.dtype) -> NetworkDenoiser:
        """The denoiser readied for sampling in a type; what was done is in `card.speed`."""
        if dtype not in self._prepared:
            net, report = prepare(self.denoiser.net, dtype)
            self.card.speed = report
            self._prepared[dtype] = NetworkDenoiser(
                net,
                self.denoiser.process,
                self.denoiser.parameterization,
                self.denoiser.learned_variance,
            )
        return self._prepared[dtype]

    def refresh(self) -> None:
        """Forget what was prepared for sampling: the weights have changed."""
        self._prepared.clear()

    def save(self, path: str | Path) -> None:
        """Write the model as a folder: model.json and model.safetensors, atomically."""
        from fromnoise.model.files import save_model

        save_model(self, Path(path))

    def _sampler(self, sampler: str | Sampler | None, eta: float | None) -> tuple[Sampler, str]:
        if isinstance(sampler, Sampler):
            return sampler, type(sampler).__name__
        name = self.defaults.sampler if sampler is None else sampler
        return samplers.get(name, eta=eta), name

    def _scale(self, guidance: float | Tensor | None, count: int, told: bool) -> float | Tensor:
        """The guidance scale: the one asked for, or the model's own where there is a condition."""
        if guidance is None:
            return self.defaults.guidance if told else 1.0
        scale = torch.as_tensor(guidance, dtype=torch.float64)
        if not bool(torch.isfinite(scale).all()):
            raise UsageError(f"guidance {guidance} is not finite")
        if scale.ndim and scale.shape != (count,):
            raise ShapeError(f"{tuple(scale.shape)} guidance scales given for {count} samples")
        if not told and bool((scale != 1).any()):
            takes = " or ".join(self.conditioning.names) or "nothing, so it cannot be guided"
            raise UsageError(
                f"guidance strengthens what a model is told, and it was told nothing; "
                f"it takes {takes}"
            )
        return scale if scale.ndim else scale.item()

    def _grid(self, grid: str | Tensor | None, steps: int) -> Tensor:
        if isinstance(grid, Tensor):
            return grid
        if grid is not None and not isinstance(grid, str):
            raise UsageError("a grid is a name, or times as a tensor such as fn.grids.karras gives")
        name = grid or self.defaults.grid
        options = self.defaults.grid_options if name == self.defaults.grid else {}
        try:
            return grids.get(name)(self.denoiser.process.clock, steps, **options)
        except TypeError:
            raise UsageError(f"the grid {name!r} does not take {options}") from None

    def _clipping(self, denoiser: Denoiser, sampler: Sampler) -> tuple[Denoiser, Sampler]:
        """Both, with beliefs kept in range where the model's defaults say so."""
        limit = self.defaults.clip
        if limit is None:
            return denoiser, sampler
        if isinstance(sampler, Ancestral) and sampler.eta < 1:
            return denoiser, ClippedData(sampler, limit)
        return guidance.Clipped(denoiser, limit), sampler

    def _run(self, draw: Draw) -> Iterator[Step]:
        """All batches in step with each other, so that a preview shows every sample."""
        count = len(draw.seeds)
        streams = [
            self._stream_batch(draw, range(first, min(first + draw.batch, count)))
            for first in range(0, count, draw.batch)
        ]
        for together in zip(*streams, strict=True):
            first = together[0]
            yield replace(
                first,
                x=torch.cat([step.x for step in together]),
                x0=torch.cat([step.x0 for step in together]),
            )

    def _stream_batch(self, draw: Draw, rows: range) -> Iterator[Step]:
        # Padded with copies of the last row: at one batch shape, neighbours change nothing.
        index = torch.tensor([*rows, *[rows[-1]] * (draw.batch - len(rows))])
        noise = Noise([draw.seeds[i] for i in index.tolist()])
        work = torch.float64 if draw.dtype == torch.float64 else torch.float32
        latent = self.codec.latent_shape(draw.shape)
        like = torch.zeros((draw.batch, *latent), dtype=work)
        scale = draw.guidance
        if isinstance(scale, Tensor) and scale.ndim:
            scale = scale[index]
        denoiser: Denoiser = self.prepared(draw.dtype)
        if SELF in self.denoiser.net.accepts.channels:
            denoiser = guidance.SelfConditioning(denoiser)
        condition = None if draw.condition is None else draw.condition.rows(index)
        guided: Denoiser
        if not isinstance(scale, Tensor) and scale == 1:
            guided = denoiser
        else:
            guided = guidance.ClassifierFree(denoiser, scale)
        if draw.start is None:
            process = denoiser.process
            x = process.prior(noise, like, float(draw.grid[0]))
        else:
            if tuple(draw.start.shape) != (len(draw.seeds), *latent):
                raise ShapeError(
                    f"start has shape {tuple(draw.start.shape)}; "
                    f"this call needs {(len(draw.seeds), *latent)}"
                )
            x = draw.start[index].to(work)
        guided, sampler = self._clipping(guided, draw.sampler)
        for step in samplers.sample(guided, sampler, draw.grid, x, condition, noise):
            yield replace(step, x=step.x[: len(rows)], x0=step.x0[: len(rows)])


def _warned(text: str) -> None:
    # From whoever called `sample`.
    warnings.warn(text, stacklevel=5)


def _whole(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} {value!r} is not a whole number from 1")
    return value


def _grid_in_name(
    grid: str | Tensor | None, sampler: str | Sampler | None
) -> tuple[str | Tensor | None, str | Sampler | None]:
    """Split "DPM++ 2M Karras", as older versions of other tools spell sampler and grid in one."""
    if isinstance(sampler, str) and grid is None and sampler.lower().endswith(" karras"):
        return "karras", sampler[: -len(" karras")]
    return grid, sampler


def precision(name: str, net: torch.nn.Module) -> torch.dtype:
    """The type a network is run in; "auto" is bfloat16 where it is native and worth the loss."""
    table = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
    if name in table:
        return table[name]
    if name != "auto":
        raise UsageError(f"dtype {name!r} is unknown; use auto, {', '.join(table)}")
    # Below this a network is quick either way, and float32 costs nothing in quality.
    large = sum(p.numel() for p in net.parameters()) >= 5_000_000
    return best_dtype() if large else torch.float32
