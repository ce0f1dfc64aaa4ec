"""Letters and signs: what is drawn is the character, whole, and fonts are held out whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFont

from fromnoise import data
from fromnoise.core.errors import FileError, UsageError
from fromnoise.data import fonts

DEJAVU = next(path for path in fonts.matplotlib_fonts() if path.stem == "DejaVuSans")
SOME = [
    str(path)
    for path in fonts.matplotlib_fonts()
    if path.stem in ("DejaVuSans", "DejaVuSerif", "STIXGeneral") or path.stem.startswith("cm")
]


@pytest.fixture(scope="module")
def every() -> data.Glyphs:
    return data.Glyphs(32)


@pytest.fixture(scope="module")
def few() -> data.Glyphs:
    return data.Glyphs(16, SOME, variants=2, characters="ABC")


def test_the_letters_are_those_of_the_fonts_in_order(every: data.Glyphs) -> None:
    assert len(every.fonts) > 15 and len(every) == 62 * len(every.fonts)
    assert every.classes[:3] == ("A", "B", "C")
    place = 62 * every.fonts.index("DejaVu Sans") + every.classes.index("g")
    batch = every.batch([place])
    assert batch.caption == ["latin small letter g in DejaVu Sans"]
    assert batch.label is not None and every.classes[int(batch.label)] == "g"
    assert torch.equal(batch.x, data.load(every.config).batch([place]).x)


def test_no_letter_is_cut_and_each_is_its_own(every: data.Glyphs) -> None:
    x = every.batch(range(len(every))).x
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], dim=-1)
    assert float(border.min()) == 1.0
    ink = (1 - x).flatten(1).sum(1) / 2
    assert float(ink.min()) > 10
    # Within a font all characters differ; some pairs only in size, as c and C.
    one = x[:62].flatten(1)
    distance = torch.cdist(one, one) + 1e9 * torch.eye(62)
    assert float(distance.min()) > 1.0


def test_a_letter_is_what_the_font_draws() -> None:
    """Against Pillow at four times the size, placed by its own box: the same ink."""
    drawn = fonts.letters(DEJAVU, "Ag", 128)
    for character, picture in zip("Ag", drawn, strict=True):
        rows, columns = np.nonzero(picture > 127)
        mask = ImageFont.truetype(str(DEJAVU), 400).getmask(character)
        shape = np.asarray(mask, np.float64).reshape(mask.size[1], mask.size[0]) > 127
        tall, wide = np.nonzero(shape)
        ratio = (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
        assert ratio == pytest.approx((np.ptp(tall) + 1) / (np.ptp(wide) + 1), rel=0.04)
        middle = (columns.min() + columns.max() + 1) / 2
        assert middle == pytest.approx(64, abs=1.5)
    # g hangs below the line on which A stands.
    assert np.nonzero(drawn[1] > 127)[0].max() > np.nonzero(drawn[0] > 127)[0].max() + 8


def test_white_letters_are_the_black_ones_turned_over() -> None:
    options = {"size": 8, "characters": "AB", "variants": 2}
    black, white = (data.Glyphs(**options, ink=ink) for ink in ("black", "white"))
    everything = range(len(black))
    assert torch.allclose(white.batch(everything).x, -black.batch(everything).x, atol=1e-6)


def test_variants_move_the_letter_and_keep_it_whole() -> None:
    options = {"size": 32, "fonts": SOME, "characters": "AgW"}
    letters = data.Glyphs(**options, variants=5)
    base = len(letters) // 5
    plain = data.Glyphs(**options).batch(range(base)).x
    assert torch.equal(letters.batch(range(base)).x, plain)
    moved = letters.batch(range(base, 5 * base)).x
    again = plain.repeat(4, 1, 1, 1)
    differ = (moved != again).flatten(1).any(1)
    assert float(differ.float().mean()) > 0.99
    ink, least = (1 - moved).flatten(1).sum(1), (1 - again).flatten(1).sum(1)
    assert bool((ink < 1.03 * least).all()) and bool((ink > 0.55 * least).all())
    assert not torch.equal(moved, data.Glyphs(**options, variants=5, seed=1).batch(
        range(base, 5 * base)).x)  # fmt: skip
    assert letters.labels is not None and torch.equal(letters.labels[:base], letters.labels[-base:])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_split_holds_out_whole_fonts(share: float, few: data.Glyphs) -> None:
    train, rest = few.split(share, 3)
    told = [
        {c.split(" in ")[1] for c in part.captions(np.arange(len(part)))} for part in (train, rest)
    ]
    assert not told[0] & told[1]
    assert told[0] | told[1] == set(few.fonts)
    assert abs(len(rest) / len(few) - share) < 1.0 / len(few.fonts)
    assert len(train) + len(rest) == len(few)
    # A part still knows its fonts, and one font alone cannot be split by fonts.
    inner = [part.families() for part in train.split(0.3)]
    assert inner[0] is not None and inner[1] is not None
    assert not set(inner[0].tolist()) & set(inner[1].tolist())
    with pytest.raises(UsageError, match="one side empty"):
        data.Glyphs(16, fonts=[str(DEJAVU)], characters="AB").split(0.5)


def test_fonts_by_path_and_what_they_lack(tmp_path: Path) -> None:
    greek = data.Glyphs(16, fonts=[str(DEJAVU)], characters="αβγ")
    assert greek.captions(np.array([1])) == ["greek small letter beta in DejaVu Sans"]
    with pytest.raises(FileError, match="has no cjk unified ideograph-6f22"):
        data.Glyphs(16, fonts=[str(DEJAVU)], characters="漢")
    with pytest.raises(UsageError, match="no font in matplotlib has all"):
        data.Glyphs(16, characters="漢")
    for content in (b"", b"hello", DEJAVU.read_bytes()[:3000]):
        (tmp_path / "x.ttf").write_bytes(content)
        with pytest.raises(FileError, match=r"x\.ttf"):
            data.Glyphs(16, fonts=[str(tmp_path / "x.ttf")])
    with pytest.raises(FileError, match="does not exist"):
        data.Glyphs(16, fonts=["none.ttf"])
    for wrong in ("", "AA", "A\n", "A ", "A\u0301"):
        with pytest.raises(UsageError):
            data.Glyphs(16, characters=wrong)
    for bad in ({"size": 7}, {"variants": 0}, {"seed": -1}):
        with pytest.raises(UsageError, match="size is"):
            data.Glyphs(**bad)
