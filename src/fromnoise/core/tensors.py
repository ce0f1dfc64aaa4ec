"""Small tensor helpers with one meaning each."""

import torch
from torch import Tensor


def expand(coefficient: Tensor, like: Tensor) -> Tensor:
    """Give a per-sample coefficient (B,) the trailing axes of `like` (B, ...) and its dtype.

    A coefficient that already has the rank of `like` (per frequency, say) only changes dtype.
    """
    if coefficient.ndim < like.ndim:
        coefficient = coefficient.reshape(coefficient.shape + (1,) * (like.ndim - coefficient.ndim))
    return coefficient.to(device=like.device, dtype=like.dtype)


def times(value: float | Tensor, batch: int, device: torch.device | None = None) -> Tensor:
    """One time for each of `batch` samples, float64, shape (B,)."""
    t = torch.as_tensor(value, dtype=torch.float64, device=device)
    return t.expand(batch) if t.ndim == 0 else t


def flat_mean(x: Tensor) -> Tensor:
    """Mean over every axis but the first: (B, ...) to (B,)."""
    return x.flatten(1).mean(dim=1)


def flat_sum(x: Tensor) -> Tensor:
    """Sum over every axis but the first: (B, ...) to (B,)."""
    return x.flatten(1).sum(dim=1)
