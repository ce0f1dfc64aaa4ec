"""Codebooks: the nearest vector, the gradients, the running mean, and codes that died."""

import math

import pytest
import torch
from torch import Tensor

from fromnoise.codecs.codebook import CODEBOOKS, Codebook, usage
from fromnoise.core.errors import ShapeError, UsageError


def made(kind: str, size: int = 4, width: int = 2, **more: float) -> Codebook:
    torch.manual_seed(0)
    book: Codebook = CODEBOOKS.build({"kind": kind, "size": size, "width": width, **more})
    with torch.no_grad():
        book.vectors.copy_(torch.randn(size, width))
    return book


def vectors(count: int = 3, width: int = 2) -> Tensor:
    return torch.randn(count, width, 2, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["gradient", "ema"])
def test_the_nearest_vector_is_taken(kind: str) -> None:
    book, z = made(kind, size=7, width=3), vectors(width=3)
    far = (z.movedim(1, -1)[..., None, :] - book.vectors).square().sum(-1)
    codes = book.codes(z)
    assert torch.equal(codes, far.argmin(-1)) and codes.shape == (3, 2, 5)
    found = book(z)
    assert torch.equal(found.codes, codes)
    assert torch.allclose(found.vectors, book.look_up(codes), atol=1e-6)
    assert torch.equal(book.codes(book.look_up(codes)), codes)


def test_the_gradient_goes_straight_through_and_the_cost_is_that_of_vq_vae() -> None:
    book = made("gradient", beta=0.25)
    z = vectors().requires_grad_()
    found = book(z)
    weight = torch.randn_like(found.vectors)
    (through,) = torch.autograd.grad((weight * found.vectors).sum(), z, retain_graph=True)
    assert torch.equal(through, weight)
    gap = z.detach() - book.look_up(found.codes).detach()
    assert torch.allclose(found.cost, 1.25 * gap.square().flatten(1).mean(1))
    to_z, to_book = torch.autograd.grad(found.cost.sum(), [z, book.vectors])
    assert torch.allclose(to_z, 2 * 0.25 * gap / gap[0].numel(), atol=1e-6)
    wanted = torch.zeros_like(book.vectors)
    rows = (-2 * gap / gap[0].numel()).movedim(1, -1).reshape(-1, 2)
    wanted.index_add_(0, found.codes.reshape(-1), rows)
    assert torch.allclose(to_book, wanted, atol=1e-6)


def test_the_running_mean_is_that_of_the_paper() -> None:
    book = made("ema", decay=0.9, restart=0.0)
    start = book.vectors.clone()
    counts, sums = torch.ones(4), None
    book.sums.copy_(start)
    sums = start.clone()
    for step in range(3):
        z = torch.randn(40, 2, generator=torch.Generator().manual_seed(step))
        codes = torch.cdist(z, book.vectors).argmin(1)
        # Counts are in parts of an even share, which cancels in the mean.
        for k in range(4):
            counts[k] = 0.9 * counts[k] + 0.1 * (codes == k).sum() * 4 / 40
            sums[k] = 0.9 * sums[k] + 0.1 * z[codes == k].sum(0) * 4 / 40
        book.seen(z, seed=step)
        smooth = (counts + 1e-5) / (counts.sum() + 4e-5) * counts.sum()
        assert torch.allclose(book.vectors, sums / smooth[:, None], atol=1e-6)
    assert not torch.allclose(book.vectors, start)


def test_the_running_mean_finds_the_centres_of_clusters() -> None:
    centres = torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    book = made("ema", size=8, decay=0.8)
    generator = torch.Generator().manual_seed(3)
    for step in range(60):
        z = centres[torch.arange(200) % 4] + 0.1 * torch.randn(200, 2, generator=generator)
        book.seen(z, seed=step)
    found = torch.cdist(centres, book.vectors).min(1)
    assert found.values.max() < 0.1 and len(found.indices.unique()) == 4


@pytest.mark.parametrize("kind", ["gradient", "ema"])
def test_a_dead_code_begins_anew_where_data_is(kind: str) -> None:
    for restart, lives in ((0.3, True), (0.0, False)):
        book = made(kind, decay=0.5, restart=restart)
        with torch.no_grad():
            book.vectors[3] = 1e3
            if kind == "ema":
                book.sums[3] = 1e3
        z = vectors(8).movedim(1, -1).reshape(-1, 2)
        for step in range(4):
            book.seen(z, seed=step)
        near = torch.cdist(book.vectors[3:], z).min().item()
        assert (near < 1.0) == lives


def test_a_start_is_at_data_and_the_same_for_the_same_seed() -> None:
    first, second, other = (made("ema", size=16) for _ in range(3))
    z = vectors()
    first.start(z, 5)
    second.start(z, 5)
    other.start(z, 6)
    assert torch.equal(first.vectors, second.vectors)
    assert not torch.equal(first.vectors, other.vectors)
    rows = z.movedim(1, -1).reshape(-1, 2)
    apart = (first.vectors[:, None] - rows).abs().sum(-1)
    assert apart.min(1).values.max() == 0.0


def test_usage_and_perplexity() -> None:
    even = usage(torch.arange(8).repeat(5), 16)
    assert even.share == 0.5 and even.perplexity == pytest.approx(8.0)
    one = usage(torch.zeros(9, dtype=torch.int64), 16)
    assert one.share == 1 / 16 and one.perplexity == pytest.approx(1.0)
    uneven = usage(torch.tensor([0, 0, 0, 1]), 2)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert uneven.perplexity == pytest.approx(math.exp(entropy))


def test_what_does_not_fit_is_refused() -> None:
    book = made("gradient")
    with pytest.raises(ShapeError, match=r"\(B, 2, h, w\)"):
        book.codes(torch.zeros(1, 3, 2, 2))
    with pytest.raises(UsageError, match="from 0 to 3"):
        book.look_up(torch.tensor([[[4]]]))
    with pytest.raises(UsageError, match="size of 2 or more"):
        made("ema", decay=1.0)
