"""Exact log-likelihood by the probability-flow ODE.

In y = x_t/α and s = log(σ/α) the flow is dy/ds = ρ·(y − D(x_t, t)) with D the belief about x0, and
the log density changes by d log p(y)/ds = −tr ∂(dy/ds)/∂y (Song et al. 2021, "Score-Based
Generative Modeling through SDEs", section 4.3 and appendix D.2, in other variables). ρ is 1 for
plain noise; for a process that acts on each frequency its own way it is d log(σ_k/α_k)/ds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import FromNoiseError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import flat_sum, times
from fromnoise.denoisers import Denoiser
from fromnoise.evaluate.likelihood import (
    bits_per_dim,
    decode_log_prob,
    dequantise,
    normal_log_density,
)
from fromnoise.layers.condition import Condition
from fromnoise.processes import Process

EVALUATIONS = 4000
"""How often a flow may ask the network, where nothing else is said."""

LogDensity = Callable[[Tensor, Tensor], Tensor]
"""log p_t(x) (B,), in nats, of x (B, ...) and t (B,)."""


@dataclass(frozen=True)
class OdeSettings:
    """How the ODE is solved.

    start, end: times between which it runs (by default those `limits` gives).
    rtol, atol: of the adaptive Runge–Kutta 5(4) steps of Dormand & Prince (1980).
    probes: random ±1 vectors for the trace (Hutchinson 1990), None for the exact trace, which costs
    as many backward passes as there are dimensions. The estimate is unbiased for every number.
    evaluations: the most times the network is asked about a batch. A network that is hardly
    trained may want any number of them, each step shorter than the last.
    """

    start: float | None = None
    end: float | None = None
    rtol: float = 1e-5
    atol: float = 1e-5
    probes: int | None = None
    evaluations: int = EVALUATIONS


class LostFlow(FromNoiseError):
    """A flow that could not be followed to its end, so that there is no likelihood."""


@dataclass(frozen=True)
class FlowLikelihood:
    """log_density (B,) in nats, where the flow took the samples (B, ...), network calls made."""

    log_density: Tensor
    latent: Tensor
    evaluations: int


def standard_prior(process: Process) -> LogDensity:
    """N(0, α² + σ²) for each coefficient: what x_t is for data of mean 0 and variance 1."""

    def log_density(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = process.scales(t, x)
        z = process.analyse(x.double())
        return flat_sum(normal_log_density(z, torch.zeros_like(z), alpha**2 + sigma**2))

    return log_density


def limits(process: Process) -> tuple[float, float]:
    """The times between which the log-SNR is finite: the first level of the schedule, and 1.

    Where α is 0 at t = 1 the end is 0.001 below it.
    """
    return process.schedule.limits


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    condition: Condition | None = None,
    prior: LogDensity | None = None,
    settings: OdeSettings | None = None,
    noise: Noise | None = None,
) -> FlowLikelihood:
    """log p(x) (B,) of x (B, ...) by the flow from `start` to `end`.

    log p(x) = log p_end(x_end) + Σ log α_end + ∫ tr ∂f/∂y ds. What has this density is
    x0 + (σ/α)·ε at `start`, which is data as long as σ/α there is small against what data varies
    by. The network is asked in the type of x; everything else is float64.

    prior: the density at the end, `standard_prior` by default. noise: the source of the probes.
    Raises UsageError for times outside (0, 1] or where σ or α is 0, LostFlow where the end is not
    reached.
    """
    settings = settings or OdeSettings()
    process = denoiser.process
    first, final = limits(process)
    start = first if settings.start is None else settings.start
    end = final if settings.end is None else settings.end
    probes = _probes(x, settings.probes, noise)
    field = _Field(denoiser, x, condition, probes, (start, end))
    density = prior or standard_prior(process)

    y, gained = _solve(field, process.analyse(x.detach().double()), settings)
    alpha, _ = process.scales(times(end, len(x)), x)
    latent = process.synthesise(alpha * y)
    at_end = density(latent, times(end, len(x))).double()
    # p(y) = p(x_t)·|dx_t/dy|.
    return FlowLikelihood(at_end + _log_volume(alpha, y) + gained, latent, field.calls)


def flow_bits_per_dim(
    denoiser: Denoiser,
    x: Tensor,
    levels: int,
    noise: Noise,
    condition: Condition | None = None,
    settings: OdeSettings | None = None,
) -> Tensor:
    """Bits per dimension (B,) of data x with levels, evenly dequantised. An upper bound.

    For models trained on dequantised data. One trained on the levels themselves believes that
    nothing lies between them, and `lifted_bits_per_dim` is the bound for it.
    """
    spread = dequantise(x, levels, noise)
    found = log_likelihood(denoiser, spread, condition, None, settings, noise)
    return bits_per_dim(found.log_density, x[0].numel(), levels)


def lifted_bits_per_dim(
    denoiser: Denoiser,
    x: Tensor,
    levels: int,
    noise: Noise,
    condition: Condition | None = None,
    settings: OdeSettings | None = None,
    error: float | None = None,
) -> Tensor:
    """Bits per dimension (B,) of data x with levels, lifted to `start` by the process's own noise.

    −log P(x) ≤ E_q[log q(x_t|x) − log p_t(x_t) − log P(x|x_t)] at t = start, with p_t by the flow
    and P(x|x_t) a Gaussian about the belief with its mass on each level, of variance `error`: the
    mean squared error of the belief where it was measured (`calibrate`), σ²/α² otherwise
    (dequantisation by a variational q: Ho et al. 2019, "Flow++", eq. 12; the q of the process
    itself: Kingma et al. 2021, "Variational Diffusion Models", section 3.3). An upper bound for
    every start; the least is where the noise is a small part of a level.
    """
    settings = settings or OdeSettings()
    process = denoiser.process
    start = limits(process)[0] if settings.start is None else settings.start
    t, drawn = times(start, len(x)), noise.normal(x)
    alpha, sigma = process.scales(t, x)
    z = process.analyse(drawn.double())
    lifted = process.synthesise(process.analyse(x.double()) + sigma / alpha * z).to(x.dtype)
    # log q of x + (σ/α)·ε.
    unit = normal_log_density(z, torch.zeros_like(z), torch.ones_like(z))
    entropy = flat_sum(unit - torch.log(sigma / alpha))
    flow = log_likelihood(denoiser, lifted, condition, None, settings, noise)
    x_t = process.corrupt(x, t, drawn)
    with torch.no_grad():
        belief = denoiser(x_t, t, condition).x0
    known = torch.tensor(error, dtype=torch.float64) if error is not None else (sigma / alpha) ** 2
    decoded = decode_log_prob(process, x, belief, known, levels)
    return bits_per_dim(flow.log_density - entropy + decoded, x[0].numel())


class _Field:
    """dy/ds and its trace at one s, for the whole batch."""

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        condition: Condition | None,
        probes: Tensor,
        span: tuple[float, float],
    ) -> None:
        self.denoiser, self.like, self.condition = denoiser, x, condition
        self.process, self.probes = denoiser.process, probes
        schedule = self.process.schedule
        ends = [-0.5 * schedule.log_snr(torch.tensor(t, dtype=torch.float64)) for t in span]
        self.first, self.final = (s.item() for s in ends)
        if not (math.isfinite(self.first) and math.isfinite(self.final)):
            raise UsageError(f"the flow needs finite noise at both ends, not the times {span}")
        self.calls = 0

    def __call__(self, s: float, y: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        t, (alpha, rate) = self._time(s), self._rates(s)
        with torch.enable_grad():
            leaf = y.detach().requires_grad_()
            x = self.process.synthesise(alpha * leaf).to(self.like.dtype)
            belief = self.process.analyse(self.denoiser(x, t, self.condition).x0.double())
            flow = rate * (leaf - belief)
            trace = self._trace(flow, leaf)
        return flow.detach(), trace

    def _trace(self, flow: Tensor, y: Tensor) -> Tensor:
        """E[vᵀ·(∂flow/∂y)·v] over the probes (P, B, ...): (B,)."""
        (pulled,) = torch.autograd.grad(flow, y, self.probes, is_grads_batched=True)
        return (pulled * self.probes).flatten(2).sum(2).sum(0)

    def _time(self, s: float) -> Tensor:
        log_snr = torch.tensor(-2.0 * s, dtype=torch.float64)
        return times(self.process.schedule.time(log_snr), len(self.like))

    def _rates(self, s: float) -> tuple[Tensor, Tensor]:
        """α, and d log(σ_k/α_k)/ds by a central difference, one-sided at the ends."""
        low, high = max(s - 1e-4, self.first), min(s + 1e-4, self.final)
        scales = [self.process.scales(self._time(v), self.like) for v in (low, s, high)]
        # The times come from a rounded inverse: their own s, not the one asked for, is the span.
        asked = [-0.5 * self.process.schedule.log_snr(self._time(v)[0]) for v in (low, high)]
        rate = (scales[2].log_ratio - scales[0].log_ratio) / (asked[1] - asked[0])
        return scales[1].alpha, rate


def _solve(field: _Field, y: Tensor, settings: OdeSettings) -> tuple[Tensor, Tensor]:
    """y at the end, and ∫ tr ds (B,)."""
    from scipy.integrate import solve_ivp

    shape, count = y.shape, y.numel()

    def slope(s: float, state: np.ndarray) -> np.ndarray:
        if field.calls >= settings.evaluations:
            raise LostFlow(
                f"after {field.calls} evaluations of the network its flow was still at a noise of "
                f"{math.exp(s):.2g} times the data, of {math.exp(field.final):.2g}: it bends too "
                "sharply to be followed. Train longer, or ask for a coarser tolerance"
            )
        flow, trace = field(s, torch.from_numpy(state[:count].copy()).reshape(shape))
        return np.concatenate([flow.numpy().ravel(), trace.numpy()])

    initial = np.concatenate([y.numpy().ravel(), np.zeros(len(y))])
    found = solve_ivp(
        slope, (field.first, field.final), initial, rtol=settings.rtol, atol=settings.atol
    )
    if not found.success or not np.isfinite(found.y[:, -1]).all():
        raise LostFlow(f"the flow could not be followed to its end: {found.message}")
    state = torch.from_numpy(found.y[:, -1].copy())
    return state[:count].reshape(shape), state[count:]


def _probes(x: Tensor, probes: int | None, noise: Noise | None) -> Tensor:
    """What traces are taken with (P, B, ...): unit vectors, or ±1/√P at random."""
    if probes is None:
        dimensions = x[0].numel()
        unit = torch.eye(dimensions, dtype=torch.float64)
        return unit[:, None].expand(-1, len(x), -1).reshape(dimensions, *x.shape)
    if probes < 1:
        raise UsageError(f"probes {probes} must be 1 or more, or None for the exact trace")
    source = Noise(0, len(x)) if noise is None else noise
    signs = [torch.where(source.uniform(x) < 0.5, -1.0, 1.0).double() for _ in range(probes)]
    return torch.stack(signs) / math.sqrt(probes)


def _log_volume(alpha: Tensor, y: Tensor) -> Tensor:
    return flat_sum(torch.log(alpha).expand_as(y))
