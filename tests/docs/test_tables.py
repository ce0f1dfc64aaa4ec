"""The tables of the guide say what the code's own tables say: every row, and no others."""

from pathlib import Path

import pytest

from fromnoise import grids
from fromnoise.encoders import ENCODERS
from fromnoise.evaluate import KEYS
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.samplers import ALIASES, SAMPLERS
from fromnoise.training.time_sampling import TIME_SAMPLINGS
from fromnoise.training.weightings import WEIGHTINGS

DOCS = Path(__file__).parents[2] / "docs"


def table(page: str, first: str) -> list[list[str]]:
    """The cells of the rows of the table whose heading begins with `first`."""
    lines = (DOCS / f"{page}.md").read_text("utf-8").splitlines()
    (start,) = (i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert len({len(row) for row in rows}) == 1
    return rows


def names(page: str, first: str) -> list[str]:
    return [row[0].split("(")[0].strip("`") for row in table(page, first)]


def test_the_sampler_table() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table("samplers", "name")}
    assert list(rows) == list(SAMPLERS)
    for name, (others, step, order, calls, noise, reference) in rows.items():
        sampler = SAMPLERS[name]
        aliases = {alias for alias, target in ALIASES.items() if target == name}
        assert set(others.replace("`", "").split(", ")) - {""} == aliases, name
        assert order == ("" if sampler.stochastic else f"{sampler.order:g}"), name
        assert calls == str(sampler.evaluations), name
        assert noise == ("yes" if sampler.stochastic else ""), name
        assert step and reference, name


@pytest.mark.parametrize(
    ("page", "first", "known"),
    [
        ("training", "weighting", WEIGHTINGS),
        ("training", "time sampling", TIME_SAMPLINGS),
        ("parameterizations", "name", PARAMETERIZATIONS),
        ("conditioning", "encoder", ENCODERS),
        ("evaluating", "key in `evaluation.json`", KEYS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_lists_what_there_is(page: str, first: str, known: dict[str, object]) -> None:
    assert sorted(names(page, first)) == sorted(known)


def test_every_grid_is_named() -> None:
    text = (DOCS / "schedules.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in grids.GRIDS)
