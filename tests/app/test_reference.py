"""The reference page is what the request models say, all of it and nothing else."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fromnoise import recipes
from fromnoise.app import reference
from fromnoise.app.verbs import VERBS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "render"), [("cli", reference.reference), ("recipes", reference.recipes_page)]
)
def test_the_page_in_the_guide_is_the_rendered_one(page: str, render: Callable[[], str]) -> None:
    """`python -m fromnoise.app.reference PAGE > docs/PAGE.md` brings it up to date."""
    assert (DOCS / f"{page}.md").read_text("utf-8") == render()


def test_the_page_of_recipes_has_a_row_for_each() -> None:
    page = reference.recipes_page()
    assert page.count("\n| `") == len(recipes.RECIPES)
    for name in recipes.RECIPES:
        recipe = recipes.get(name)
        assert f"| `{name}` | {recipe.summary} | {recipe.paper} | {recipe.figure}" in page


@pytest.mark.parametrize("verb", VERBS)
def test_every_field_has_a_row_with_its_help_and_range(verb: str) -> None:
    rows = [line for line in reference._section(verb).splitlines() if line.startswith("| `")]
    schema = VERBS[verb][0].model_json_schema()
    wanted = dict(schema["properties"])
    for name, field in list(wanted.items()):
        if "$ref" in field:
            inner = schema["$defs"][field["$ref"].rpartition("/")[2]]["properties"]
            wanted |= {f"{name}.{leaf}": value for leaf, value in inner.items()}
    assert len(rows) == len(wanted)
    for row, name in zip(rows, sorted(wanted, key=list(_order(wanted)).index), strict=True):
        field = wanted[name]
        assert f"--{name}".replace("_", "-") in row or name.upper() in row
        told = field["description"].replace("|", "\\|")
        assert row.endswith(f"| {told} |")
        for kind in (field, *field.get("anyOf", ())):
            for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
                assert (
                    bound not in kind
                    or f"{kind[bound]:g}" in row.replace(",", "")
                    or (str(kind[bound]) in row)
                )


def _order(wanted: dict[str, object]) -> Iterator[str]:
    """Names as the page has them: a nested model's own right after it."""
    for name in wanted:
        if "." not in name:
            yield name
            yield from (other for other in wanted if other.startswith(f"{name}."))


def test_kinds_ranges_and_defaults_in_words() -> None:
    sample, train = reference._section("sample"), reference._section("train")
    assert "fromnoise sample [MODEL]" in sample
    assert "| `--count`, `-n` | integer, at least 1, at most 100000 | `16` | Samples" in sample
    assert "| `--exact` | flag |  | Run" in sample
    assert "| `--train.schedule` | `constant` or `cosine` | `cosine` |" in train
    assert "| `--train.learning-rate` | number, above 0 | `0.001` |" in train
    assert "fromnoise runs compare RUNS..." in reference._section("runs compare")
    assert "| `RUNS...` | one or more text | required |" in reference._section("runs compare")
