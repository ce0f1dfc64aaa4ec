"""One call of `sample`, all choices made, and how its batches are walked together."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fromnoise import guidance, samplers
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.denoisers import Denoiser
from fromnoise.guidance import Guide, Informed, Part, Told
from fromnoise.guidance.classifier import LABEL
from fromnoise.layers.fast import best_dtype
from fromnoise.model.told import Telling
from fromnoise.model.told import rows as rows_of
from fromnoise.nets.base import SELF
from fromnoise.samplers import Sampler, Step
from fromnoise.samplers.ancestral import Ancestral
from fromnoise.samplers.wrappers import ClippedData

if TYPE_CHECKING:
    from fromnoise.model.model import Model


@dataclass(frozen=True)
class Steering:
    """What changes what the network believes: everything but the condition itself.

    scale, interval, rescale: of guidance without a classifier. guides: applied after it, the first
    one innermost. threshold, limit: how beliefs are kept in range, outermost; None is not at all.
    """

    scale: float | Tensor
    interval: tuple[float, float]
    rescale: float
    guides: tuple[Guide, ...]
    threshold: float | None
    limit: float | None


@dataclass(frozen=True)
class Draw:
    """One call of `sample`, all choices made. told: `telling` by the model's own encoders.

    origin: clean latents (count, ...) to begin from with noise on them; start: x itself. tile: of
    latents, where pictures are made of them or they of pictures; 0 does it whole.
    """

    sampler: Sampler
    grid: Tensor
    telling: Telling
    told: Told
    steering: Steering
    seeds: tuple[int, ...]
    batch: int
    dtype: torch.dtype
    start: Tensor | None
    shape: tuple[int, ...]
    origin: Tensor | None = None
    tile: int = 0


def walk(model: "Model", draw: Draw) -> Iterator[Step]:
    """All batches in step with each other, so that a preview shows every sample."""
    count = len(draw.seeds)
    streams = [
        _batch(model, draw, range(first, min(first + draw.batch, count)))
        for first in range(0, count, draw.batch)
    ]
    for together in zip(*streams, strict=True):
        first = together[0]
        yield replace(
            first,
            x=torch.cat([step.x for step in together]),
            x0=torch.cat([step.x0 for step in together]),
        )


def _batch(model: "Model", draw: Draw, rows: range) -> Iterator[Step]:
    # Padded with copies of the last row: at one batch shape, neighbours change nothing.
    index = torch.tensor([*rows, *[rows[-1]] * (draw.batch - len(rows))])
    noise = Noise([draw.seeds[i] for i in index.tolist()])
    denoiser: Denoiser = model.prepared(draw.dtype)
    x = _start(model, draw, denoiser, index, noise)
    guided, sampler = _steered(model, denoiser, draw, index)
    condition = rows_of(draw.told, index)[0][1]
    for step in samplers.sample(guided, sampler, draw.grid, x, condition, noise):
        yield replace(step, x=step.x[: len(rows)], x0=step.x0[: len(rows)])


def _start(model: "Model", draw: Draw, denoiser: Denoiser, index: Tensor, noise: Noise) -> Tensor:
    work = torch.float64 if draw.dtype == torch.float64 else torch.float32
    latent = model.codec.latent_shape(draw.shape)
    if draw.origin is not None:
        clean = draw.origin[index].to(work)
        first = times(float(draw.grid[0]), len(index))
        return denoiser.process.corrupt(clean, first, noise.normal(clean))
    if draw.start is None:
        like = torch.zeros((draw.batch, *latent), dtype=work)
        return denoiser.process.prior(noise, like, float(draw.grid[0]))
    if tuple(draw.start.shape) != (len(draw.seeds), *latent):
        raise ShapeError(
            f"start has shape {tuple(draw.start.shape)}; "
            f"this call needs {(len(draw.seeds), *latent)}"
        )
    return draw.start[index].to(work)


def _steered(
    model: "Model", denoiser: Denoiser, draw: Draw, index: Tensor
) -> tuple[Denoiser, Sampler]:
    """Guidance around the network, guides around it, and beliefs kept in range around all."""
    steering, sampler = draw.steering, draw.sampler
    if SELF in model.denoiser.net.accepts.channels:
        denoiser = guidance.SelfConditioning(denoiser)
    scale = steering.scale
    if isinstance(scale, Tensor) or scale != 1:
        scale = scale[index] if isinstance(scale, Tensor) and scale.ndim else scale
        denoiser = guidance.ClassifierFree(
            denoiser, scale, interval=steering.interval, rescale=steering.rescale
        )
    told = rows_of(draw.told, index)
    heard = () if told[0][1] is None else told[0][1].vector
    if LABEL in heard and LABEL not in model.denoiser.net.accepts.vector:
        denoiser = guidance.Unheard(denoiser)
    if len(told) > 1:
        denoiser = guidance.Scheduled(denoiser, told)
    for guide in steering.guides:
        if isinstance(guide, Informed):
            with torch.no_grad():
                guide = guide.informed(
                    lambda encoders: draw.telling.among(encoders, index), Part(index, draw.dtype)
                )
        denoiser = guide(denoiser, model.pictured)
    if steering.threshold is not None:
        return guidance.Thresholded(denoiser, steering.threshold, steering.limit or 1.0), sampler
    if steering.limit is None:
        return denoiser, sampler
    if isinstance(sampler, Ancestral) and sampler.eta < 1:
        return denoiser, ClippedData(sampler, steering.limit)
    return guidance.Clipped(denoiser, steering.limit), sampler


def whole(name: str, value: int) -> int:
    """A whole number from 1, or UsageError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name} {value!r} is not a whole number from 1")
    return value


def grid_in_name(
    grid: str | Tensor | None, sampler: str | Sampler | None
) -> tuple[str | Tensor | None, str | Sampler | None]:
    """Split "DPM++ 2M Karras", as older versions of other tools spell sampler and grid in one."""
    if isinstance(sampler, str) and grid is None and sampler.lower().endswith(" karras"):
        return "karras", sampler[: -len(" karras")]
    return grid, sampler


def precision(name: str, net: nn.Module) -> torch.dtype:
    """The type a network is run in; "auto" is bfloat16 where it is native and worth the loss."""
    table = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
    if name in table:
        return table[name]
    if name != "auto":
        raise UsageError(f"dtype {name!r} is unknown; use auto, {', '.join(table)}")
    return best_dtype() if large(net) else torch.float32


def large(net: nn.Module) -> bool:
    """Whether a part is worth readying: below, it is quick, and float32 costs no quality."""
    return sum(p.numel() for p in net.parameters()) >= 5_000_000
