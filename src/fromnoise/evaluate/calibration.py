"""What a denoiser gets wrong on data, measured, and the bound made as tight as that allows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import flat_mean, times
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.evaluate.likelihood import decode_log_prob
from fromnoise.evaluate.variances import Kernel, Variance, kernel
from fromnoise.layers.condition import Condition
from fromnoise.samplers.base import check_grid

LEAST_ERROR = 1e-10
"""An error of exactly 0 would promise a certainty that no finite sample shows."""


class Calibrated(Variance):
    """β̃ + x0_gain²·e(t) with e(t) the denoiser's own mean squared error on data at time t.

    `Optimal` with a measured number for each time in place of Var[x0|x_t], as Bao et al. 2022
    ("Analytic-DPM") estimate it from data.
    """

    def __init__(self, t: Tensor, error: Tensor) -> None:
        """t (N,), increasing; error (N,): E‖x0 − D(x_t, t)‖² per dimension at each."""
        self.t, self.error = t, error

    def __call__(self, prediction: Prediction, kernel: Kernel) -> Tensor:
        place = torch.searchsorted(self.t, kernel.t.contiguous()).clamp(max=len(self.t) - 1)
        error = self.error[place].reshape(-1, *(1,) * (prediction.x.ndim - 1))
        return kernel.small + kernel.x0_gain**2 * error


@dataclass(frozen=True)
class Calibration:
    """variance: for the bound. grid: the part of the grid on which the bound is least, and 0.

    error: of the belief at the last time of that grid before 0, per dimension.
    """

    variance: Calibrated
    grid: Tensor
    error: float

    @property
    def last(self) -> float:
        """The last time of the grid before 0: where the decoder takes over."""
        return float(self.grid[-2])


def calibrate(
    denoiser: Denoiser,
    x0: Tensor,
    grid: Tensor,
    noise: Noise,
    condition: Condition | None = None,
    levels: int | None = None,
) -> Calibration:
    """Measure the denoiser's error on x0 (B, ...) at every time of a grid that ends at 0.

    The grid is then cut where the expected bound of x0 is least: further steps towards the data
    cost more than they tell, once the noise is a small part of a level and the network does not
    know that data has levels. Take training data: what is measured here must not be the data the
    bound is for.
    """
    steps = check_grid(grid)
    if steps[-1] != 0.0 or steps[0] < steps[-1]:
        raise UsageError("calibration needs a decreasing grid that ends at 0, the data")
    dimensions = x0[0].numel()
    errors, decoded = [], []
    with torch.no_grad():
        for step in steps[:-1]:
            t = times(step, len(x0))
            x_t = denoiser.process.corrupt(x0, t, noise.normal(x0))
            belief = denoiser(x_t, t, condition).x0
            error = flat_mean((belief.double() - x0.double()) ** 2).mean().clamp(min=LEAST_ERROR)
            found = decode_log_prob(denoiser.process, x0, belief, error, levels)
            errors.append(error)
            decoded.append(-found.mean().item() / dimensions)
    order = torch.tensor(steps[:-1], dtype=torch.float64).argsort()
    known = torch.stack(errors)
    variance = Calibrated(torch.tensor(steps[:-1], dtype=torch.float64)[order], known[order])
    cut = _cut(denoiser, x0, steps, errors, decoded)
    kept = torch.tensor([*steps[: cut + 1], 0.0], dtype=torch.float64)
    return Calibration(variance, kept, known[cut].item())


def _cut(
    denoiser: Denoiser, x0: Tensor, steps: list[float], errors: list[Tensor], decoded: list[float]
) -> int:
    """The index of the last time to keep: where Σ KL so far + decoder, per dimension, is least."""
    like = x0[:1]
    spent, bounds = 0.0, [decoded[0]]
    for index in range(len(steps) - 2):
        t, s = (times(v, 1) for v in steps[index : index + 2])
        true = kernel(denoiser.process, t, s, like, torch.ones((), dtype=torch.float64))
        gap = true.x0_gain**2 * errors[index]
        # KL with the variance small + gap, E of its squared difference of means being gap too.
        spent += (0.5 * torch.log1p(gap / true.small)).mean().item()
        bounds.append(spent + decoded[index + 1])
    return min(range(len(bounds)), key=bounds.__getitem__)
