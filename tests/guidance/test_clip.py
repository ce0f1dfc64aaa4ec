"""Guidance by a text: exact where the model is linear, gradients everywhere, cut-outs repeat."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fromnoise import processes, schedules
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.denoisers import Denoiser, GaussianDenoiser, NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.guidance import Guide, Part, named
from fromnoise.guidance.clip import clip
from fromnoise.guidance.cutouts import Cutouts
from fromnoise.guidance.matcher import Matcher
from fromnoise.layers.condition import Condition
from fromnoise.nets import Accepts, Network
from fromnoise.nets.image_text import ImageText
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.samplers import get, last, sample

SIDE, WIDTH, SPREAD = 6, 5, 0.5
COSINE = schedules.cosine()
T = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
X = torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).double()


class Linear(Network):
    """A picture's numbers by a matrix: a tower whose gradient is known."""

    draws = False
    side = SIDE

    def __init__(self) -> None:
        super().__init__()
        self.in_channels, self.out_channels = 1, WIDTH
        self.spatial_dims, self.divisor, self.accepts = 2, 1, Accepts()
        self.read = nn.Linear(SIDE * SIDE, WIDTH, bias=False)

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.read(x.flatten(1))


def matcher(noisy: bool = False) -> Matcher:
    torch.manual_seed(0)
    text = {"kind": "text", "length": 16, "width": 8, "depth": 1, "heads": 2, "pooled": True}
    reader = NetworkDenoiser(
        ImageText(Linear(), words=8, noisy=noisy),
        processes.Gaussian(schedules.vp()),
        PARAMETERIZATIONS.build({"kind": "eps"}),
    )
    return Matcher(reader, Conditioning.build({"prompt": text})).double()


def guided(guide: Guide, denoiser: Denoiser | None = None) -> Denoiser:
    return guide(denoiser or GaussianDenoiser(0.0, SPREAD, COSINE), lambda x0: x0)


def fitting(by: Matcher, text: str) -> Callable[[Tensor], Tensor]:
    """e^s·cos of a picture with a text, and by hand its gradient: e^s·Wᵀ(g − cos·f)/‖Wx‖."""
    weight = by.net.tower.read.weight.detach()
    goal, scale = by.texts([text])[0].detach(), by.net.scale.item()

    def gradient(x: Tensor) -> Tensor:
        y = x.flatten(1) @ weight.T
        f = y / y.norm(dim=1, keepdim=True)
        along = goal - (f @ goal)[:, None] * f
        return (scale * along / y.norm(dim=1, keepdim=True) @ weight).reshape(x.shape)

    return gradient


def test_of_the_belief_it_is_the_gradient_by_hand() -> None:
    """x̂0 = k·x for a Gaussian, so ∇_x = k·∇_x̂0."""
    by = matcher()
    denoiser = GaussianDenoiser(0.0, SPREAD, COSINE)
    scales = COSINE(T)
    shape = (-1, 1, 1, 1)
    alpha, sigma = scales.alpha.reshape(shape), scales.sigma.reshape(shape)
    k = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    expected = k * X + 2.5 * sigma**2 / alpha * k * fitting(by, "a star")(k * X)
    found = guided(clip(by, "a star", 2.5), denoiser)(X, T)
    torch.testing.assert_close(found.x0, expected, rtol=1e-10, atol=1e-12)


