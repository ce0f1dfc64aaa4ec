"""Every operator against its own dense matrix: adjoint, pseudo-inverse, singular values."""

import json

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise import operators
from fromnoise.core.config import plain
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.operators import (
    LUMA,
    Box,
    Downsample,
    Fade,
    FadeTo,
    GaussianBlur,
    Grayscale,
    Identity,
    KernelBlur,
    Mask,
    SpectralOperator,
    dct,
    mask,
    random_boxes,
    soft_holes,
    uniform_blur,
)

LAWS = settings(max_examples=20, deadline=None, derandomize=True)
LOPSIDED = [[0.0, 0.3, 0.1], [0.2, 0.1, -0.1]]

CASES: dict[str, tuple[SpectralOperator, tuple[int, ...]]] = {
    "identity": (Identity(), (2, 4, 3)),
    "gaussian blur": (GaussianBlur(0.8, cutoff=1e-9), (2, 5, 6)),
    "gaussian blur of a signal": (GaussianBlur(1.1, cutoff=1e-9), (2, 9)),
    "kernel blur": (KernelBlur(LOPSIDED, cutoff=1e-9), (1, 5, 6)),
    "kernel blur of a signal": (KernelBlur([0.1, 0.7, 0.4], cutoff=1e-9), (2, 7)),
    "uniform blur": (uniform_blur(3, cutoff=1e-9), (1, 6, 6)),
    "downsample": (Downsample(2), (2, 4, 6)),
    "downsample a signal": (Downsample(3), (1, 9)),
    "mask": (mask([[1.0, 0.0, 1.0], [0.0, 0.5, 1.0]]), (2, 2, 3)),
    "box": (Box(), (1, 5, 6)),
    "mean": (Grayscale(), (3, 2, 3)),
    "luma": (Grayscale(LUMA), (3, 2, 3)),
    "one channel": (Grayscale([2.0]), (1, 2, 3)),
    "fade": (Fade(0.3), (1, 3, 3)),
    "faded out": (Fade(0.0), (1, 3, 3)),
}
CASE = pytest.mark.parametrize("name", CASES)


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


def dense(operator: SpectralOperator, shape: tuple[int, ...]) -> torch.Tensor:
    """The matrix of an operator: one column for each pixel."""
    count = int(np.prod(shape))
    unit = torch.eye(count, dtype=torch.float64).reshape(count, *shape)
    return operator(unit).flatten(1).T


@CASE
def test_adjoint(name: str) -> None:
    operator, shape = CASES[name]
    x = picture(2, *shape)
    y = picture(*operator(x).shape, seed=1)
    left, right = (operator(x) * y).flatten(1).sum(1), (x * operator.adjoint(y)).flatten(1).sum(1)
    assert (left - right).abs().max() < 1e-10


@CASE
def test_pinv_is_the_pseudo_inverse_of_the_matrix(name: str) -> None:
    operator, shape = CASES[name]
    x = picture(2, *shape)
    y = picture(*operator(x).shape, seed=1)
    expected = y.flatten(1) @ torch.linalg.pinv(dense(operator, shape), rtol=1e-9).T
    assert (operator.pinv(y).flatten(1) - expected).abs().max() < 1e-8
    assert (operator(operator.pinv(operator(x))) - operator(x)).abs().max() < 1e-10
    again = operator.pinv(operator(operator.pinv(y)))
    assert (again - operator.pinv(y)).abs().max() < 1e-8


@CASE
def test_svd_is_the_svd_of_the_matrix(name: str) -> None:
    operator, shape = CASES[name]
    x, other = picture(2, *shape), picture(2, *shape, seed=2)
    svd = operator.svd(x)
    y = picture(*operator(x).shape, seed=1)
    assert (svd.u(svd.values * svd.vt(x)) - operator(x)).abs().max() < 1e-12
    assert (svd.v(svd.values * svd.ut(y)) - operator.adjoint(y)).abs().max() < 1e-12
    assert (svd.v(svd.vt(x)) - x).abs().max() < 1e-12
    assert (svd.vt(svd.v(x)) - x).abs().max() < 1e-12
    assert torch.isclose((svd.vt(x) * other).sum(), (x * svd.v(other)).sum(), atol=1e-12)
    assert (svd.u(svd.ut(y)) - y).abs().max() < 1e-12
    assert torch.isclose((svd.u(x) * y).sum(), (x * svd.ut(y)).sum(), atol=1e-12)
    mine = svd.values.expand(1, *shape).flatten().sort(descending=True).values
    theirs = torch.linalg.svdvals(dense(operator, shape))
    assert (mine[: len(theirs)] - theirs).abs().max() < 1e-12
    assert mine[len(theirs) :].abs().sum() == 0


