"""The cosine basis: orthonormal, equal to scipy's, and where a Gaussian blur is exact."""

import math

import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.operators.basis import dct, dct_matrix, frequencies, heat, idct, multiply

LAWS = settings(max_examples=25, deadline=None, derandomize=True)
SIZES = st.lists(st.integers(1, 19), min_size=1, max_size=3)


def picture(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).mul(2).sub(1).to(dtype)


@LAWS
@given(sizes=SIZES)
def test_dct_is_scipys_and_idct_undoes_it(sizes: list[int]) -> None:
    x = picture(2, 3, *sizes)
    axes = tuple(range(2, x.ndim))
    theirs = scipy.fft.dctn(x.numpy(), norm="ortho", axes=axes)
    np.testing.assert_allclose(dct(x).numpy(), theirs, atol=1e-12)
    np.testing.assert_allclose(idct(dct(x)).numpy(), x.numpy(), atol=1e-12)


@LAWS
@given(sizes=SIZES)
def test_dct_keeps_inner_products(sizes: list[int]) -> None:
    x, y = picture(2, 1, *sizes), picture(2, 1, *sizes, seed=1)
    assert torch.isclose((dct(x) * dct(y)).sum(), (x * y).sum(), atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 7, 28, 256])
def test_the_matrix_is_orthonormal(size: int) -> None:
    matrix = dct_matrix(size, torch.empty(0, dtype=torch.float64))
    assert (matrix @ matrix.T - torch.eye(size)).abs().max() < 1e-13


def test_half_precision_is_worked_in_float32() -> None:
    x = picture(1, 1, 32, 32, dtype=torch.bfloat16)
    assert torch.equal(dct(x), dct(x.float()).to(torch.bfloat16))


def test_a_table_made_in_inference_mode_still_carries_gradients() -> None:
    with torch.inference_mode():
        dct(torch.zeros(1, 1, 23, 29))
    x = torch.zeros(1, 1, 23, 29, requires_grad=True)
    dct(x).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_frequencies_are_the_published_ones() -> None:
    lam = frequencies(8, 5)
    assert lam.shape == (8, 5) and lam.dtype == torch.float64
    for i, j in ((0, 0), (1, 0), (0, 1), (7, 4)):
        assert lam[i, j].item() == pytest.approx(math.pi**2 * (i**2 / 64 + j**2 / 25), rel=1e-14)


@LAWS
@given(
    first=st.floats(0, 5),
    second=st.floats(0, 5),
    height=st.integers(1, 13),
    width=st.integers(1, 9),
)
def test_blurs_compose_exactly(first: float, second: float, height: int, width: int) -> None:
    x = picture(1, 2, height, width)
    twice = heat(heat(x, torch.tensor(first**2)), torch.tensor(second**2))
    once = heat(x, torch.tensor(first**2 + second**2))
    assert (twice - once).abs().max() < 1e-6
    v1, v2 = (torch.tensor(s**2, dtype=torch.float64) for s in (first, second))
    assert (heat(heat(x, v1), v2) - heat(x, v1 + v2)).abs().max() < 1e-13


@pytest.mark.parametrize("sigma", [1.5, 3.0])
def test_heat_is_the_gaussian_filter_with_reflecting_edges(sigma: float) -> None:
    x = picture(1, 1, 24, 17)
    theirs = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), sigma, mode="reflect", truncate=8)
    ours = heat(x, torch.tensor(sigma**2, dtype=torch.float64))
    # The sampled kernel of scipy aliases by about exp(-pi^2 sigma^2 / 2).
    np.testing.assert_allclose(ours[0, 0].numpy(), theirs, atol=3 * math.exp(-4.9 * sigma**2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 3, 17, 17), (5, 1, 13, 11), (7, 3, 8, 8), (4, 1, 33)])
def test_place_in_the_batch_changes_no_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = picture(*shape, dtype=dtype)
    variance = torch.linspace(0.1, 3, shape[0], dtype=torch.float64)
    order = torch.randperm(shape[0], generator=torch.Generator().manual_seed(1))
    assert torch.equal(heat(x, variance)[order], heat(x[order], variance[order]))


def test_multiply_acts_on_the_named_axis() -> None:
    x, matrix = picture(2, 3, 5, 4), picture(5, 5)
    assert torch.allclose(multiply(x, matrix, 2), torch.einsum("ij,bcjw->bciw", matrix, x))


def test_wrong_shapes_and_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 4\)"):
        dct(torch.zeros(4, 4))
    with pytest.raises(ShapeError):
        dct(torch.zeros(1, 1, 0, 4))
    with pytest.raises(UsageError):
        frequencies(0, 4)
    with pytest.raises(UsageError):
        frequencies()
