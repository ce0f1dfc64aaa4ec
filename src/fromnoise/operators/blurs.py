"""Blurs: Gaussian with reflecting edges (diagonal in cosines), any kernel with periodic edges."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.operators.base import OPERATORS, SpectralOperator, Svd, check_cutoff, invert
from fromnoise.operators.basis import blur_gains, dct, heat, idct, spatial


@OPERATORS.register("gaussian_blur")
@dataclass(frozen=True)
class GaussianBlur(SpectralOperator):
    """Gaussian blur with reflecting edges: y = C⁻¹·exp(−λσ²/2)·C·x, C the orthonormal DCT-II.

    width: the standard deviation σ in pixels, at least 0. Two blurs are one of width √(σ₁² + σ₂²),
    exactly. Below about 0.7 pixels the sampled kernel rings a little, as a band limit must.
    cutoff: singular values below this part of the largest count as zero in `pinv`, which would
    otherwise blow up the noise by exp(λσ²/2).
    Raises UsageError for a negative or infinite width or a cut-off outside [0, 1).
    """

    width: float
    cutoff: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.width < math.inf:
            raise UsageError(f"blur width {self.width} is out of range; use 0 pixels or more")
        check_cutoff(self.cutoff)

    def __call__(self, x: Tensor) -> Tensor:
        return heat(x, self._variance)

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def pinv(self, y: Tensor) -> Tensor:
        wide = y.to(torch.promote_types(y.dtype, torch.float32))
        gains = invert(blur_gains(self._variance, wide), self.cutoff)
        return idct(dct(wide) * gains.to(wide.dtype)).to(y.dtype)

    def svd(self, like: Tensor) -> Svd:
        return Svd(blur_gains(self._variance, like).to(like.dtype), idct, dct, idct, dct)

    @property
    def _variance(self) -> Tensor:
        return torch.tensor(self.width**2, dtype=torch.float64)


@OPERATORS.register("kernel_blur")
@dataclass(frozen=True)
class KernelBlur(SpectralOperator):
    """Convolution with any kernel, periodic edges: y = F⁻¹·K·F·x, F the Fourier transform.

    kernel: rows of numbers (or one row for signals); its middle, at size // 2, meets the pixel.
    cutoff: as for the Gaussian blur, in `pinv` only.
    Its spectrum is real: V is the Hartley basis Re F − Im F (which is its own inverse), S = |K|,
    and U = F⁻¹·(K/|K|)·F·V.
    Raises UsageError for an empty or ragged kernel, ShapeError for a picture smaller than it.
    """

    kernel: Sequence[Sequence[float]] | Sequence[float]
    cutoff: float = 1e-3

    def __post_init__(self) -> None:
        check_cutoff(self.cutoff)
        try:
            values = torch.tensor(self.kernel, dtype=torch.float64)
        except (ValueError, TypeError) as error:
            raise UsageError(f"the kernel is no table of numbers: {error}") from None
        if not values.numel() or not values.isfinite().all():
            raise UsageError("the kernel must hold finite numbers, and at least one")
        object.__setattr__(self, "kernel", _frozen(values))

    def __call__(self, x: Tensor) -> Tensor:
        return _filter(x, self._transfer(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return _filter(y, self._transfer(y).conj())

    def pinv(self, y: Tensor) -> Tensor:
        transfer = self._transfer(y)
        gains = invert(transfer.abs(), self.cutoff)
        return _filter(y, _phase(transfer).conj() * gains)

    def svd(self, like: Tensor) -> Svd:
        transfer = self._transfer(like)
        phase = _phase(transfer)
        return Svd(
            transfer.abs().to(like.dtype),
            _hartley,
            _hartley,
            lambda y: _filter(_hartley(y), phase),
            lambda y: _hartley(_filter(y, phase.conj())),
        )

    def _transfer(self, x: Tensor) -> Tensor:
        """The Fourier transform of the kernel on the grid of x: (1, 1, *spatial), complex128."""
        sizes = spatial(x)
        values = torch.tensor(self.kernel, dtype=torch.float64, device=x.device)
        if values.ndim != len(sizes) or any(
            k > n for k, n in zip(values.shape, sizes, strict=True)
        ):
            raise ShapeError(
                f"a kernel of {tuple(values.shape)} does not fit pictures of {sizes} pixels"
            )
        grid = values.new_zeros(sizes)
        grid[tuple(slice(k) for k in values.shape)] = values
        axes = tuple(range(len(sizes)))
        grid = grid.roll([-(k // 2) for k in values.shape], axes)
        transfer: Tensor = torch.fft.fftn(grid)
        return transfer[None, None]


@OPERATORS.register("uniform_blur")
def uniform_blur(size: int = 3, dimensions: int = 2, cutoff: float = 1e-3) -> KernelBlur:
    """The mean of the `size` nearest pixels along each of `dimensions` axes, periodic edges.

    Raises UsageError for a size below 1 or other than 1 to 3 dimensions.
    """
    if size < 1 or not 1 <= dimensions <= 3:
        raise UsageError(f"uniform blur of size {size} in {dimensions} dimensions; use 1 or more")
    full = torch.full([size] * dimensions, size ** -float(dimensions), dtype=torch.float64)
    return KernelBlur(_frozen(full), cutoff)


def _frozen(values: Tensor) -> Any:
    return _tuples(values.tolist())


def _tuples(rows: Any) -> Any:
    return tuple(_tuples(row) for row in rows) if isinstance(rows, list) else rows


def _axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _filter(x: Tensor, transfer: Tensor) -> Tensor:
    """Multiply the Fourier transform of a real x by a transfer that keeps it real."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    spectrum = torch.fft.fftn(wide, dim=_axes(x))
    filtered: Tensor = torch.fft.ifftn(spectrum * transfer.to(spectrum.dtype), dim=_axes(x)).real
    return filtered.to(x.dtype)


def _phase(transfer: Tensor) -> Tensor:
    """K/|K|, and 1 where K is zero."""
    size = transfer.abs()
    return torch.where(size > 0, transfer / torch.where(size > 0, size, 1), 1)


def _hartley(x: Tensor) -> Tensor:
    """The orthonormal Hartley transform over the spatial axes; its own inverse and transpose."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    spectrum: Tensor = torch.fft.fftn(wide, dim=_axes(x), norm="ortho")
    return (spectrum.real - spectrum.imag).to(x.dtype)
