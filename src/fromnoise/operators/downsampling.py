"""Downsampling by block averages, and its nearest-neighbour inverse."""

from dataclasses import dataclass

from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.operators.base import OPERATORS, SpectralOperator, Svd
from fromnoise.operators.basis import dct_matrix, multiply, spatial


@OPERATORS.register("downsample")
@dataclass(frozen=True)
class Downsample(SpectralOperator):
    """Average pooling: y is the mean of each block of `factor` pixels along each spatial axis.

    The adjoint repeats each pixel over its block and divides by the block's size; the
    pseudo-inverse only repeats. Singular values: factor^(−d/2), d the number of spatial axes, one
    for each block; V is the orthonormal DCT-II within blocks.
    Raises UsageError for a factor below 1, ShapeError for a size that it does not divide.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise UsageError(f"downsampling factor {self.factor} is out of range; use 1 or more")

    def __call__(self, x: Tensor) -> Tensor:
        return block_mean(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.pinv(y) * float(self.factor) ** -len(spatial(y))

    def pinv(self, y: Tensor) -> Tensor:
        return repeat(y, self.factor)

    def svd(self, like: Tensor) -> Svd:
        sizes = spatial(like)
        _blocks(like, self.factor)
        every = slice(None, None, self.factor)
        picked = (slice(None), slice(None), *[every] * len(sizes))
        values = like.new_zeros((1, 1, *sizes))
        values[picked] = self.factor ** (-len(sizes) / 2)

        def vt(x: Tensor) -> Tensor:
            return self._within(x, transpose=False)

        def v(x: Tensor) -> Tensor:
            return self._within(x, transpose=True)

        def ut(y: Tensor) -> Tensor:
            coefficients = y.new_zeros((*y.shape[:2], *[n * self.factor for n in spatial(y)]))
            coefficients[picked] = y
            return coefficients

        return Svd(values, v, vt, lambda x: x[picked], ut)

    def _within(self, x: Tensor, transpose: bool) -> Tensor:
        """The cosine transform of each block, coefficients in the block's place."""
        matrix = dct_matrix(self.factor, x)
        if transpose:
            matrix = matrix.T
        blocks = x.reshape(_blocks(x, self.factor))
        for axis in range(3, blocks.ndim, 2):
            blocks = multiply(blocks, matrix, axis)
        return blocks.reshape(x.shape)


def block_mean(x: Tensor, factor: int) -> Tensor:
    """The means of blocks of `factor` along each spatial axis: (B, C, H, W) to (B, C, H/f, W/f)."""
    blocks = x.reshape(_blocks(x, factor))
    return blocks.mean(dim=tuple(range(3, blocks.ndim, 2)))


def repeat(y: Tensor, factor: int) -> Tensor:
    """Repeat each pixel `factor` times along each spatial axis (nearest-neighbour upsampling)."""
    for axis, _ in enumerate(spatial(y), start=2):
        y = y.repeat_interleave(factor, dim=axis)
    return y


def _blocks(x: Tensor, factor: int) -> list[int]:
    sizes = spatial(x)
    if any(size % factor for size in sizes):
        raise ShapeError(f"pictures of {sizes} pixels do not divide into blocks of {factor}")
    return [*x.shape[:2], *(part for size in sizes for part in (size // factor, factor))]
