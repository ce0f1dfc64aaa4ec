"""The cosine basis of pictures with reflecting edges, in which a Gaussian blur is diagonal."""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError

# Rows and columns are padded to this multiple so that every sample of a batch starts at the same
# place of a matrix product's tiles: its result then does not depend on its place in the batch.
_TILE = 8


def spatial(x: Tensor) -> tuple[int, ...]:
    """The spatial sizes of a picture (B, C, *spatial).

    Raises ShapeError for fewer than three axes or an empty one.
    """
    if x.ndim < 3 or 0 in x.shape:
        raise ShapeError(
            f"a picture is (batch, channels, height, width), a signal (batch, channels, time); "
            f"got {tuple(x.shape)}"
        )
    return tuple(x.shape[2:])


def dct_matrix(size: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II of one axis as a matrix (size, size), dtype and device of `like`.

    M[k, n] = √(2/N)·cos(πk(2n + 1)/(2N)), the row k = 0 divided by √2. Computed in float64.
    """
    if size < 1:
        raise UsageError(f"a cosine transform needs a size of at least 1, got {size}")
    return _dct_matrix(size, like.dtype, like.device)


@functools.lru_cache(maxsize=64)
def _dct_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A table first made inside inference mode could never take part in a gradient afterwards.
    with torch.inference_mode(False):
        n = torch.arange(size, dtype=torch.float64, device="cpu")
        matrix = torch.cos(math.pi / (2 * size) * n[:, None] * (2 * n[None, :] + 1))
        matrix *= math.sqrt(2 / size)
        matrix[0] /= math.sqrt(2)
        return matrix.to(device=device, dtype=dtype)


def multiply(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply one axis of x (B, ...) by a square matrix: y[.., i, ..] = Σ_j M[i, j]·x[.., j, ..].

    A sample's result is the same bits wherever it stands in a batch of the same shape.
    """
    moved = x.movedim(axis, -1)
    size = moved.shape[-1]
    rows = moved.flatten(1, -2)
    count = rows.shape[1]
    if size % _TILE or count % _TILE:
        edge = -size % _TILE
        rows = torch.nn.functional.pad(rows, (0, edge, 0, -count % _TILE))
        matrix = torch.nn.functional.pad(matrix, (0, edge, 0, edge))
    product = (rows @ matrix.T)[:, :count, :size]
    return product.reshape(moved.shape).movedim(-1, axis)


def dct(x: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch channels ..."]:
    """The orthonormal DCT-II over every axis after batch and channels, any sizes.

    Equal to `scipy.fft.dctn(x, norm="ortho")` over those axes; half precision is worked in float32.
    Raises ShapeError for fewer than three axes.
    """
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    for axis, size in enumerate(spatial(x), start=2):
        y = multiply(y, dct_matrix(size, y), axis)
    return y.to(x.dtype)


def idct(x: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch channels ..."]:
    """The inverse (and transpose) of `dct`."""
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    for axis, size in enumerate(spatial(x), start=2):
        y = multiply(y, dct_matrix(size, y).T, axis)
    return y.to(x.dtype)


def frequencies(*sizes: int) -> Tensor:
    """The squared frequency of each coefficient of `dct`, float64, in (radians per pixel)².

    λ[i, j] = π²(i²/H² + j²/W²) for `frequencies(H, W)`; any number of axes.
    The reflecting Laplacian of a continuous picture has the eigenvalues −λ
    (Hoogeboom & Salimans 2022, "Blurring Diffusion Models").
    """
    if not sizes or min(sizes) < 1:
        raise UsageError(f"frequencies need sizes of at least 1, got {sizes}")
    total = torch.zeros(sizes, dtype=torch.float64)
    for axis, size in enumerate(sizes):
        squared = (math.pi * torch.arange(size, dtype=torch.float64) / size) ** 2
        total += squared.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
    return total


def blur_gains(variance: Tensor, x: Tensor) -> Tensor:
    """The gain exp(−λV/2) of each coefficient of x (B, C, *spatial) under a blur of variance V.

    `variance` is (B,) or a single number, in pixels², and may carry a gradient; the result is
    (B or 1, 1, *spatial), float64.
    """
    lam = frequencies(*spatial(x)).to(x.device)
    v = variance.to(device=x.device, dtype=torch.float64).reshape([-1] + [1] * (x.ndim - 1))
    return torch.exp(-0.5 * v * lam)


def heat(x: Tensor, variance: Tensor) -> Tensor:
    """Blur x (B, C, *spatial) by a Gaussian of the variance V (B,) in pixels², reflecting edges.

    y = idct(exp(−λV/2)·dct(x)): the heat equation run for the time V/2. Blurs compose exactly,
    variances adding.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return idct(dct(wide) * blur_gains(variance, wide).to(wide.dtype)).to(x.dtype)
