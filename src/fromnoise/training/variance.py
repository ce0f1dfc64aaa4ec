"""The bound that trains a learned variance; the mean is left to the denoising loss."""

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Prediction

DEFAULT_STEPS = 1000


def variance_bound(prediction: Prediction, x0: Tensor) -> Tensor:
    """T·E[KL(q(x_s|x_t,x0) ‖ p(x_s|x_t))] in nats for each dimension, s = t − 1/T.

    p has variance β^v·β̃^(1−v) with v the learned fraction, and its mean is held fixed
    (Nichol & Dhariwal 2021, "Improved Denoising Diffusion", eq. 15 and section 3.1). At the first
    of the T steps the KL is −log p(x0|x_t), a Gaussian density, and β̃ is that of the second.
    T is the schedule's, or 1000. Raises UsageError when no variance is learned.
    """
    fraction = prediction.var_fraction
    if fraction is None:
        raise UsageError("this denoiser does not learn a variance")
    process, t = prediction.process, prediction.t
    step = 1.0 / (process.schedule.steps or DEFAULT_STEPS)
    first = t < 1.5 * step
    inner = torch.where(first, torch.full_like(t, 2.0 * step).clamp(max=1.0), t)
    small, large = _log_variances(process, inner, step, x0)
    _, large_first = _log_variances(process, torch.where(first, t, inner), step, x0)
    large = torch.where(_like(first, large), large_first, large)
    log_var = (fraction * large.to(x0) + (1.0 - fraction) * small.to(x0)).double()

    error = process.analyse(x0 - prediction.x0.detach()).double()
    alpha, sigma = process.scales(t, x0)
    earlier = process.scales((t - step).clamp(min=0.0), x0)
    kept = (alpha / earlier.alpha) ** 2 * earlier.sigma**2
    gain = earlier.alpha * (sigma**2 - kept) / sigma**2
    kl = 0.5 * (log_var - small - 1.0 + torch.exp(small - log_var))
    kl = kl + 0.5 * (gain * error) ** 2 * torch.exp(-log_var)
    likelihood = 0.5 * (log_var + error**2 * torch.exp(-log_var) + 1.8378770664093453)
    chosen = torch.where(_like(first, kl), likelihood, kl)
    return (chosen.mean() / step).to(x0.dtype)


def _log_variances(process: object, t: Tensor, step: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """log β̃ and log β of the step from t to t − step."""
    alpha, sigma = process.scales(t, like)  # type: ignore[attr-defined]
    earlier = process.scales((t - step).clamp(min=0.0), like)  # type: ignore[attr-defined]
    beta = sigma**2 - (alpha / earlier.alpha) ** 2 * earlier.sigma**2
    return torch.log(beta * earlier.sigma**2 / sigma**2), torch.log(beta)


def _like(mask: Tensor, like: Tensor) -> Tensor:
    return mask.reshape(mask.shape + (1,) * (like.ndim - 1))