@CASE
def test_float32_agrees_and_keeps_its_type(name: str) -> None:
    operator, shape = CASES[name]
    x = picture(2, *shape)
    for low, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        y = operator(x.to(low))
        assert y.dtype == low
        assert (y.double() - operator(x)).abs().max() < tolerance
        assert operator.pinv(y).dtype == operator.adjoint(y).dtype == low


@CASE
def test_built_again_from_its_configuration(name: str) -> None:
    operator, shape = CASES[name]
    config = json.loads(json.dumps(plain(operator)))
    x = picture(1, *shape)
    assert torch.equal(operators.get(config)(x), operator(x))


@LAWS
@given(height=st.integers(2, 9), width=st.integers(2, 9), sigma=st.floats(0, 3))
def test_gaussian_blur_is_diagonal_in_the_cosine_basis(
    height: int, width: int, sigma: float
) -> None:
    operator = GaussianBlur(sigma)
    x = picture(1, 1, height, width)
    gains = operator.svd(x).values
    assert (dct(operator(x)) - gains * dct(x)).abs().max() < 1e-12
    assert gains.max() == gains[0, 0, 0, 0] == 1


def test_the_cut_off_bounds_what_noise_can_become() -> None:
    noise = picture(1, 1, 16, 16)
    for cutoff in (1e-1, 1e-3):
        inverted = GaussianBlur(3.0, cutoff=cutoff).pinv(noise)
        assert inverted.norm() <= noise.norm() / cutoff
    # Without a cut-off the same noise grows without bound.
    assert GaussianBlur(3.0, cutoff=0.0).pinv(noise).norm() > 1e6 * noise.norm()


@LAWS
@given(height=st.integers(3, 9), width=st.integers(3, 9), rows=st.integers(1, 3))
def test_kernel_blur_is_a_periodic_convolution(height: int, width: int, rows: int) -> None:
    kernel = picture(rows, 3).tolist()
    x = picture(1, 1, height, width)
    theirs = scipy.ndimage.convolve(x[0, 0].numpy(), np.array(kernel), mode="wrap")
    np.testing.assert_allclose(KernelBlur(kernel)(x)[0, 0].numpy(), theirs, atol=1e-12)


@LAWS
@given(size=st.integers(1, 4), height=st.integers(4, 9))
def test_uniform_blur_is_a_mean(size: int, height: int) -> None:
    x = picture(1, 1, height, 5)
    theirs = scipy.ndimage.uniform_filter(
        x[0, 0].numpy(), size, mode="wrap", origin=-(size % 2 < 1)
    )
    np.testing.assert_allclose(uniform_blur(size)(x)[0, 0].numpy(), theirs, atol=1e-12)


@LAWS
@given(factor=st.integers(1, 4), height=st.integers(1, 3), width=st.integers(1, 3))
def test_downsample_is_average_pooling_and_nearest_repeat(
    factor: int, height: int, width: int
) -> None:
    x = picture(2, 3, height * factor, width * factor)
    operator = Downsample(factor)
    assert torch.allclose(operator(x), F.avg_pool2d(x, factor), atol=1e-14)
    y = operator(x)
    assert torch.equal(operator.pinv(y), F.interpolate(y, scale_factor=factor, mode="nearest"))
    assert torch.allclose(operator(operator.pinv(y)), y, atol=1e-14)


def test_mean_grayscale_is_undone_by_repeating() -> None:
    y = picture(2, 1, 3, 3)
    assert torch.allclose(Grayscale().pinv(y), y.expand(2, 3, 3, 3), atol=1e-14)


def test_fade_to_ends() -> None:
    x = picture(1, 3, 2, 2)
    assert torch.equal(FadeTo(1.0, (1.0, 0.0, -1.0))(x), x)
    black = FadeTo(0.0, (1.0, 0.0, -1.0))(x)
    assert torch.equal(black[0, :, 0, 0], torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))


