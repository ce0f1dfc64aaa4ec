"""Ready-made functions of the picture: what they measure, and the texts that ask for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.core.errors import FileError, ShapeError, UsageError
from fromnoise.guidance import GUIDES, color, named, similar, symmetry
from fromnoise.guidance.named import register

X = torch.randn(3, 3, 6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def none(source: str) -> None:
    raise AssertionError(f"nothing is to be opened, and {source} was")


def test_a_colour_is_the_mean_of_the_picture() -> None:
    wanted = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    expected = 0.5 * 48 * (X.mean((2, 3)) - wanted).square().sum(1)
    for blue in ("blue", "#0000ff", (-1.0, -1.0, 1.0)):
        torch.testing.assert_close(color(blue)(X), expected)
    solid = wanted[None, :, None, None].expand(1, 3, 6, 8)
    assert color("blue")(solid).item() == 0.0


def test_a_symmetric_picture_loses_nothing() -> None:
    for mirror, axes in (("left-right", (-1,)), ("up-down", (-2,)), ("turn", (-2, -1))):
        measure = symmetry(mirror)  # type: ignore[arg-type]
        assert measure(X + X.flip(axes)).abs().max() < 1e-20
        part = 0.5 * (X + X.flip(axes))
        torch.testing.assert_close(measure(X), 0.5 * (X - part).square().flatten(1).sum(1))


def test_the_gradient_of_a_symmetry_is_half_the_gap() -> None:
    """So a step of 1 along it lands on the symmetric part."""
    leaf = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(symmetry()(leaf).sum(), leaf)
    torch.testing.assert_close(X - gradient, 0.5 * (X + X.flip(-1)))


def test_likeness_is_of_pixels_or_of_fields() -> None:
    target = torch.randn(3, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(similar(target)(X), 0.5 * (X - target).square().flatten(1).sum(1))
    fields = similar(target, cells=2)
    blocks = (X - target).reshape(3, 3, 2, 3, 2, 4).mean((3, 5))
    torch.testing.assert_close(fields(X), 0.5 * 12 * blocks.square().flatten(1).sum(1))
    assert similar(X[0])(X[:1]).item() == 0.0


def test_a_picture_is_read_from_a_file_and_brought_to_size_and_channels(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.fromarray(np.full((20, 30, 3), (255, 0, 0), np.uint8)).save(path)
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 6, 8)
    assert similar(path)(red).item() == pytest.approx(0.0, abs=1e-9)
    grey = torch.full((1, 1, 6, 8), 2 * 0.299 - 1.0)
    assert similar(path)(grey).item() == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(FileError, match="does not exist"):
        similar(tmp_path / "none.png")


def test_what_is_no_colour_symmetry_or_picture_is_refused() -> None:
    for wrong in ("bleu", "#12", (1.0, 2.0)):
        with pytest.raises(UsageError, match="colour"):
            color(wrong)
    with pytest.raises(UsageError, match="left-right"):
        symmetry("left")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="3 channels"):
        color("blue")(X[:, :1])
    with pytest.raises(UsageError, match="cells"):
        similar(X[0], cells=0)


@pytest.mark.parametrize(
    "text", ["color:blue", "colour:#3366cc:20", "symmetry:up-down", " color : blue : 1e-2 "]
)
def test_a_text_makes_a_guide_that_remembers_it(text: str) -> None:
    assert named(text, none).text == text.strip()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colr:blue", "did you mean color"),
        ("color", "color:COLOR"),
        ("color:", "color:COLOR"),
        ("color:bleu", "bleu"),
        ("color:blue:1e999", "finite"),
        ("color:blue:big", "blue:big"),
        ("similar:nowhere.png", "does not exist"),
        ("symmetry:left", "left-right"),
    ],
)
def test_a_text_that_is_no_guide_says_why(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        named(text, none)


def test_values_and_scale_are_told_apart_by_their_number() -> None:
    seen = []

    @register("probe:RUN:TEXT")
    def _(values, scale, load):  # type: ignore[no-untyped-def]
        seen.append((list(values), scale, load(values[0])))
        return lambda denoiser, decode: denoiser

    try:
        for text in ("probe:r:3", "probe:r:3:2.5", "probe:r:a cat: big", "probe:r:at 10:30:1"):
            named(text, str.upper)
    finally:
        del GUIDES["probe"]
    assert seen == [
        (["r", "3"], None, "R"),
        (["r", "3"], 2.5, "R"),
        (["r", "a cat: big"], None, "R"),
        (["r", "at 10:30"], 1.0, "R"),
    ]
