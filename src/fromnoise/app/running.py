"""What a run of a model will need on this machine: memory before, time by one step of it."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fromnoise import samplers
from fromnoise.app.requests import ModelsInfoRequest
from fromnoise.app.sample import shape_of
from fromnoise.core.machine import free_memory
from fromnoise.core.texts import size
from fromnoise.interop.loading import load
from fromnoise.model import Model
from fromnoise.model.draw import precision
from fromnoise.model.estimate import Estimate
from fromnoise.model.memory import Need, needed, nothing_told
from fromnoise.model.sizes import checked_shape
from fromnoise.model.tiles import fitting

_REPEATS, _PATIENCE = 5, 1.0
"""The most evaluations that are timed, and the seconds after which no other is begun."""


@dataclass(frozen=True)
class Running:
    """What one run needs. parameters: by part. estimate: of its time, None where none was taken.

    tile: latents along a side of the tiles it would decode in, for want of memory; 0 for one piece.
    """

    parameters: dict[str, int]
    draws: bool
    shape: tuple[int, ...]
    batch: int
    guided: bool
    dtype: str
    need: Need
    free: int | None
    estimate: Estimate | None
    tile: int = 0

    @property
    def fits(self) -> bool:
        """Whether the memory that is free now is enough, as far as that is known."""
        return self.free is None or self.need.total <= self.free

    def lines(self) -> Iterator[str]:
        """For people."""
        parts = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items() if count)
        yield f"parameters: {parts}"
        if not self.draws:
            yield "it draws nothing: it reads samples, and can guide another model"
            return
        what = "×".join(map(str, self.shape[:0:-1])) if len(self.shape) == 3 else str(self.shape)
        guided = ", guided" if self.guided else ""
        need = self.need
        yield (
            f"a run ({what}, batch {self.batch}{guided}, {self.dtype}) needs about "
            f"{size(need.total)} of memory: weights {size(need.weights)}, as they are run "
            f"{size(need.copy)}, network {size(need.network)}, decoder {size(need.decoder)}"
            f"{f' in tiles of {self.tile} latents' if self.tile else ''}"
        )
        if self.free is not None:
            verdict = "enough" if self.fits else "not enough: a smaller picture or batch needs less"
            yield f"free now: {size(self.free)}, {verdict}"
        if self.estimate is not None:
            yield _timed(self.estimate)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = {
            "parameters": self.parameters,
            "draws": self.draws,
            "shape": list(self.shape),
            "batch": self.batch,
            "guided": self.guided,
            "dtype": self.dtype,
            "memory": {**asdict(self.need), "total": self.need.total},
            "tile": self.tile,
            "free": self.free,
            "fits": self.fits,
        }
        if self.estimate is not None:
            found |= {"seconds_per_step": self.estimate.per_step, "steps": self.estimate.steps}
            found["seconds"] = self.estimate.seconds
        return found


def _timed(estimate: Estimate) -> str:
    step, whole = estimate.per_step, estimate.seconds
    said = f"one step takes {step:.2g} s" if step >= 0.1 else f"one step takes {1000 * step:.2g} ms"
    if whole >= 10:
        return f"{said}; {estimate.text('flags')}"
    return f"{said}; {estimate.steps} steps of {estimate.sampler} take about {whole:.2g} s here"


def running(request: ModelsInfoRequest) -> Running:
    """What a run as asked for needs; a step is taken where it fits. Raises as `load` does."""
    model = load(request.model)
    net = model.denoiser.net
    asked = _shape(model, request)
    dtype = precision("float32" if request.exact else "auto", net)
    guided = any(model.conditioning.droppable(name) for name in model.conditioning.names)
    free = free_memory()
    how = (model, asked, request.batch_size, guided and net.draws, dtype)
    need, tile = needed(*how), 0
    if free is not None and need.total > free:
        room = free - (need.total - max(need.network, need.decoder))
        tile = fitting(model.codec, model.codec.latent_shape(asked), dtype, room)
        need = needed(*how, tile)
    made = Running(
        parameters={
            "network": _count(net),
            "autoencoder": _count(model.codec),
            "encoders": _count(model.conditioning),
        },
        draws=net.draws,
        shape=asked,
        batch=request.batch_size,
        guided=guided,
        dtype=str(dtype).removeprefix("torch."),
        need=need,
        free=free,
        estimate=None,
        tile=tile,
    )
    # The weights are there already, and counted among what is not free.
    left = None if free is None else free + need.weights
    if request.quick or not net.draws or (left is not None and need.total > left):
        return made
    rows = request.batch_size * (2 if guided else 1)
    return Running(**{**vars(made), "estimate": _measured(model, asked, rows, dtype)})


def _shape(model: Model, request: ModelsInfoRequest) -> tuple[int, ...]:
    if request.width is None and request.height is None:
        return model.shape
    return checked_shape(model, shape_of(model, request) or model.shape)


def _measured(model: Model, shape: tuple[int, ...], rows: int, dtype: torch.dtype) -> Estimate:
    """The time of one step: the least of some evaluations after a first one, which warms up."""
    name, steps = model.defaults.sampler, model.defaults.steps
    evaluations = samplers.get(name).evaluations
    latent = model.codec.latent_shape(shape)
    x, t = torch.zeros(rows, *latent), torch.ones(rows, dtype=torch.float64)
    denoiser = model.prepared(dtype)
    told = nothing_told(denoiser.net, rows, latent, torch.zeros)
    with torch.no_grad():
        denoiser.output(x, t, told)
        took: list[float] = []
        while not took or (len(took) < _REPEATS and sum(took) < _PATIENCE):
            before = time.perf_counter()
            denoiser.output(x, t, told)
            took.append(time.perf_counter() - before)
    noisy = model.denoiser.process.noisy
    return Estimate(name, steps, evaluations, min(took) * evaluations, noisy)


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