@pytest.mark.parametrize("side", [0.2, 0.5, 1.0])
def test_random_boxes_have_the_sides_asked_for(side: float) -> None:
    x = torch.ones(64, 3, 10, 20)
    kept = random_boxes(Noise(5, 64), x, side, side)(x)
    assert ((kept == 0).sum(dim=(1, 2, 3)) == 3 * round(10 * side) * round(20 * side)).all()
    removed = (kept[:, 0] == 0).float()
    if side < 1:
        # Every pixel is removed in some sample: the boxes reach the edges.
        assert removed.amax(dim=0)[5, :].min() == 1
        assert removed.amax(dim=0)[0].max() == 1 and removed.amax(dim=0)[-1].max() == 1


def test_random_masks_do_not_depend_on_the_batch() -> None:
    x = picture(5, 1, 8, 8)
    for make in (random_boxes, soft_holes):
        together = make(Noise(3, 5), x)(x)
        alone = make(Noise(6), x[3:4])(x[3:4])
        assert torch.equal(together[3:4], alone)
        assert not torch.equal(make(Noise(9, 5), x)(x), together)


def test_a_soft_mask_is_inverted_where_it_is_not_cut_off() -> None:
    x = picture(3, 2, 9, 9)
    hole = soft_holes(Noise(0, 3), x, 0.1)
    kept = (hole.keep > 1e-3).expand_as(x)
    back = hole.pinv(hole(x))
    assert (back - x)[kept].abs().max() < 1e-12
    assert (~kept).any() or hole.keep.min() > 1e-3
    assert back[~kept].abs().sum() == 0


BAD_ARGUMENTS = [
    {"kind": "gaussian_blurr"},
    {"kind": "gaussian_blur"},
    {"kind": "gaussian_blur", "width": -1.0},
    {"kind": "gaussian_blur", "width": float("nan")},
    {"kind": "gaussian_blur", "width": float("inf")},
    {"kind": "gaussian_blur", "width": 1.0, "cutoff": 1.0},
    {"kind": "gaussian_blur", "width": 1.0, "sigma": 2.0},
    {"kind": "kernel_blur", "kernel": []},
    {"kind": "kernel_blur", "kernel": [[1, 2], [3]]},
    {"kind": "kernel_blur", "kernel": [[1, float("nan")]]},
    {"kind": "kernel_blur", "kernel": "sharp"},
    {"kind": "uniform_blur", "size": 0},
    {"kind": "uniform_blur", "dimensions": 4},
    {"kind": "downsample", "factor": 0},
    {"kind": "downsample", "factor": "two"},
    {"kind": "mask", "keep": [[0, 2]]},
    {"kind": "mask", "keep": [[0, 1], [1]]},
    {"kind": "mask", "keep": [[float("nan")]]},
    {"kind": "box", "top": 0.8},
    {"kind": "box", "height": 0.0},
    {"kind": "fade", "scale": 1.5},
    {"kind": "fade_to", "colour": [2.0]},
    {"kind": "fade_to", "colour": []},
    {"kind": "grayscale", "weights": [0.0, 0.0]},
    {"kind": "grayscale", "weights": []},
]


@pytest.mark.parametrize("config", BAD_ARGUMENTS, ids=str)
def test_bad_arguments_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        operators.get(config)


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean gaussian_blur"):
        operators.get("gausian_blur")


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (Downsample(2), (1, 1, 5, 4)),
        (KernelBlur(LOPSIDED), (1, 1, 4)),
        (KernelBlur(LOPSIDED), (1, 1, 2, 2)),
        (Grayscale(), (1, 1, 4, 4)),
        (FadeTo(0.5, (0.0, 1.0)), (1, 3, 4, 4)),
        (Box(), (1, 1, 4)),
        (Mask(torch.ones(1, 1, 4, 4)), (1, 1, 4, 5)),
        (Mask(torch.ones(1, 2, 4, 4)), (1, 3, 4, 4)),
        (GaussianBlur(1.0), (4, 4)),
    ],
    ids=str,
)
def test_pictures_that_do_not_fit_are_refused(
    operator: operators.Operator, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeError):
        operator(torch.zeros(shape))


def test_random_masks_refuse_bad_sizes() -> None:
    x = torch.zeros(1, 1, 4, 4)
    for sides in ((0.0, 0.5), (0.6, 0.5), (0.5, 1.5)):
        with pytest.raises(UsageError):
            random_boxes(Noise(0), x, *sides)
    with pytest.raises(UsageError):
        soft_holes(Noise(0), x, 0.0)
