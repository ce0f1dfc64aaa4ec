"""Small tensor helpers with one meaning each."""

import hashlib
from collections.abc import Mapping

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


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, shapes, types and every bit, whatever file holds them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        # numpy's arrays are buffers, though its types do not say so: nothing is copied.
        digest.update(value.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()
