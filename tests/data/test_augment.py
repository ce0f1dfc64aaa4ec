"""Augmentations: what they do, what they tell of it, and that what is told does not leak."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise import data
from fromnoise.core.errors import ShapeError, UsageError

KINDS = {
    "flip": data.Flip(),
    "flip up and down": data.Flip(axis="vertical"),
    "shift": data.Shift(2),
    "crop": data.Crop(0.5),
    "geometric": data.Geometric(0.5),
    "both": data.Both(data.Flip(), data.Geometric(0.3)),
}


def smooth(size: int = 16, width: int | None = None) -> Tensor:
    """A picture without sharp edges or symmetry, in [−0.8, 0.8]."""
    y = torch.linspace(-1, 1, size)[:, None]
    x = torch.linspace(-1, 1, width or size)
    red = 0.8 * torch.sin(2 * x + 1.3 * y + 0.4)
    return torch.stack([red, 0.5 * y + 0.3 * x, 0.8 * torch.exp(-3 * (x - 0.3) ** 2 - 2 * y**2)])


@pytest.mark.parametrize("name", KINDS)
def test_the_same_numbers_give_the_same_change_and_the_picture_is_left_alone(name: str) -> None:
    augment, x = KINDS[name], smooth()
    before = x.clone()
    rebuilt = data.AUGMENTATIONS.build(augment.config)
    some = 0
    for index in range(30):
        changed, told = augment(x, data.generator(3, 0, index))
        again = rebuilt(x, data.generator(3, 0, index))
        assert torch.equal(changed, again.x) and torch.equal(told, again.told)
        assert changed.shape == x.shape and changed.abs().max() <= 1.0
        assert told.shape == (augment.width,) and told.dtype == torch.float32
        # Zeros are told of an unchanged picture, and of no other.
        unchanged = torch.equal(changed, x)
        assert unchanged == (not told.any())
        some += not unchanged
    assert some > 5
    assert torch.equal(x, before)


def test_nothing_is_done_with_probability_0() -> None:
    x = smooth()
    for augment in (data.Flip(0.0), data.Geometric(0.0), data.Shift(0), data.Crop(1.0)):
        changed, told = augment(x, data.generator(0, 0, 0))
        torch.testing.assert_close(changed, x, rtol=0, atol=1e-5)
        assert not told.any()


def _told(changes: dict[int, float]) -> "np.random.Generator":
    """A generator for `Geometric(1.0)` that draws chosen numbers: see `_Scripted`."""
    return _Scripted(changes)  # type: ignore[return-value]


class _Scripted:
    """Numbers for `Geometric`: which of four changes happen, four normal, three uniform."""

    def __init__(self, changes: dict[int, float]) -> None:
        self.happens = np.array([0.0 if k in changes else 1.0 for k in range(4)])
        self.changes = changes
        self.uniform = [0.5 + 0.5 * changes.get(1, 0.0), 0.5, 1.0]

    def random(self, count: int | None = None) -> object:
        return self.happens if count else self.uniform.pop(0)

    def standard_normal(self, count: int) -> "np.ndarray[object, np.dtype[np.float64]]":
        c = self.changes
        return np.array([c.get(0, 0.0), c.get(2, 0.0), c.get(3, 0.0), 0.0])


def geometric(**arguments: float) -> data.Geometric:
    return data.Geometric(probability=0.9, **arguments)


def test_a_quarter_turn_is_exact_and_told_as_cosine_and_sine() -> None:
    x = smooth()
    changed, told = geometric()(x, _told({1: 0.5}))
    assert told.tolist() == pytest.approx([0, -1, 1, 0, 0, 0, 0], abs=1e-6)
    turns = [torch.rot90(x, k, (1, 2)) for k in (1, -1)]
    gaps = [float((changed - turn).abs().max()) for turn in turns]
    assert min(gaps) < 1e-4 < max(gaps)


def test_a_move_by_whole_pixels_is_a_shift_with_a_mirror_at_the_edge() -> None:
    x = smooth(16, 24)
    changed, told = geometric(move=1 / 24)(x, _told({3: 2.0}))
    assert told.tolist() == [0, 0, 0, 0, 0, 2.0, 0]
    torch.testing.assert_close(changed[..., 3:-1], x[..., 1:-3], rtol=0, atol=1e-4)
    torch.testing.assert_close(changed[..., :2], x[..., :2].flip(-1), rtol=0, atol=1e-4)


def test_a_scale_by_two_shows_the_middle_and_a_stretch_only_along_one_axis() -> None:
    x = smooth(32)
    changed, told = geometric(scale=1.0)(x, _told({0: 1.0}))
    assert told.tolist() == [1.0, 0, 0, 0, 0, 0, 0]
    inner = torch.nn.functional.interpolate(x[None], scale_factor=2, mode="bicubic")[
        0, :, 16:48, 16:48
    ]
    torch.testing.assert_close(changed, inner, rtol=0, atol=5e-3)

    changed, told = geometric(scale=1.0)(x, _told({2: 1.0}))
    assert told.tolist() == [0, 0, 0, 1.0, 0, 0, 0]
    row = torch.nn.functional.interpolate(x[None], size=(32, 64), mode="bicubic")[0, :, :, 16:48]
    torch.testing.assert_close(changed[:, 8:24], torch.nn.functional.interpolate(
        row[None], size=(16, 32), mode="bilinear")[0], rtol=0, atol=0.03)  # fmt: skip


def test_geometric_changes_happen_with_their_probability_and_spread() -> None:
    augment = data.Geometric(0.3, scale=0.2)
    x = torch.zeros(1, 2, 2)
    count = 1200
    told = torch.stack([augment(x, data.generator(9, 0, i)).told for i in range(count)])
    for columns in ([0], [1, 2], [3, 4], [5, 6]):
        share = (told[:, columns] != 0).any(1).float().mean()
        assert abs(share - 0.3) < 5 * math.sqrt(0.21 / count)
    assert told[told[:, 0] != 0, 0].std() == pytest.approx(1.0, abs=0.1)
    cosine, sine = told[:, 1] + 1, told[:, 2]
    torch.testing.assert_close(cosine**2 + sine**2, torch.ones(count))


def test_a_crop_is_a_window_of_the_picture() -> None:
    """A ramp stays a ramp: its slope says how large the window is, its middle where it is."""
    ramp = torch.linspace(-0.9, 0.9, 33).expand(1, 33, 33)
    for index in range(20):
        changed, told = data.Crop(0.5)(ramp, data.generator(0, 0, index))
        side = 1 - 0.5 * told[0]
        slope = (changed[0, 16, 20] - changed[0, 16, 12]) / (ramp[0, 16, 20] - ramp[0, 16, 12])
        assert slope.item() == pytest.approx(side.item(), abs=0.01)
        middle = changed[0, 16, 16] / (0.9 * 33 / 32)
        assert middle.item() == pytest.approx(0.5 * told[2].item(), abs=0.01)
        assert told[1:].abs().max() <= told[0] <= 1


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "flip", "probability": 1.5},
        {"kind": "flip", "axis": "diagonal"},
        {"kind": "crop", "least": 0.0},
        {"kind": "geometric", "probability": -0.1},
        {"kind": "geometric", "turn": 2.0},
        {"kind": "rotate"},
    ],
)
def test_impossible_augmentations_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        data.AUGMENTATIONS.build(config)


@pytest.mark.parametrize("augment", [data.Crop(), data.Geometric(0.0)])
def test_points_cannot_be_resampled(augment: data.Augment) -> None:
    with pytest.raises(ShapeError, match="only pictures"):
        augment(torch.zeros(2), data.generator(0, 0, 0))


def test_a_batch_carries_what_was_done() -> None:
    digits = data.load("digits")
    loader = data.Loader(digits, 200, seed=0, augment=data.chain([data.Flip(), data.Shift(1)]))
    batch = loader.at(3)
    assert batch.augment is not None and batch.augment.shape == (200, 3)
    plain = data.Loader(digits, 200, seed=0).at(3)
    assert plain.augment is None and data.chain([]) is None
    only_flipped = (batch.augment[:, 0] == 1) & (batch.augment[:, 1:] == 0).all(1)
    assert only_flipped.any()
    torch.testing.assert_close(batch.x[only_flipped], plain.x[only_flipped].flip(-1))
    assert torch.equal(batch.rows(slice(2, 5)).augment, batch.augment[2:5])
