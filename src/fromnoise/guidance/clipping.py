"""A belief kept inside the range of the data."""

from dataclasses import replace

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.tensors import expand
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.guidance.base import Ask, Wrapper
from fromnoise.layers.condition import Condition


class Clipped(Wrapper):
    """x̂0 = clip(D(x_t, t, condition), −limit, limit), and so ε and every other view with it.

    Published DDPM samples its pictures so, at limit 1 (Ho, Jain & Abbeel 2020, their code). Wrap
    it around guidance, which moves the belief. Raises UsageError unless `limit` is above 0.
    """

    def __init__(self, denoiser: Denoiser, limit: float = 1.0) -> None:
        if not limit > 0:
            raise UsageError(f"clipping to {limit} leaves nothing; use a limit above 0")
        super().__init__(denoiser)
        self.limit = limit

    def believe(self, ask: Ask, x: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        prediction = ask(x, t)
        return replace(prediction, x0=prediction.x0.clamp(-self.limit, self.limit))


class Thresholded(Wrapper):
    """x̂0 = clip(D(x_t, t, condition), −s, s)·limit/s with s = max(limit, quantile of |D|).

    The quantile is that of one sample, so a belief that stays within `limit` is left alone, and
    one that guidance drove beyond it is drawn together and not cut flat.

    share: which quantile, e.g. 0.995: the share of values that is not clipped.
    Raises UsageError for a share outside (0, 1] or a limit that is not above 0.
    Reference: Saharia et al. 2022, "Imagen", section 2.3 and appendix D.2 (dynamic thresholding).
    """

    def __init__(self, denoiser: Denoiser, share: float = 0.995, limit: float = 1.0) -> None:
        if not limit > 0:
            raise UsageError(f"clipping to {limit} leaves nothing; use a limit above 0")
        super().__init__(denoiser)
        self.share = checked_share(share)
        self.limit = limit

    def believe(self, ask: Ask, x: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        prediction = ask(x, t)
        x0 = prediction.x0
        sizes = x0.abs().flatten(1).to(torch.promote_types(x0.dtype, torch.float32))
        # One by one: torch's quantile takes 16 million values at most.
        quantiles = torch.stack([torch.quantile(row, self.share) for row in sizes])
        size = expand(quantiles.clamp(min=self.limit), x0)
        return replace(prediction, x0=x0.clamp(-size, size) * (self.limit / size))


def checked_share(share: float) -> float:
    """The share of values that thresholding leaves; UsageError outside (0, 1]."""
    if not 0.0 < share <= 1.0:
        raise UsageError(f"threshold {share} is not a share above 0, up to 1; 0.995 is usual")
    return float(share)
