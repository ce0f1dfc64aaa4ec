"""Errors say what was wrong and offer the nearest names."""

import pytest

from fromnoise.core import errors
from fromnoise.core.errors import FromNoiseError, UsageError, unknown

FAMILY = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]


def test_one_family() -> None:
    assert len(FAMILY) >= 6
    assert all(issubclass(kind, FromNoiseError) for kind in FAMILY)


@pytest.mark.parametrize("kind", FAMILY)
def test_exit_codes(kind: type[FromNoiseError]) -> None:
    """2 for a mistake in what was asked, 1 for trouble while doing it."""
    assert kind.exit_code == (2 if issubclass(kind, UsageError) else 1)


@pytest.mark.parametrize(
    ("name", "near"),
    [("dmp", "ddpm"), ("DDIM", "ddim"), ("eular", "euler"), ("zebra", ""), (3, "")],
)
def test_unknown_names_offer_the_nearest(name: object, near: str) -> None:
    error = unknown("sampler", name, ["euler", "ddpm", "ddim"])
    assert isinstance(error, UsageError)
    message = str(error)
    assert message.startswith(f"unknown sampler {str(name)!r}")
    assert message.endswith("Known: ddim, ddpm, euler")
    assert (f"did you mean {near}" in message) == bool(near)
    assert "\n" not in message


def test_a_long_table_is_counted_not_listed() -> None:
    message = str(unknown("part", "x", (f"name{i}" for i in range(61))))
    assert message.endswith("Known: 61 names")
