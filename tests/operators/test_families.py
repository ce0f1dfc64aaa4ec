"""Degradations in time: the identity at 0, growing, the same for one sample as in a batch."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.core.config import plain
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.operators import (
    FAMILIES,
    Blur,
    Downsampling,
    Fading,
    FadingToMean,
    Family,
    GaussianBlur,
    LearnableBlur,
    Masking,
    get_family,
)
from fromnoise.operators.families import accumulated, widths

LAWS = settings(max_examples=15, deadline=None, derandomize=True)
EVERY: dict[str, Family] = {
    "blur": Blur(),
    "exponential blur": Blur(7, 0.2, 3.0, "exponential"),
    "learnable blur": LearnableBlur(5, 0.5, 1.5),
    "downsample": Downsampling(3),
    "mask in the middle": Masking(),
    "mask anywhere": Masking(20, 0.05, 0.5, spread=1.0, growth="exponential"),
    "fade": Fading(),
    "fade to a colour": Fading(colour=(0.5, -1.0, 0.25)),
    "fade to the mean": FadingToMean(),
}
CASE = pytest.mark.parametrize("name", EVERY)
SHAPES = pytest.mark.parametrize("shape", [(6, 3, 16, 8), (6, 3, 24)], ids=["picture", "signal"])


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


def at(value: float, batch: int) -> torch.Tensor:
    return torch.full((batch,), value, dtype=torch.float64)


def test_every_kind_is_tested() -> None:
    assert {family.config["kind"] for family in EVERY.values()} == set(FAMILIES)


@CASE
@SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_time_zero_is_the_picture_bit_for_bit(
    name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    family, x = EVERY[name], picture(*shape).to(dtype)
    draw = family.draw(Noise(0, 6), x)
    assert torch.equal(family.apply(x, at(0, 6), draw), x)
    moved = family.apply(x, torch.tensor([0, 0.5, 0, 1, 0.3, 1e-3], dtype=torch.float64), draw)
    assert torch.equal(moved[[0, 2]], x[[0, 2]]) and moved.dtype == dtype
    assert not torch.equal(moved[[1, 3]], x[[1, 3]])


@CASE
@SHAPES
def test_degradation_grows_with_time(name: str, shape: tuple[int, ...]) -> None:
    family, x = EVERY[name], picture(*shape)
    draw = family.draw(Noise(0, 6), x)
    lost = torch.stack(
        [
            (family.apply(x, at(k / 24, 6), draw) - x).flatten(1).norm(dim=1).detach()
            for k in range(25)
        ]
    )
    assert (lost.diff(dim=0) >= -1e-12).all()
    assert (lost[-1] > 0.5 * x.flatten(1).norm(dim=1)).all()


@CASE
def test_a_batch_of_times_equals_one_at_a_time(name: str) -> None:
    family, x = EVERY[name], picture(6, 3, 16, 8)
    draw = family.draw(Noise(0, 6), x)
    t = torch.tensor([0.0, 0.03, 0.21, 0.5, 0.999, 1.0], dtype=torch.float64)
    together = family.apply(x, t, draw)
    for i in range(6):
        own = None if draw is None else draw[i : i + 1]
        alone = family.apply(x[i : i + 1], t[i : i + 1], own)
        assert (together[i : i + 1] - alone).abs().max() < 1e-12
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    own = None if draw is None else draw[order]
    assert torch.equal(family.apply(x[order], t[order], own), together[order])


@CASE
def test_linear_where_it_says_so(name: str) -> None:
    family, x, y = EVERY[name], picture(6, 3, 16, 8), picture(6, 3, 16, 8, seed=1)
    draw, t = family.draw(Noise(0, 6), x), torch.linspace(0.1, 1, 6, dtype=torch.float64)
    mixed = family.apply(2 * x - 3 * y, t, draw)
    apart = 2 * family.apply(x, t, draw) - 3 * family.apply(y, t, draw)
    assert ((mixed - apart).abs().max() < 1e-12).item() == family.linear


@CASE
def test_built_again_from_its_configuration(name: str) -> None:
    family, x = EVERY[name], picture(3, 3, 8, 8)
    again = get_family(json.loads(json.dumps(plain(family))))
    draw, t = family.draw(Noise(0, 3), x), torch.tensor([0.1, 0.5, 1.0])
    assert torch.equal(again.apply(x, t, draw), family.apply(x, t, draw))
    assert again.steps == family.steps


@CASE
def test_the_operator_at_a_time_is_the_family(name: str) -> None:
    family, x = EVERY[name], picture(3, 3, 8, 8)
    draw, t = family.draw(Noise(0, 3), x), torch.tensor([0.1, 0.5, 1.0])
    assert torch.equal(family.at(t, draw)(x), family.apply(x, t, draw))


@LAWS
@given(steps=st.integers(1, 9), first=st.floats(0.1, 2), last=st.floats(0.1, 2))
def test_blur_at_a_level_is_its_kernels_one_after_another(
    steps: int, first: float, last: float
) -> None:
    x = picture(1, 1, 9, 7)
    for growth in ("linear", "exponential"):
        family, blurred = Blur(steps, first, last, growth), x
        for k, width in enumerate(widths(steps, first, last, growth).tolist(), start=1):
            blurred = GaussianBlur(width)(blurred)
            assert (family.apply(x, at(k / steps, 1)) - blurred).abs().max() < 1e-12


def test_widths_grow_as_named() -> None:
    even = widths(5, 1.0, 3.0, "linear")
    assert torch.allclose(even, torch.tensor([1, 1.5, 2, 2.5, 3], dtype=torch.float64))
    ratio = widths(5, 1.0, 16.0, "exponential")
    assert torch.allclose(ratio, torch.tensor([1, 2, 4, 8, 16], dtype=torch.float64))
    assert widths(1, 0.7, 3.0, "linear").tolist() == [0.7]


def test_variance_accumulates_level_by_level() -> None:
    steps = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    t = torch.tensor([0, 1 / 3, 0.5, 2 / 3, 1], dtype=torch.float64)
    assert torch.allclose(accumulated(steps, t), torch.tensor([0, 1, 3, 5, 14.0]).double())


@LAWS
@given(level=st.integers(1, 4))
def test_downsampling_at_a_level_is_its_block_means(level: int) -> None:
    x = picture(1, 2, 16, 32)
    y = Downsampling(4).apply(x, at(level / 4, 1))
    side = 2**level
    blocks = torch.nn.functional.avg_pool2d(x, side).repeat_interleave(side, 2)
    assert torch.allclose(y, blocks.repeat_interleave(side, 3), atol=1e-14)


def test_a_mask_at_a_level_is_the_published_product() -> None:
    family, x = Masking(6, 0.1, 0.6), torch.ones(1, 1, 9, 9, dtype=torch.float64)
    place = (torch.arange(9, dtype=torch.float64) - 4) / 9
    r2 = place[:, None] ** 2 + place[None, :] ** 2
    keep = torch.ones_like(r2)
    for k, width in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), start=1):
        keep = keep * (1 - torch.exp(-r2 / (2 * width**2)))
        y = family.apply(x, at(k / 6, 1), torch.full((1, 2), 0.5))
        assert (y[0, 0] - keep).abs().max() < 1e-14


def test_the_default_mask_removes_the_picture() -> None:
    x = torch.ones(1, 1, 32, 32)
    left = Masking().apply(x, at(1, 1), torch.full((1, 2), 0.5)).mean()
    corner = Masking(last=1.0).apply(x, at(1, 1), torch.zeros(1, 2)).mean()
    assert left < 3e-3 and corner < 3e-3


def test_the_same_draw_serves_every_time() -> None:
    family, x = Masking(20, 0.05, 0.5, spread=1.0), torch.ones(8, 1, 32, 32)
    draw = family.draw(Noise(0, 8), x)
    early, late = (family.apply(x, at(t, 8), draw) for t in (0.1, 0.6))
    for early_hole, late_hole in zip(early, late, strict=True):
        assert (late_hole <= early_hole).all()
        assert late_hole.flatten()[early_hole.argmin()] <= late_hole.min() + 1e-3
    other = family.apply(x, at(0.6, 8), family.draw(Noise(100, 8), x))
    assert not (other <= early).all()


def test_a_draw_belongs_to_its_seed_and_stays_in_its_spread() -> None:
    x = picture(6, 1, 8, 8)
    family = Masking(spread=0.5)
    draw = family.draw(Noise(3, 6), x)
    assert torch.equal(draw[4:5], family.draw(Noise(7), x[:1]))
    assert draw.shape == (6, 2) and (draw - 0.5).abs().max() <= 0.25
    assert torch.equal(Masking().draw(Noise(3, 6), x), torch.full((6, 2), 0.5))
    assert Blur().draw(Noise(3, 6), x) is None


def test_fades_end_on_their_colour() -> None:
    x = picture(2, 3, 4, 4)
    colour = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64).reshape(1, 3, 1, 1)
    end = Fading(colour=(0.5, -1.0, 0.25)).apply(x, at(1, 2))
    assert torch.equal(end, colour.expand_as(x))
    mean = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
    assert torch.equal(FadingToMean().apply(x, at(1, 2)), mean)


def test_a_strong_blur_leaves_only_the_mean() -> None:
    x = picture(2, 3, 8, 8)
    y = Blur(40, 0.5, 4.0).apply(x, at(1, 2))
    slowest = math.exp(-((math.pi / 8) ** 2) * widths(40, 0.5, 4.0, "linear").pow(2).sum() / 2)
    off = (y - x.mean(dim=(2, 3), keepdim=True)).flatten(1).norm(dim=1)
    assert (off <= slowest * x.flatten(1).norm(dim=1)).all()


def test_learnable_blur_starts_as_the_fixed_one() -> None:
    x, t = picture(4, 1, 8, 8), torch.linspace(0, 1, 4, dtype=torch.float64)
    for growth in ("linear", "exponential"):
        fixed, learned = (kind(6, 0.05, 9.0, growth) for kind in (Blur, LearnableBlur))
        assert (fixed.apply(x, t) - learned.apply(x, t)).abs().max() < 1e-5


def test_gradients_reach_the_widths_of_the_levels_used() -> None:
    family, x = LearnableBlur(4, 0.5, 1.0), picture(1, 1, 8, 8)
    (parameter,) = family.learned.parameters()
    (family.apply(x, at(0.6, 1)) - x).pow(2).sum().backward()
    assert (parameter.grad[:3] > 0).all() and parameter.grad[3] == 0
    assert not list(Blur().learned.parameters())


def test_widths_can_be_learned_from_pairs() -> None:
    target, family, x = Blur(3, 0.9, 1.6), LearnableBlur(3, 0.4, 0.4), picture(6, 1, 8, 8)
    t = torch.tensor([1 / 3, 2 / 3, 1] * 2, dtype=torch.float64)
    optimizer = torch.optim.Adam(family.learned.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        (family.apply(x, t) - target.apply(x, t)).pow(2).sum().backward()
        optimizer.step()
    learned = family.learned().detach()
    assert (learned - widths(3, 0.9, 1.6, "linear")).abs().max() < 0.02


def test_learned_widths_are_saved_with_the_module() -> None:
    family, again = LearnableBlur(4, 0.5, 1.0), LearnableBlur(4, 0.9, 2.0)
    again.learned.load_state_dict(family.learned.state_dict())
    x = picture(1, 1, 8, 8)
    assert torch.equal(again.apply(x, at(0.7, 1)), family.apply(x, at(0.7, 1)))


BAD_ARGUMENTS = [
    {"kind": "blurr"},
    {"kind": "blur", "steps": 0},
    {"kind": "blur", "first": 0.0},
    {"kind": "blur", "last": float("inf")},
    {"kind": "blur", "growth": "fast"},
    {"kind": "blur", "width": 3},
    {"kind": "learnable_blur", "steps": 0},
    {"kind": "learnable_blur", "first": -1.0},
    {"kind": "downsample", "steps": 0},
    {"kind": "mask", "spread": 1.5},
    {"kind": "mask", "first": float("nan")},
    {"kind": "fade", "colour": [3.0]},
    {"kind": "fade", "steps": -1},
    {"kind": "fade_to_mean", "steps": 0},
]


@pytest.mark.parametrize("config", BAD_ARGUMENTS, ids=str)
def test_bad_arguments_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        get_family(config)


def test_an_unknown_growth_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean exponential"):
        Blur(growth="exponental")


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_times_outside_the_range_are_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        Fading().apply(picture(2, 1, 4, 4), torch.tensor([0.5, bad]))


def test_shapes_that_do_not_fit_are_refused() -> None:
    x = picture(2, 1, 4, 4)
    with pytest.raises(ShapeError):
        Fading().apply(x, at(0.5, 3))
    with pytest.raises(ShapeError):
        Fading().apply(picture(4, 4), at(0.5, 4))
    with pytest.raises(ShapeError, match="divide by 8"):
        Downsampling(3).apply(x, at(0.5, 2))
    with pytest.raises(ShapeError):
        Fading(colour=(0.0, 1.0)).apply(picture(2, 3, 4, 4), at(0.5, 2))
    with pytest.raises(ShapeError):
        Masking().apply(x, at(0.5, 2), torch.zeros(3, 2))
    with pytest.raises(ShapeError, match="centres"):
        Masking().apply(x, at(0.5, 2), torch.zeros(2, 1))
    with pytest.raises(UsageError, match="draw"):
        Masking().apply(x, at(0.5, 2))
