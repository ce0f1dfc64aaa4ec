"""Emoji: coloured, named, and dyed so that words of colour mean colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fromnoise import data
from fromnoise.core.errors import FileError, UsageError
from fromnoise.data import fonts
from fromnoise.data.emoji import HUES, _views

DEJAVU = next(path for path in fonts.matplotlib_fonts() if path.stem == "DejaVuSans")


def disc(*colours: str) -> Image.Image:
    """A disc on nothing, its sectors in these colours."""
    image = Image.new("RGBA", (64, 64))
    draw = ImageDraw.Draw(image)
    turn = 360 / len(colours)
    for i, colour in enumerate(colours):
        draw.pieslice((4, 4, 60, 60), i * turn, (i + 1) * turn, colour)
    return image


def hue(image: Image.Image) -> float:
    """The hue of the middle of the right half, in degrees."""
    pixel = image.convert("RGB").convert("HSV").getpixel((48, 32))
    assert isinstance(pixel, tuple)
    return pixel[0] * 360 / 256


def test_a_sign_of_one_hue_comes_in_every_other() -> None:
    views = list(_views(disc("hsv(358, 80%, 85%)"), "red apple face"))
    assert views[0].captions == ("red apple face", "red apple face", "red apple", "red apple face")
    assert [view.dye for view in views] == [None, *(name for name in HUES if name != "red")]
    for view in views[1:]:
        assert view.captions == (f"{view.dye} apple face",)
        assert (
            abs((hue(view.image) - HUES[view.dye or ""] + 180) % 360 - 180) < 6
        )  # eight bits of hue
        # Neither outline nor brightness changes.
        assert view.image.getchannel("A").tobytes() == views[0].image.getchannel("A").tobytes()
        old, new = (np.asarray(v.image.convert("RGB").convert("HSV")) for v in (views[0], view))
        assert np.abs(old[..., 1:].astype(int) - new[..., 1:]).max() <= 3


def test_a_sign_of_two_hues_and_a_grey_one_are_not_dyed() -> None:
    (two,) = _views(disc("red", "blue"), "two things")
    assert two.captions == ("two things",) * 4 and two.dye is None
    (grey,) = _views(disc("#888888"), "black telephone")
    assert grey.captions[0] == "black telephone"


def test_a_word_for_outlines_is_left_out_of_what_has_colour() -> None:
    views = list(_views(disc("hsv(48, 90%, 95%)"), "black sun with rays"))
    assert views[0].captions == (
        "sun with rays",
        "sun with rays",
        "sun rays",
        "yellow sun with rays",
    )
    assert views[1].captions == ("red sun with rays",)


def test_a_name_that_is_a_colour_alone_is_not_dyed() -> None:
    assert len(list(_views(disc("red"), "red"))) == 1


def _emoji_font() -> Path | None:
    try:
        return fonts.colour_font()
    except UsageError:
        return None


needs_font = pytest.mark.skipif(_emoji_font() is None, reason="no colour-emoji font is installed")


@pytest.mark.slow
@needs_font
def test_emoji_are_coloured_named_and_known() -> None:
    emoji = data.load({"kind": "emoji"})
    assert len(emoji) > 1000 and emoji.shape == (3, 32, 32)
    told = emoji.captions(np.arange(len(emoji)))
    assert len(set(told)) == len(told)
    x = emoji.batch(range(len(emoji))).x
    assert float((x < 0.9).flatten(1).any(1).float().mean()) > 0.99
    # The sky-blue, green and red signs are mostly of that colour where they are inked.
    for name, channel in (
        ("large green square", 1),
        ("large red circle", 0),
        ("large blue square", 2),
    ):
        picture = x[told.index(name)]
        ink = picture[:, (picture < 0.5).any(0)].mean(1)
        assert int(ink.argmax()) == channel, name
    for absent in ("digit one", "number sign", "regional indicator symbol letter a"):
        assert absent not in told
    assert not any("emoji modifier" in name for name in told)
    assert emoji.config == {"kind": "emoji", "size": 32, "font": None, "dyed": False}


@needs_font
@pytest.mark.slow
def test_dyed_emoji_keep_the_signs_and_add_pairs_of_words() -> None:
    emoji = data.Emoji(32, dyed=True)
    plain = data.Emoji(32)
    assert emoji.signs == plain.signs and len(emoji) > 4 * len(plain)
    told = emoji.captions(np.arange(len(emoji)))
    assert {"red apple", "blue apple", "panda", "blue cat face"} <= set(told)
    place = told.index("blue apple")
    assert emoji.entries[place].dye == "blue"
    assert emoji.signs[emoji.entries[place].sign] == "\N{RED APPLE}"
    picture = emoji.batch([place]).x[0]
    ink = picture[:, (picture < 0.5).any(0)].mean(1)
    assert int(ink.argmax()) == 2


def test_without_an_emoji_font_the_error_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="apt install fonts-noto-color-emoji"):
        data.Emoji(32)


def test_a_font_without_colour_is_refused() -> None:
    with pytest.raises(FileError, match="holds no coloured signs|cannot be drawn"):
        data.Emoji(32, font=str(DEJAVU))
    with pytest.raises(UsageError, match="8 to 128"):
        data.Emoji(256)
