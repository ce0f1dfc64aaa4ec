"""The variational bound over any grid of times, with a choice of reverse variances.

−log p(x0) ≤ L_T + Σ L_i + L_0: the prior's KL, one KL for each step between the true and the
model's reverse kernel, and the decoder at the last (Sohl-Dickstein et al. 2015; Ho et al. 2020,
eq. 5).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import flat_sum, times
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.evaluate.likelihood import bits_per_dim, decode_log_prob, normal_kl
from fromnoise.evaluate.variances import Kernel, Variance, kernel
from fromnoise.layers.condition import Condition
from fromnoise.samplers.base import check_grid


@dataclass(frozen=True)
class Bound:
    """The parts of −log p(x0) (B,), in nats: prior L_T, steps ΣL_i, decoder L_0."""

    prior: Tensor
    steps: Tensor
    decoder: Tensor

    @property
    def total(self) -> Tensor:
        """L_T + ΣL_i + L_0 (B,): on average at least −log p(x0)."""
        return self.prior + self.steps + self.decoder

    def bits_per_dim(self, dimensions: int) -> Tensor:
        """The total in bits per dimension (B,); levels are counted already, by the decoder."""
        return bits_per_dim(-self.total, dimensions)


def variational_bound(
    denoiser: Denoiser,
    x0: Tensor,
    grid: Tensor,
    reverse: Variance,
    noise: Noise,
    condition: Condition | None = None,
    levels: int | None = None,
    terms: int | None = None,
) -> Bound:
    """The bound of x0 (B, ...), one draw of x_t for each term.

    grid: decreasing times (N+1,) that end at 0. reverse: the variance of the model's kernels.
    levels: of the data, for a decoder with probabilities; None for a density.
    terms: how many of the N − 1 steps to take, spread evenly with a random start for each sample
    and scaled up: unbiased, N/terms times cheaper. None takes all.
    Raises UsageError for a grid that does not end at 0.
    """
    steps = check_grid(grid)
    if steps[-1] != 0.0 or steps[0] < steps[-1]:
        raise UsageError("the bound needs a decreasing grid that ends at 0, the data")
    walk = _Walk(denoiser, x0, torch.tensor(steps, dtype=torch.float64), reverse, noise, condition)
    count = len(steps) - 2
    with torch.no_grad():
        total = torch.zeros(len(x0), dtype=torch.float64)
        if count and terms is None:
            for place in range(count):
                total = total + walk.step(torch.full((len(x0),), place))
        elif count and terms is not None:
            for index in _spread(count, terms, x0, noise):
                total = total + walk.step(index) * (count / terms)
        return Bound(walk.prior(), total, walk.decoder(levels))


class _Walk:
    """One sample path of the bound: terms at indices of the grid, from noise to data."""

    def __init__(
        self,
        denoiser: Denoiser,
        x0: Tensor,
        grid: Tensor,
        reverse: Variance,
        noise: Noise,
        condition: Condition | None,
    ) -> None:
        self.denoiser, self.process = denoiser, denoiser.process
        self.x0, self.grid, self.reverse = x0, grid, reverse
        self.noise, self.condition = noise, condition
        self.z0 = self.process.analyse(x0.double())

    def prior(self) -> Tensor:
        """KL(q(x_T | x0) ‖ N(0, α² + σ²)) (B,)."""
        alpha, sigma = self.process.scales(times(self.grid[0], len(self.x0)), self.x0)
        total = torch.log(alpha**2 + sigma**2)
        return flat_sum(normal_kl(alpha * self.z0, 2 * torch.log(sigma), 0.0, total))

    def step(self, index: Tensor) -> Tensor:
        """KL(q(x_s|x_t, x0) ‖ p(x_s|x_t)) (B,) with t, s the grid at index and index + 1 (B,)."""
        true, prediction = self._at(index)
        gap = true.x0_gain * (self.process.analyse(prediction.x0.double()) - self.z0)
        var = self.reverse(prediction, true)
        return flat_sum(normal_kl(gap, torch.log(true.small), 0.0, torch.log(var)))

    def decoder(self, levels: int | None) -> Tensor:
        """−log p(x0 | x_t) (B,) at the last time before 0."""
        last = torch.full((len(self.x0),), len(self.grid) - 2)
        true, prediction = self._at(last)
        var = self.reverse(prediction, true)
        return -decode_log_prob(self.process, self.x0, prediction.x0.double(), var, levels)

    def _at(self, index: Tensor) -> tuple[Kernel, Prediction]:
        t = self.grid[index]
        x_t = self.process.corrupt(self.x0, t, self.noise.normal(self.x0))
        return self._kernel(index), self.denoiser(x_t, t, self.condition)

    def _kernel(self, index: Tensor) -> Kernel:
        t, s = self.grid[index], self.grid[index + 1]
        return kernel(self.process, t, s, self.x0, self._clipped())

    def _clipped(self) -> Tensor:
        """β̃ of the step before the last, for the last (and β of the last if it is the only one)."""
        late, middle = (self.grid[[i]] for i in (max(len(self.grid) - 3, 0), len(self.grid) - 2))
        now, then = (self.process.scales(t, self.x0[:1]) for t in (late, middle))
        if len(self.grid) == 2:
            return now.sigma**2
        return then.sigma**2 * -torch.expm1(2 * (then.log_ratio - now.log_ratio))


def _spread(count: int, terms: int, like: Tensor, noise: Noise) -> list[Tensor]:
    """`terms` index tensors (B,), evenly spread over 0 … count − 1 from a random start."""
    if terms < 1:
        raise UsageError(f"terms {terms} must be 1 or more, or None for all")
    start = noise.uniform(like).flatten(1)[:, 0].double()
    places = ((k + start) * count / terms for k in range(terms))
    return [place.floor().long().clamp(max=count - 1) for place in places]
