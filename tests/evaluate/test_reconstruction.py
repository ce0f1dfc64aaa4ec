"""What comes back: PSNR in closed form, structure as scikit-image measures it."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from fromnoise.core.errors import ShapeError
from fromnoise.evaluate.reconstruction import psnr, ssim


def pictures(size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, size, size, generator=generator) * 2 - 1
    noise = torch.randn(x.shape, generator=generator)
    # Equal at the edges, where windows that reach out are filled in one way or another.
    edge = 12 if size > 24 else 0
    for rows in (slice(None, edge), slice(size - edge, None)):
        noise[..., rows, :] = 0
        noise[..., rows] = 0
    return x, (x + torch.tensor([0.05, 0.2, 0.6])[:, None, None, None] * noise).clamp(-1, 1)


def test_psnr_is_the_range_over_the_error() -> None:
    x = torch.zeros(2, 3, 4, 4)
    made = torch.stack([x[0] + 0.1, x[1] + 0.5])
    wanted = [20 * math.log10(2 / 0.1), 20 * math.log10(2 / 0.5)]
    assert psnr(x, made).tolist() == pytest.approx(wanted, rel=1e-6)
    assert psnr(x, x).tolist() == [math.inf] * 2


def test_structure_is_that_of_scikit_image() -> None:
    x, made = pictures()
    wanted = [
        structural_similarity(
            a.numpy().astype(np.float64), b.numpy().astype(np.float64), channel_axis=0,
            data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            full=True,
        )[1].mean()
        for a, b in zip(x, made, strict=True)
    ]  # fmt: skip
    assert ssim(x, made).tolist() == pytest.approx(wanted, abs=1e-5)
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 3)
    # Small pictures have a smaller window, and still an answer.
    many, made = x.repeat(7, 1, 1, 1), made.repeat(7, 1, 1, 1)
    assert ssim(many, made).tolist() == pytest.approx(wanted * 7, abs=1e-5)  # in parts, as one
    small = ssim(*pictures(8))
    assert torch.isfinite(small).all() and small[0] > small[1] > small[2]


def test_other_shapes_are_refused() -> None:
    x, made = pictures()
    with pytest.raises(ShapeError, match="one by one"):
        psnr(x, made[:2])
