"""The variational bound with a learned variance: as what trains the variance, or all there is."""

from typing import Literal

import torch
from torch import Tensor

from fromnoise.core.densities import discretised_log_likelihood, normal_log_density
from fromnoise.core.errors import UsageError
from fromnoise.core.tensors import flat_mean
from fromnoise.denoisers import Prediction

DEFAULT_STEPS = 1000

Part = Literal["variance", "all"]


def variance_bound(
    prediction: Prediction, x0: Tensor, of: Part = "variance", levels: int | None = None
) -> Tensor:
    """T·KL(q(x_s|x_t,x0) ‖ p(x_s|x_t)) of each sample (B,) in nats a dimension, s = t − 1/T.

    p has variance β^v·β̃^(1−v) with v the learned fraction (Nichol & Dhariwal 2021, "Improved
    Denoising Diffusion", eq. 15). At the first of the T steps the KL is −log p(x0|x_t), and β̃ is
    that of the second. With times uniform over the T steps the mean is L_vlb without its prior
    term, which does not train. T is the schedule's, or 1000. So it is the whole bound that is
    weighed, T times a step's part of it, and in nats, not in bits: log 2 of them are one bit.
    of: `variance` holds the mean fixed, so that only v is trained (section 3.1); `all` does not.
    levels: of the data, for a p(x0|x_t) that gives each of them a probability (Ho et al. 2020,
    eq. 13); None for a density.
    Raises UsageError when no variance is learned.
    """
    fraction = prediction.var_fraction
    if fraction is None:
        raise UsageError("this denoiser does not learn a variance")
    process, t = prediction.process, prediction.t
    belief = prediction.x0.detach() if of == "variance" else prediction.x0
    step = 1.0 / (process.schedule.steps or DEFAULT_STEPS)
    first = t < 1.5 * step
    inner = torch.where(first, torch.full_like(t, 2.0 * step).clamp(max=1.0), t)
    small, large = _log_variances(process, inner, step, x0)
    _, large_first = _log_variances(process, torch.where(first, t, inner), step, x0)
    large = torch.where(_like(first, large), large_first, large)
    log_var = (fraction * large.to(x0) + (1.0 - fraction) * small.to(x0)).double()

    error = process.analyse(x0 - belief).double()
    alpha, sigma = process.scales(t, x0)
    earlier = process.scales((t - step).clamp(min=0.0), x0)
    kept = (alpha / earlier.alpha) ** 2 * earlier.sigma**2
    gain = earlier.alpha * (sigma**2 - kept) / sigma**2
    kl = 0.5 * (log_var - small - 1.0 + torch.exp(small - log_var))
    kl = kl + 0.5 * (gain * error) ** 2 * torch.exp(-log_var)
    # Only where it counts: far from the data levels have no probability, and no gradient.
    rows = first.nonzero().flatten()
    if levels is None:
        var = torch.exp(log_var[rows])
        decoded = normal_log_density(error[rows], torch.zeros_like(var), var)
    else:
        known, mean = x0[rows].double(), belief[rows].double()
        decoded = discretised_log_likelihood(known, mean, 0.5 * log_var[rows], levels)
    terms = flat_mean(kl).index_put((rows,), -flat_mean(decoded))
    return (terms / step).to(x0.dtype)


def _log_variances(process: object, t: Tensor, step: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """log β̃ and log β of the step from t to t − step."""
    alpha, sigma = process.scales(t, like)  # type: ignore[attr-defined]
    earlier = process.scales((t - step).clamp(min=0.0), like)  # type: ignore[attr-defined]
    beta = sigma**2 - (alpha / earlier.alpha) ** 2 * earlier.sigma**2
    return torch.log(beta * earlier.sigma**2 / sigma**2), torch.log(beta)


def _like(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (like.ndim - 1))
