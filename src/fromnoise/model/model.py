"""A model: a denoiser, a codec, encoders and a card. It samples, streams, saves itself."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise import grids, samplers
from fromnoise.codecs import Codec
from fromnoise.codecs.finite import decode_finite
from fromnoise.codecs.readied import readied
from fromnoise.codecs.tiling import tiled
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import seeds_for
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.guidance import Guide, Told
from fromnoise.layers.condition import Condition
from fromnoise.layers.fast import compiled, prepare
from fromnoise.model import begin
from fromnoise.model.aside import aside, told_aside
from fromnoise.model.draw import Draw, grid_in_name, large, precision, whole
from fromnoise.model.estimate import watched
from fromnoise.model.hires import Hires, Passes
from fromnoise.model.memory import copied
from fromnoise.model.previews import Previews
from fromnoise.model.samples import Samples
from fromnoise.model.sizes import asked_by, checked_shape
from fromnoise.model.skipping import skipping
from fromnoise.model.steering import Asked, away_from, listed, recorded, steering, told_each
from fromnoise.model.stream import Stream
from fromnoise.model.tiles import tiling, within_memory
from fromnoise.model.told import Telling, raw_inputs
from fromnoise.samplers import Sampler

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
    fingerprint, data and steps of each. autoencoder: source and fingerprint of one that took the
    place of its own. family: what published kind of model it is, such as "Stable Diffusion 2".
    """

    name: str = "model"
    data: str = ""
    summary: str = ""
    classes: list[str] = field(default_factory=list)
    levels: int | None = None
    speed: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    ancestry: list[dict[str, Any]] = field(default_factory=list)
    autoencoder: dict[str, str] = field(default_factory=dict)
    family: str = ""


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
        self._fingerprint: str | Callable[[], str] | None = None
        self.compiled = False
        self._prepared: dict[torch.dtype, NetworkDenoiser] = {}
        self._readied: tuple[Codec, torch.dtype, Codec | None] | None = None

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the weights as they were opened; None for a model made here."""
        if callable(self._fingerprint):
            self._fingerprint = self._fingerprint()
        return self._fingerprint

    @fingerprint.setter
    def fingerprint(self, value: str | Callable[[], str] | None) -> None:
        """value: what finds it is called when it is first asked for: large weights take seconds."""
        self._fingerprint = value

    def sample(
        self,
        count: int = 1,
        *,
        label: Any = None,
        prompt: str | Sequence[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        negative: Any = None,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        grid: str | Tensor | None = None,
        guidance: float | Tensor | None = None,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        guide: Guide | Iterable[Guide] = (),
        threshold: float | None = None,
        eta: float | None = None,
        seed: int | Sequence[int] = 0,
        start: Tensor | None = None,
        image: Any = None,
        strength: float | None = None,
        hires: Hires | None = None,
        clip_skip: int | None = None,
        batch_size: int | None = None,
        dtype: str = "auto",
        shape: Sequence[int] | None = None,
        tile: int | None = None,
    ) -> Samples:
        """Draw `count` samples.

        label: a class (number or name), one for each sample, or mixed weights; prompt: text, one
        or one for each sample. inputs: what else the model is told, by the name of its encoder.
        sampler, grid, steps: by the names of `fn.samplers.get` and `fn.grids.get`; the model's
        own defaults otherwise. eta: how much noise DDIM adds.
        guidance: 1 is none, a tensor (count,) one for each. negative: a prompt or label, or inputs
        by name, to move away from in place of being told nothing. interval: the times [low, high]
        in which guidance acts. rescale: share of it that keeps the spread of the belief that was
        told (see `fn.guidance.ClassifierFree`). guide: what else changes beliefs, such as
        `fn.guidance.loss(…)`, around guidance, the first one innermost. threshold: dynamic
        thresholding around all of it, e.g. 0.995, in place of the model's own clipping.
        seed: sample i draws all its noise from its own generator, seeded with seed + i.
        start: x at the first time of the grid (count, ...), in place of noise. image: a picture, or
        one for each sample, to begin from in place of noise: a path, PIL, or a tensor in [−1, 1].
        strength: how much of it is drawn anew; of N steps the last ⌊N·strength⌋ are run, from the
        image with the noise of that time on it (`fromnoise.model.begin`). hires: a second pass over
        the enlarged picture, `fn.Hires(2.0)`. clip_skip: the layer of CLIP that prompts are
        read from, 1 being the last; its own by default.
        batch_size: the batch the network is run at; the last one is padded to it, so that a
        sample can be repeated bit for bit. dtype: "auto" (bfloat16 where that is faster),
        "float32" (exact), "bfloat16" or "float64". shape: of one sample, where it may vary; by
        default what an input asks for (a picture to enlarge), else the model's own. tile: latents
        along the sides of the tiles that the autoencoder takes pictures in, from 8; 0 is in one
        piece. By default that is done, with a warning, where one piece would not fit in the memory
        that is free; the recipe holds what was done.
        A run that will take a minute or more says so with a warning, and what would be quicker.
        Raises UsageError for anything unknown to this model.
        """
        stream = self.stream(
            count, label=label, prompt=prompt, inputs=inputs, negative=negative, sampler=sampler,
            steps=steps, grid=grid, guidance=guidance, interval=interval, rescale=rescale,
            guide=guide, threshold=threshold, eta=eta, seed=seed, start=start, image=image,
            strength=strength, hires=hires, clip_skip=clip_skip, batch_size=batch_size,
            dtype=dtype, shape=shape, tile=tile,
        )  # fmt: skip
        for note in stream.notes:
            warnings.warn(note, stacklevel=2)
        return stream.samples(watched(stream, _warned, noisy=self.denoiser.process.noisy))

    def stream(
        self,
        count: int = 1,
        *,
        label: Any = None,
        prompt: str | Sequence[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        negative: Any = None,
        sampler: str | Sampler | None = None,
        steps: int | None = None,
        grid: str | Tensor | None = None,
        guidance: float | Tensor | None = None,
        interval: tuple[float, float] | None = None,
        rescale: float = 0.0,
        guide: Guide | Iterable[Guide] = (),
        threshold: float | None = None,
        eta: float | None = None,
        seed: int | Sequence[int] = 0,
        start: Tensor | None = None,
        image: Any = None,
        strength: float | None = None,
        hires: Hires | None = None,
        clip_skip: int | None = None,
        batch_size: int | None = None,
        dtype: str = "auto",
        shape: Sequence[int] | None = None,
        tile: int | None = None,
    ) -> Stream:
        """The same as `sample`, yielding a `Step` (index, count, t, x, x0) after each step.

        Previews, cancelling and film strips read this. `decode(step.x0)` gives pictures, and the
        stream's `recipe` is what the samples will carry; its `live()` shows each step in a
        notebook. Bad arguments raise here, not later.
        """
        self.check_draws()
        whole("count", count)
        batch = whole("batch_size", min(count, BATCH) if batch_size is None else batch_size)
        if isinstance(grid, Tensor) and steps is not None:
            raise UsageError("give a grid of times or a number of steps, not both")
        grid, sampler = grid_in_name(grid, sampler)
        rule, name = self._sampler(sampler, eta)
        asked_steps = self.defaults.steps if steps is None else steps
        times = self._grid(grid, asked_steps)
        shape = asked_by(self, inputs) if shape is None else shape
        begun = begin.beginning(self, image, strength, shape, count)
        if start is not None:
            begin.check_start(start, begun)
        size = self._shape(shape) if begun is None else begun.shape
        latent = self.codec.latent_shape(size)
        kind = precision(dtype, self.denoiser.net)
        largest = size if hires is None else hires.shape(self, size)
        cut = tiling(self, self.codec.latent_shape(largest), kind, tile)
        coder = tiled(self.codec, cut.tile)
        label, negative = (
            one.tolist() if isinstance(one, Tensor | np.ndarray) else one
            for one in (label, negative)
        )
        guides = listed(guide)
        asked = Asked(guidance, negative, interval, rescale, guides, threshold)
        classes = aside(self, guides, label)
        seeds = seeds_for(seed, count)
        raw = raw_inputs(label if classes is None else None, prompt, inputs)
        self.conditioning.check(raw)
        conditioning = skipping(self, clip_skip)
        steered = steering(self, asked, raw, count)

        def tell(telling: Telling) -> Told:
            with torch.no_grad():
                told = telling.over(conditioning)
            if classes is None:
                return told
            return [(end, told_aside(one, classes, label, count)) for end, one in told]

        walked = times if begun is None else begin.shortened(times, begun.strength)
        telling = Telling(
            raw=raw,
            negative=away_from(self, negative),
            seeds=seeds,
            space=latent[1:],
            steps=len(walked) - 1,
            coder=coder,
        )
        draw = Draw(
            sampler=rule,
            grid=walked,
            telling=telling,
            told=tell(telling),
            steering=steered,
            seeds=seeds,
            batch=batch,
            dtype=kind,
            start=start,
            shape=size,
            origin=None if begun is None else begin.encoded(coder, begun.pictures, count),
            tile=cut.tile,
        )
        passes = Passes(draw)
        if hires is not None:
            passes = hires.passes(self, draw, self._grid(grid, hires.steps or asked_steps), tell)
        recipe = {
            "sampler": name,
            "grid": "explicit" if isinstance(grid, Tensor) else grid or self.defaults.grid,
            "eta": eta,
            **recorded(draw, asked),
            **told_each(self, draw, classes, label, negative, inputs),
            "steps": len(times) - 1,
            "clip_skip": clip_skip,
            "hires": None if hires is None else asdict(hires),
            "tile": cut.tile,
        }
        if begun is not None:
            recipe |= {"image": begun.names, "strength": begun.strength}
            recipe["used"] |= begun.used()
        return Stream(
            passes.walk(self),
            partial(self.decode, dtype=recipe["dtype"], tile=cut.tile),
            recipe,
            passes.shapes(self),
            notes=() if cut.note is None else (cut.note,),
            preview=Previews(self, recipe["dtype"]),
        )

    def decode(self, x: Tensor, dtype: str = "auto", tile: int = 0) -> Tensor:
        """Samples or previews as data: pictures (B, C, H, W) in [−1, 1], or points, float32.

        dtype: what the decoder is run in, by default that of the network. What is not finite is
        decoded once more in float32. tile: latents along the sides of its tiles, 0 for one piece.
        Raises NumberError where a decoder overflows even then, UsageError for a tile of 1 to 7.
        """
        quick = self._quick(precision(dtype, self.denoiser.net))
        codec, quick = tiled(self.codec, tile), None if quick is None else tiled(quick, tile)
        with torch.no_grad(), within_memory(codec, max(x.shape[1:])):
            # One by one: what a picture is does not depend on its neighbours, nor does the memory.
            rows = [
                decode_finite(codec, one, quick)
                for one in (torch.split(x.float(), 1) if len(x) else [x])
            ]
        if next(codec.parameters(), None) is not None:
            self.card.speed = {**self.card.speed, "tile": tile}
        decoded = torch.cat(rows)
        return decoded if len(self.shape) == 1 else decoded.clamp(-1.0, 1.0)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [−1, 1] to latents and back: what the codec keeps of them.

        Raises ShapeError for pictures that its codec does not take.
        """
        with torch.no_grad():
            latents = [self.codec.encode(one) for one in torch.split(x.float(), 1)]
        return self.decode(torch.cat(latents))

    def pictured(self, z: Tensor) -> Tensor:
        """Samples as data, as guides look at them: differentiable, and not kept in range."""
        weights = next(self.codec.parameters(), None)
        pictures: Tensor = self.codec.decode(z if weights is None else z.to(weights.dtype))
        return pictures

    def condition(
        self,
        count: int,
        label: Any = None,
        prompt: str | Sequence[str] | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> Condition | None:
        """What the network is told of `count` samples, null attached; None if it takes nothing.

        inputs: what else it is told, by the name of its encoder. A prompt that changes while
        sampling is told as it begins. Raises UsageError for what this model is not told, and for
        an empty prompt.
        """
        raw = raw_inputs(label, prompt, inputs)
        telling = Telling(
            raw, None, range(count), self.codec.latent_shape(self.shape)[1:], 1000, self.codec
        )
        return telling.over(self.conditioning)[0][1]

    def tokens(self, prompt: str) -> dict[str, tuple[int, ...]]:
        """How many tokens each chunk of a prompt has, by the encoders that read it.

        Raises UsageError for a prompt that does not parse, or where nothing reads prompts.
        """
        counted = self.conditioning.tokens(prompt)
        if not counted:
            takes = ", ".join(self.conditioning.names) or "nothing"
            raise UsageError(f"this model reads no prompts; it takes {takes}")
        return counted

    def prepared(self, dtype: torch.dtype) -> NetworkDenoiser:
        """The denoiser readied for sampling in a type; what was done is in `card.speed`."""
        if dtype not in self._prepared:
            net, report = (compiled if self.compiled else prepare)(self.denoiser.net, dtype)
            self.card.speed = report
            self._prepared[dtype] = NetworkDenoiser(
                net,
                self.denoiser.process,
                self.denoiser.parameterization,
                self.denoiser.learned_variance,
            )
        return self._prepared[dtype]

    def ahead(self, dtype: torch.dtype) -> int:
        """Bytes that sampling in a type takes for copies of the network and the decoder.

        Only those that are not made yet, and are made before anything is decoded.
        """
        net = 0 if dtype in self._prepared else copied(self.denoiser.net, dtype)
        ready = self._readied is not None and self._readied[:2] == (self.codec, dtype)
        made = ready or dtype == torch.float64 or not large(self.codec)
        return net + (0 if made else copied(self.codec, dtype))

    def _quick(self, dtype: torch.dtype) -> Codec | None:
        """The codec readied in a type, the last one kept; None where it would gain nothing."""
        if dtype == torch.float64 or not large(self.codec):
            return None
        if self._readied is None or self._readied[:2] != (self.codec, dtype):
            quick, report = readied(self.codec, dtype)
            self._readied = (self.codec, dtype, None if report is None else quick)
        return self._readied[2]

    def compile(self) -> None:
        """Sample with the network by `torch.compile` from now on, in place of the speed path.

        It takes seconds to minutes when a shape is first drawn, and pays where many are drawn.
        What is drawn differs by rounding. Raises UsageError where it does not work.
        """
        self.compiled = True
        self.refresh()

    def refresh(self) -> None:
        """Forget what was prepared for sampling: the weights have changed."""
        self._prepared.clear()
        self._readied = None

    def save(self, path: str | Path, half: bool = False) -> None:
        """Write the model as a folder: model.json and model.safetensors, atomically.

        half: weights rounded to bfloat16, half the size; the process keeps its own.
        """
        from fromnoise.model.files import save_model

        save_model(self, Path(path), torch.bfloat16 if half else None)

    def check_draws(self) -> None:
        """Raise UsageError for a model that only reads samples, naming the guide it can be."""
        net = self.denoiser.net
        if not net.draws and not net.guide:
            raise UsageError(
                f"{self.card.name} is an autoencoder and draws nothing; train a model behind it: "
                f"`fromnoise train RECIPE --codec {self.source or 'THIS'}`"
            )
        if not net.draws:
            guide = net.guide.format(run=self.source or "THIS")
            raise UsageError(
                f"{self.card.name} draws nothing; sample another model and guide it by this one: "
                f"`fromnoise sample RUN --guide {guide}`, or fn.guidance.{guide.partition(':')[0]}"
            )

    def _shape(self, shape: Sequence[int] | None) -> tuple[int, ...]:
        """The shape of one sample; ShapeError for one the model does not draw."""
        return self.shape if shape is None else checked_shape(self, tuple(shape))

    def _sampler(self, sampler: str | Sampler | None, eta: float | None) -> tuple[Sampler, str]:
        if isinstance(sampler, Sampler):
            return sampler, type(sampler).__name__
        name = self.defaults.sampler if sampler is None else sampler
        return samplers.get(name, eta=eta), name

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


def _warned(text: str) -> None:
    # From whoever called `sample`.
    warnings.warn(text, stacklevel=6)
