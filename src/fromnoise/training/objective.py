"""What is trained: an objective yields losses and keeps its own state."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import expand
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import SELF
from fromnoise.processes import Process
from fromnoise.schedules import Scales
from fromnoise.training.draws import Draws, derive
from fromnoise.training.settings import Choice, ObjectiveSettings
from fromnoise.training.time_sampling import TIME_SAMPLINGS, TimeSampling
from fromnoise.training.variance import variance_bound
from fromnoise.training.weightings import WEIGHTINGS, Level, Weighting

MAIN = "main"


class Samples(Protocol):
    """A batch of training data: x (B, ...) and what is known of each sample."""

    @property
    def x(self) -> Tensor: ...
    @property
    def label(self) -> Tensor | None: ...
    @property
    def caption(self) -> Sequence[str] | None: ...


@dataclass(frozen=True)
class Phase:
    """One loss of a step, and the group of parameters that it trains.

    loss: a scalar, the mean over the samples it was given.
    """

    name: str
    loss: Tensor
    group: str = MAIN


class Objective(nn.Module, ABC):
    """What is trained, with all its state: everything in its `state_dict` is checkpointed."""

    @abstractmethod
    def phases(self, batch: Samples, draws: Draws) -> Iterable[Phase]:
        """The losses of a step in order; the parameters of one are stepped before the next.

        All randomness that should not depend on how the step is split comes from `draws`.
        """

    def prepare(self, x: Tensor, seed: int) -> None:
        """Called once before the first step with some of the training data (M, ...)."""
        del x, seed

    def after_step(self) -> None:
        """Called after the parameters have been stepped."""

    def groups(self) -> Mapping[str, list[tuple[str, nn.Parameter]]]:
        """The named parameters of each group; each group has its own optimizer."""
        return {MAIN: [(n, p) for n, p in self.named_parameters() if p.requires_grad]}


class Denoising(Objective):
    """E[w(t)·‖x̂0(x_t) − x0‖²], computed as the error of the network's own output.

    With F the network's output and F* its target, x̂0 − x0 = out·(F − F*), so the loss is the mean
    of w·out²·(F − F*)²: for the weighting `simple` that is exactly the squared error of F, and
    nothing is lost to cancellation where out is large.

    condition_dropout: share of samples told nothing (Ho & Salimans 2022, algorithm 1).
    self_conditioning: share of samples that are shown the detached belief the network forms
    without (Chen et al. 2023, "Analog Bits", algorithm 1); the network must take channels "self".
    variance_weight: of the bound that trains a learned variance.
    When it is not training (`eval`), no condition is dropped.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        conditioning: Conditioning,
        weighting: Weighting,
        time_sampling: TimeSampling,
        condition_dropout: float = 0.0,
        self_conditioning: float = 0.0,
        variance_weight: float = 0.001,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.conditioning = conditioning
        self.weighting = weighting
        self.time_sampling = time_sampling
        self.condition_dropout = condition_dropout
        self.self_conditioning = self_conditioning
        self.variance_weight = variance_weight
        self._check()

    def prepare(self, x: Tensor, seed: int) -> None:
        """Fit what the process's prior needs to know of the data."""
        noise = Noise([derive(seed, i) for i in range(x.shape[0])])
        self.denoiser.process.fit(x, noise)

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        yield Phase("loss", self.loss(batch, draws))

    def loss(self, batch: Samples, draws: Draws) -> Tensor:
        """The mean loss of a batch, float32 or float64 as the data are."""
        x0 = batch.x.to(next(self.denoiser.net.parameters()).device)
        # The process and the loss keep their precision; only the network runs in a lower one.
        with _exact(x0):
            process = self.denoiser.process.begin(draws.noise, x0)
            t = self.time_sampling(draws, process.clock)
            chances = draws.noise.uniform(torch.empty(x0.shape[0], 2))
            noise = draws.noise.normal(x0)
            t = t.to(x0.device)
            x = process.corrupt(x0, t, noise)
            condition = self._condition(batch, chances[:, 0], x0)
        if self.self_conditioning:
            show = chances[:, 1] < self.self_conditioning
            condition = self._shown(x, t, condition, show.to(x0.device))
        output = self.denoiser.output(x, t, condition).to(x0.dtype)
        with _exact(x0):
            mean = output
            if self.denoiser.learned_variance:
                mean = output.chunk(2, dim=1)[0]
            weighted = self._weighted_error(process, mean, x0, t, noise)
            loss = weighted.mean()
            if self.denoiser.learned_variance:
                bound = variance_bound(self.denoiser.read(output, x, t), x0)
                loss = loss + self.variance_weight * bound
            return loss

    def _weighted_error(
        self, process: Process, output: Tensor, x0: Tensor, t: Tensor, noise: Tensor
    ) -> Tensor:
        reading = self.denoiser.parameterization
        scales = process.reading(t, x0)
        z0, ze = process.analyse(x0), process.analyse(noise)
        error = process.analyse(output) - reading.regression_target(z0, ze, scales)
        if not self.weighting.needs_noise:
            return error**2
        out = reading.coefficients(_bounded(scales)).out
        level = Level(t, lambda s: _bounded(process.scales(s, x0)), out)
        factor = self.weighting(level) * level.out**2
        return expand(factor, error) * error**2

    def _condition(self, batch: Samples, chance: Tensor, x0: Tensor) -> Condition | None:
        names = self.conditioning.names
        if not names:
            return None
        known = {"label": batch.label, "prompt": batch.caption}
        raw = {name: known[name] for name in names if known.get(name) is not None}
        condition = self.conditioning(raw, x0.shape[0])
        if self.training and self.condition_dropout:
            condition = self.conditioning.drop(condition, chance >= self.condition_dropout)
        told: Condition = condition.to(x0.device)
        return told

    def _shown(
        self, x: Tensor, t: Tensor, condition: Condition | None, show: Tensor
    ) -> Condition | None:
        """The condition with the belief formed without it, in the channels of the chosen rows."""
        belief = torch.zeros_like(x)
        chosen = show.nonzero().flatten()
        if chosen.numel():
            with torch.no_grad():
                told = None if condition is None else condition.rows(chosen)
                part, times = x[chosen], t[chosen]
                output = self.denoiser.output(part, times, told).to(x.dtype)
                with _exact(x):
                    belief[chosen] = self.denoiser.read(output, part, times).x0
        return with_belief(condition, belief)

    def _check(self) -> None:
        if self.self_conditioning and SELF not in self.denoiser.net.accepts.channels:
            raise UsageError(
                f'self-conditioning needs a network that takes channels "{SELF}"; '
                "add it to the network's `accepts`"
            )
        process = self.denoiser.process
        like = torch.zeros(1, 1, 1, 1)
        if process.noisy:
            return
        if self.weighting.needs_noise:
            raise UsageError(
                "without noise there is no signal-to-noise ratio to weight by; use `simple`"
            )
        scales = process.reading(torch.ones(1, dtype=torch.float64), like)
        if bool((self.denoiser.parameterization.target(scales).noise != 0).any()):
            raise UsageError("without noise the network must predict x0; use parameterization x0")


def with_belief(condition: Condition | None, belief: Tensor) -> Condition:
    """The condition with a belief about x0 in the channels named "self"."""
    told = Condition() if condition is None else condition
    channels = {**told.channels, SELF: belief}
    return Condition(channels, told.vector, told.tokens)


def denoising(
    denoiser: NetworkDenoiser, conditioning: Conditioning, settings: ObjectiveSettings
) -> Denoising:
    """The denoising objective that settings describe."""
    return Denoising(
        denoiser,
        conditioning,
        WEIGHTINGS.build(_kind(settings.weighting)),
        TIME_SAMPLINGS.build(_kind(settings.time_sampling)),
        settings.condition_dropout,
        settings.self_conditioning,
        settings.variance_weight,
    )


def _kind(choice: Choice) -> Mapping[str, Any]:
    return {"kind": choice} if isinstance(choice, str) else choice


def _bounded(scales: Scales) -> Scales:
    # Where α or σ is 0 a weight and out² may be 0 and ∞ while their product is finite.
    return Scales(scales.alpha.clamp(min=1e-30), scales.sigma.clamp(min=1e-30))


def _exact(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)
