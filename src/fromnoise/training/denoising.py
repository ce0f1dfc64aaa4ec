"""Denoising: noise is put on data, and a network learns what was there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fromnoise.codecs import Codec
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import expand, flat_mean
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import SELF
from fromnoise.processes import Process
from fromnoise.schedules import Scales
from fromnoise.training.draws import Draws, derive
from fromnoise.training.dropout import Dropout, Shares
from fromnoise.training.objective import Objective, Phase, Samples, condition_of, unrounded
from fromnoise.training.settings import Choice, ObjectiveSettings
from fromnoise.training.steering import Steering
from fromnoise.training.time_sampling import TIME_SAMPLINGS, TimeSampling
from fromnoise.training.uncertainty import Uncertainty
from fromnoise.training.variance import variance_bound
from fromnoise.training.weightings import WEIGHTINGS, Level, Weighting


@dataclass(frozen=True)
class Noising:
    """Changes of the noise that a training sample is given.

    input_perturbation: γ; x_t is made with ε + γ·ξ, ξ standard normal, while ε stays what is to be
    found, so that the network meets in training the errors it will meet in sampling (Ning et al.
    2023, "Input Perturbation Reduces Exposure Bias in Diffusion Models", algorithm 1; γ = 0.1).
    offset: ε has this times one more normal number in each channel of a picture, so that the
    network learns to change its brightness (Guttenberg 2023, "Diffusion with Offset Noise").
    With 0 of both, nothing is drawn and nothing is changed.
    """

    input_perturbation: float = 0.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.input_perturbation < 0 or self.offset < 0:
            raise UsageError(
                f"input_perturbation {self.input_perturbation} and noise offset {self.offset} "
                "must be 0 or more"
            )

    def __call__(self, noise: Noise, like: Tensor) -> tuple[Tensor, Tensor]:
        """(ε, what x_t is made with), both of the shape of `like` (B, C, ...)."""
        eps = noise.normal(like)
        if self.offset:
            shape = like.shape[:2] + (1,) * (like.ndim - 2)
            eps = eps + self.offset * noise.normal(like.new_empty(shape))
        if not self.input_perturbation:
            return eps, eps
        return eps, eps + self.input_perturbation * noise.normal(like)


_PLAIN = Noising()


@dataclass(frozen=True)
class Bound:
    """How the variational bound is used where a variance is learned.

    loss: `hybrid` adds it to the weighted error, L_simple + λ·L_vlb, to train the variance alone;
    `vlb` leaves only the bound, which then trains the mean as well (Nichol & Dhariwal 2021,
    "Improved Denoising Diffusion", section 3). levels: of the data, None for a density.
    weight: λ.
    """

    loss: Literal["hybrid", "vlb"] = "hybrid"
    levels: int | None = None
    weight: float = 0.001


_HYBRID = Bound()


class Denoising(Objective):
    """E[w(t)·‖x̂0(x_t) − x0‖²], computed as the error of the network's own output.

    With F the network's output and F* its target, x̂0 − x0 = out·(F − F*), so the loss is the mean
    of w·out²·(F − F*)²: for the weighting `simple` that is exactly the squared error of F, and
    nothing is lost to cancellation where out is large.

    condition_dropout: share of samples told nothing, or shares by input (see `Dropout`).
    self_conditioning: share of samples that are shown the detached belief the network forms
    without (Chen et al. 2023, "Analog Bits", algorithm 1); the network must take channels "self".
    bound: how the bound that trains a learned variance is used.
    noising: changes of the noise. uncertainty: one that is learned and evens out the loss.
    A process without noise whose degradation has parameters is trained too (see `Steering`).
    When it is not training (`eval`), no condition is dropped, the noise is plain and no
    uncertainty counts.
    Raises UsageError for parts that do not go together.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        conditioning: Conditioning,
        weighting: Weighting,
        time_sampling: TimeSampling,
        condition_dropout: Shares = 0.0,
        self_conditioning: float = 0.0,
        bound: Bound = _HYBRID,
        noising: Noising = _PLAIN,
        uncertainty: Uncertainty | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.conditioning = conditioning
        self.weighting = weighting
        self.time_sampling = time_sampling
        self.dropout = Dropout(condition_dropout, conditioning)
        self.self_conditioning = self_conditioning
        self.bound = bound
        self.noising = noising
        self.uncertainty = uncertainty
        learns = not denoiser.process.noisy and any(True for _ in denoiser.process.parameters())
        self.steering = Steering() if learns else None
        self._check()

    def behind(self, codec: Codec, encoded: bool = False) -> None:
        self.keep(codec, encoded)

    def prepare(self, x: Tensor, seed: int) -> None:
        """Fit what the process's prior needs to know of the data."""
        noise = Noise([derive(seed, i) for i in range(x.shape[0])])
        self.denoiser.process.fit(x, noise)

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        t, losses = self.losses(batch, draws)
        loss = self._mean(t, losses)
        learns = self.training and (self.time_sampling.adaptive or self.steering is not None)
        each = torch.stack([t, losses.detach().to(t)], dim=1) if learns else None
        yield Phase("loss", loss, each=each)

    def observed(self, positions: Tensor, losses: Tensor) -> None:
        t, values = losses.unbind(1)
        self.time_sampling.observe(t, values)
        if self.steering is not None:
            self.steering.observe(t, values)

    def loss(self, batch: Samples, draws: Draws) -> Tensor:
        """The mean loss of a batch, float32 or float64 as the data are."""
        return self._mean(*self.losses(batch, draws))

    def _mean(self, t: Tensor, losses: Tensor) -> Tensor:
        with unrounded(losses):
            if self.uncertainty is not None and self.training:
                losses = self.uncertainty.evened(losses, t)
            counts = self.time_sampling.importance(t)
            return losses.mean() if counts is None else (counts.to(losses) * losses).mean()

    def losses(self, batch: Samples, draws: Draws) -> tuple[Tensor, Tensor]:
        """The times (B,), float64, and the loss of each sample there (B,)."""
        x0 = self.data(batch, next(self.denoiser.net.parameters()).device)
        # The process and the loss keep their precision; only the network runs in a lower one.
        with unrounded(x0):
            process = self.denoiser.process.begin(draws.noise, x0)
            t = self.time_sampling(draws, process.clock)
            chances = draws.noise.uniform(torch.empty(x0.shape[0], 2))
            noising = self.noising if self.training else _PLAIN
            noise, inside = noising(draws.noise, x0)
            t = t.to(x0.device)
            x = process.corrupt(x0, t, inside)
            if self.steering is not None:
                x = self.steering(x, t)
            dropout = self.dropout if self.training else None
            condition = condition_of(
                self.conditioning, batch, chances[:, 0], dropout, draws.noise, x0.shape[2:]
            )
            condition = None if condition is None else condition.to(x0.device)
        if self.self_conditioning:
            show = chances[:, 1] < self.self_conditioning
            condition = self._shown(x, t, condition, show.to(x0.device))
        output = self.denoiser.output(x, t, condition).to(x0.dtype)
        with unrounded(x0):
            levels = self.bound.levels
            if self.bound.loss == "vlb":
                return t, variance_bound(self.denoiser.read(output, x, t), x0, "all", levels)
            mean = output
            if self.denoiser.learned_variance:
                mean = output.chunk(2, dim=1)[0]
            losses = flat_mean(self._weighted_error(process, mean, x0, t, noise))
            if self.denoiser.learned_variance:
                read = self.denoiser.read(output, x, t)
                bound = variance_bound(read, x0, "variance", levels)
                losses = losses + self.bound.weight * bound
            return t, losses

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
                with unrounded(x):
                    belief[chosen] = self.denoiser.read(output, part, times).x0
        return with_belief(condition, belief)

    def _check(self) -> None:
        if self.self_conditioning and SELF not in self.denoiser.net.accepts.channels:
            raise UsageError(
                f'self-conditioning needs a network that takes channels "{SELF}"; '
                "add it to the network's `accepts`"
            )
        if self.bound.loss == "vlb" and not self.denoiser.learned_variance:
            raise UsageError(
                "the loss vlb trains a mean and a variance; learn a variance as well, or use the "
                "weighting elbo with the loss hybrid"
            )
        process = self.denoiser.process
        like = torch.zeros(1, 1, 1, 1)
        if process.noisy:
            return
        if self.noising != _PLAIN:
            raise UsageError("without noise there is none to perturb or to offset; leave both at 0")
        if not process.end_held:
            raise UsageError(
                "the end of this degradation may move, and with it where samples start; hold it "
                '(a learnable_blur takes end "held")'
            )
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
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    settings: ObjectiveSettings,
    levels: int | None = None,
) -> Denoising:
    """The denoising objective that settings describe, for data of so many levels (None: real)."""
    return Denoising(
        denoiser,
        conditioning,
        WEIGHTINGS.build(_kind(settings.weighting)),
        TIME_SAMPLINGS.build(_kind(settings.time_sampling)),
        settings.condition_dropout,
        settings.self_conditioning,
        Bound(settings.loss, levels, settings.variance_weight),
        Noising(settings.input_perturbation, settings.noise_offset),
        Uncertainty(settings.uncertainty) if settings.uncertainty else None,
    )


def _kind(choice: Choice) -> Mapping[str, Any]:
    return {"kind": choice} if isinstance(choice, str) else choice


def _bounded(scales: Scales) -> Scales:
    # Where α or σ is 0 a weight and out² may be 0 and ∞ while their product is finite.
    return Scales(scales.alpha.clamp(min=1e-30), scales.sigma.clamp(min=1e-30))