def test_of_the_noisy_picture_it_is_the_gradient_by_hand_on_any_schedule() -> None:
    """x of another schedule is read scaled to the reader's own α, at the same σ/α."""
    by = matcher(noisy=True)
    vp = by.reader.process.schedule
    own = vp.time(COSINE.log_snr(T)).clamp(0, 1)
    ratio = (vp(own).alpha / COSINE(T).alpha).reshape(-1, 1, 1, 1)
    score = (
        guided(clip(by, "a star", 3.0))(X, T).score - guided(clip(by, "a star", 0.0))(X, T).score
    )
    expected = 3.0 * ratio * fitting(by, "a star")(ratio * X)
    torch.testing.assert_close(score, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("distance", ["cosine", "spherical"])
@pytest.mark.parametrize("cutouts", [None, Cutouts(3, 0.5, seed=1)])
def test_the_push_is_the_slope_by_finite_differences(distance: Any, cutouts: Any) -> None:
    by = matcher()
    walk: Any = guided(clip(by, "a star", 1.0, cutouts=cutouts, distance=distance))
    push = walk(X, T).score - walk.denoiser(X, T).score
    step = torch.randn(X.shape, generator=torch.Generator().manual_seed(5)).double()

    def fit(x: Tensor) -> Tensor:
        return walk._fit(walk.denoiser(x, T).x0, T)

    small = 1e-6
    slope = (fit(X + small * step) - fit(X - small * step)) / (2 * small)
    torch.testing.assert_close((push * step).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-7)


def test_the_distance_on_the_sphere_is_half_the_angle_squared() -> None:
    by = matcher()
    walk: Any = guided(clip(by, "a star", distance="spherical"))
    pictures = by.pictures(X)
    angle = torch.arccos(pictures @ walk.goals[0][0, 0])
    expected = by.net.scale * (1 - angle**2 / 2)
    found = walk._near(pictures, walk.goals[0])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_scale_of_zero_changes_no_bit(noisy: bool) -> None:
    grid = torch.linspace(0.99, 0.0, 5, dtype=torch.float64)
    denoiser = GaussianDenoiser(0.0, SPREAD, COSINE)
    plain = last(sample(denoiser, get("ddim"), grid, X))
    for scale in (0.0, torch.zeros(3)):
        walk = guided(clip(matcher(noisy), "a star", scale), denoiser)
        assert torch.equal(last(sample(walk, get("ddim"), grid, X)), plain)
    # The control: another scale is another walk.
    walk = guided(clip(matcher(noisy), "a star", 1.0), denoiser)
    assert (last(sample(walk, get("ddim"), grid, X)) - plain).abs().max() > 1e-3


def test_each_sample_is_guided_by_itself() -> None:
    scales = torch.tensor([1.0, 0.0, 4.0])
    for by, cut in ((matcher(), Cutouts(4, 0.4)), (matcher(True), None)):
        together = guided(clip(by, "a star", scales, cutouts=cut))(X, T).x0
        for i, scale in enumerate(scales.tolist()):
            one = slice(i, i + 1)
            alone = guided(clip(by, "a star", scale, cutouts=cut))(X[one], T[one]).x0
            torch.testing.assert_close(together[one], alone, rtol=1e-12, atol=1e-12)


def test_several_texts_add_and_weights_below_zero_move_away() -> None:
    by = matcher()

    def push(text: Any, **given: Any) -> Tensor:
        walk: Any = guided(clip(by, text, **given))
        return walk(X, T).x0 - walk.denoiser(X, T).x0

    both = push(["a star", "a circle"], weights=[0.5, -2.0])
    expected = 0.5 * push("a star") - 2.0 * push("a circle")
    torch.testing.assert_close(both, expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    t=st.floats(0, 1),
    least=st.floats(0.05, 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**40),
)
def test_cut_outs_fit_and_repeat(
    t: float, least: float, height: int, width: int, seed: int
) -> None:
    cut = Cutouts(5, least, seed=seed)
    boxes = cut.boxes(t, height, width)
    assert len(boxes) == 5 and boxes == Cutouts(5, least, seed=seed).boxes(t, height, width)
    for top, left, side in boxes:
        assert 0 <= top <= height - side and 0 <= left <= width - side
        assert math.floor(least * min(height, width)) <= side <= min(height, width)


def test_cut_outs_differ_between_times_and_seeds_and_reach_everywhere() -> None:
    cut = Cutouts(8, 0.5)
    assert cut.boxes(0.5, 32, 32) != cut.boxes(0.25, 32, 32)
    assert cut.boxes(0.5, 32, 32) != Cutouts(8, 0.5, seed=1).boxes(0.5, 32, 32)
    seen = torch.zeros(32, 32)
    for i in range(40):
        for top, left, side in cut.boxes(i / 40, 32, 32):
            seen[top : top + side, left : left + side] = 1
    assert bool(seen.all())


def test_a_whole_picture_is_shown_as_it_is_and_a_cut_out_as_cut() -> None:
    picture = torch.randn(2, 3, 8, 8)
    assert torch.equal(Cutouts(0)(picture, 0.5, 8)[0], picture)
    assert torch.equal(Cutouts(1, 1.0)(picture, 0.5, 8)[0], picture)
    cut = Cutouts(1, 0.5, power=1e9)
    ((top, left, side),) = cut.boxes(0.5, 8, 8)
    assert side == 4
    inner = picture[:, :, top : top + 4, left : left + 4]
    assert torch.equal(cut(picture, 0.5, 4)[0], inner)
    assert cut(picture, 0.5, 6).shape == (1, 2, 3, 6, 6)


def test_it_is_asked_for_by_a_text() -> None:
    by = matcher(noisy=True)
    opened = type("Opened", (), {"denoiser": by.reader, "conditioning": by.conditioning})()
    asked = named("clip:some/run:a star: 2.5", lambda path: opened)
    found = asked(GaussianDenoiser(0.0, SPREAD, COSINE), lambda x0: x0)(X, T)
    assert torch.equal(found.x0, guided(clip(by, "a star", 2.5))(X, T).x0)
    assert asked.text == "clip:some/run:a star: 2.5"


@pytest.mark.parametrize("noisy", [False, True])
def test_it_goes_to_the_prompt_of_each_sample(noisy: bool) -> None:
    by = matcher(noisy)
    prompts = ["a star", "a circle", "two stars"]
    cut = None if noisy else Cutouts(3, 0.5)
    guide = clip(by, None, 2.0, cutouts=cut)
    together = guided(
        guide.informed(lambda of: [(1.0, of({"prompt": prompts}, 3))], Part(torch.arange(3)))
    )(X, T).x0
    for i, prompt in enumerate(prompts):
        one = slice(i, i + 1)
        alone = guided(clip(by, prompt, 2.0, cutouts=cut))(X[one], T[one]).x0
        torch.testing.assert_close(together[one], alone, rtol=1e-10, atol=1e-12)
    with pytest.raises(UsageError, match="needs one"):
        guided(guide)(X, T)
    with pytest.raises(UsageError, match="needs one"):
        guide.informed(lambda of: [(1.0, of({}, 3))], Part(torch.arange(3)))


def test_scales_are_those_of_the_samples_of_a_batch() -> None:
    by, scale = matcher(noisy=True), torch.tensor([2.0, 0.0, 4.0])
    guide = clip(by, "a star", scale)
    rows = torch.tensor([2, 0, 2])
    found = guided(guide.informed(lambda of: [(1.0, None)], Part(rows)))(X, T).x0
    assert torch.equal(found, guided(clip(by, "a star", scale[rows]))(X, T).x0)
    with pytest.raises(ShapeError, match="3 scales of a text given for 4"):
        guide.check(4)


def test_in_float64_it_reads_in_float64() -> None:
    """A reader in float32 would answer a little differently to another batch."""
    by = matcher(noisy=True).float()
    fine = matcher(noisy=True).float().double()
    torch.testing.assert_close(by.pictures(X, T), fine.pictures(X, T), rtol=1e-12, atol=1e-13)
    assert by.reader.net.log_scale.dtype == torch.float32
    assert by.pictures(X.float(), T).dtype == torch.float32
    assert by.directions(torch.ones(2, 8), torch.float64).dtype == torch.float64


def test_the_size_of_cut_outs_is_the_towers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def cut(self: Cutouts, pictures: Tensor, time: float, size: int) -> Tensor:
        seen.append(size)
        return pictures[None]

    monkeypatch.setattr(Cutouts, "__call__", cut)
    by = matcher()
    guided(clip(by, "a star", 2.0))(X, T)
    assert set(seen) == {SIDE}
    assert Network.side is None


def test_what_cannot_be_is_said() -> None:
    by, noisy = matcher(), matcher(noisy=True)
    for wrong, match in (
        ({"prompt": "  "}, "empty"),
        ({"prompt": []}, "empty"),
        ({"scale": math.inf}, "finite"),
        ({"weights": [1.0, 2.0]}, "weight"),
        ({"limit": 0.0}, "limit"),
        ({"through": "x_t"}, "clean pictures only"),
        ({"cutouts": -1}, "cut-outs"),
        ({"cutouts": Cutouts(4)} | {"by": noisy, "through": "x_t"}, "of the belief"),
    ):
        given: Any = {"by": by, "prompt": "a star", **wrong}
        with pytest.raises(UsageError, match=match):
            clip(**given)
    with pytest.raises(ShapeError, match="2 scales"):
        guided(clip(by, "a star", torch.ones(2)))(X, T)
