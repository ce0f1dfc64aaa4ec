"""Tables of kinds: what they build remembers how, and a file can name nothing else."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.core.config import Kinds, Settings, first_fault, plain
from fromnoise.core.errors import UsageError

COLOURS = Kinds("colour")
SHAPES = Kinds("shape", uses=(COLOURS,))


@COLOURS.register("grey")
def grey(level: float = 0.5) -> Any:
    return Plain(level)


class Plain:
    def __init__(self, level: float) -> None:
        self.level = level


@SHAPES.register("square")
class Square:
    config: dict[str, Any]

    def __init__(self, side: int = 1, colour: Plain | None = None) -> None:
        if side < 1:
            raise UsageError(f"side {side} must be 1 or more")
        self.side, self.colour = side, colour


@SHAPES.register("pair")
@dataclass(frozen=True)
class Pair:
    first: Square
    sizes: tuple[int, ...] = (1, 2)


class Rounded(Square):
    """Not in the table."""


def test_what_is_built_remembers_how_it_was_called() -> None:
    assert Square(3).config == {"kind": "square", "side": 3, "colour": None}
    assert Square(side=3).config == Square(3).config
    made = Pair(Square(2, grey(0.25)), sizes=(4,))
    assert made.config == {
        "kind": "pair",
        "first": {"kind": "square", "side": 2, "colour": {"kind": "grey", "level": 0.25}},
        "sizes": [4],
    }


@given(side=st.integers(1, 9), level=st.floats(0, 1), sizes=st.lists(st.integers(), max_size=3))
def test_a_configuration_builds_the_same_again(side: int, level: float, sizes: list[int]) -> None:
    made = Pair(Square(side, grey(level)), tuple(sizes))
    again = SHAPES.build(json.loads(json.dumps(plain(made))))
    assert again.config == made.config
    assert again.first.colour.level == level
    assert again.sizes == tuple(sizes)


def test_a_table_is_a_mapping() -> None:
    assert set(SHAPES) == {"square", "pair"}
    assert len(SHAPES) == 2
    assert SHAPES["square"] is Square


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown kind": ({"kind": "sqare"}, "did you mean square"),
    "no kind": ({"side": 2}, "unknown shape 'None'"),
    "a kind that is a list": ({"kind": ["square"]}, "unknown shape"),
    "a kind that is a path": ({"kind": "os.system"}, "unknown shape 'os.system'"),
    "unknown argument": ({"kind": "square", "sides": 2}, "unknown key 'sides'"),
    "missing argument": ({"kind": "pair"}, "'first' is missing"),
    "wrong type": ({"kind": "square", "side": "wide"}, "got 'wide'"),
    "half a number": ({"kind": "square", "side": 1.5}, "got 1.5"),
    "out of range": ({"kind": "square", "side": 0}, "side 0 must be 1 or more"),
    "unknown part": ({"kind": "pair", "first": {"kind": "circle"}}, "unknown part of a shape"),
    "a part that is a list": ({"kind": "pair", "first": {"kind": [1]}}, "unknown part"),
    "a wrong part": ({"kind": "pair", "first": {"kind": "grey"}}, "first"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configurations(case: str) -> None:
    config, message = BAD[case]
    with pytest.raises(UsageError) as caught:
        SHAPES.build(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_of_ones_own_works_but_cannot_be_written() -> None:
    own = Rounded(2)
    made = Pair(own)
    assert made.first is own
    with pytest.raises(UsageError, match="Rounded cannot be written"):
        plain(own)
    with pytest.raises(UsageError, match="Pair cannot be written"):
        plain(made)


def test_plain_values() -> None:
    class Size(Settings):
        width: int = 3

    value = {"a": (1, 2.5, None, True), "b": Square(2), 3: [Size()], "c": "x"}
    wanted = {
        "a": [1, 2.5, None, True],
        "b": {"kind": "square", "side": 2, "colour": None},
        "3": [{"width": 3}],
        "c": "x",
    }
    assert plain(value) == wanted
    with pytest.raises(UsageError, match="Tensor cannot be written"):
        plain(torch.zeros(1))


def test_settings_refuse_what_they_do_not_know_and_stay_as_they_are() -> None:
    class Size(Settings):
        width: int = 3

    with pytest.raises(ValueError, match="heigth") as caught:
        Size(heigth=2)  # type: ignore[call-arg]
    assert first_fault(caught.value) == "unknown key 'heigth'"  # type: ignore[arg-type]
    size = Size(width=4)
    with pytest.raises(ValueError, match="frozen"):
        size.width = 5  # type: ignore[misc]
    assert size.width == 4


def test_a_nan_argument_is_kept_as_it_is() -> None:
    assert math.isnan(grey(math.nan).config["level"])
