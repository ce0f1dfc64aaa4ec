"""The guide is true: its python blocks run, its links lead somewhere, its recipes exist."""

import re
from pathlib import Path

import pytest

from fromnoise.recipes import RECIPES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PLAN = ("index", "noise", "ddpm", "schedules", "parameterizations", "samplers", "training")
PLAN += ("evaluating", "cold", "likelihood", "architecture")

page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


def blocks(text: str) -> list[tuple[int, str]]:
    """The python blocks of a page with the number of lines before each."""
    return [(text[: m.start(1)].count("\n"), m.group(1)) for m in BLOCK.finditer(text)]


@page
def test_python_blocks_run_in_order_in_one_namespace(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": path.stem}
    for lines, source in blocks(path.read_text("utf-8")):
        # Padded so that a traceback names the page's own line.
        exec(compile("\n" * lines + source, str(path), "exec"), namespace)


@page
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(path.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@page
def test_commands_name_recipes_that_exist(path: Path) -> None:
    named = re.findall(r"fromnoise train ([a-z][a-z0-9-]*)", path.read_text("utf-8"))
    assert set(named) <= set(RECIPES)


@page
def test_every_block_is_closed(path: Path) -> None:
    fences = [s for s in path.read_text("utf-8").splitlines() if s.startswith("```")]
    assert len(fences) % 2 == 0
    assert all(fence == "```" for fence in fences[1::2])


def test_the_first_pages_stand() -> None:
    assert {f"{name}.md" for name in PLAN} <= {p.name for p in PAGES}
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for path in PAGES[1:]:
        if path.name != "index.md":
            assert f"({path.relative_to(ROOT / 'docs').as_posix()})" in index


def test_a_false_page_is_noticed() -> None:
    """The control: a block that fails fails, in the line of the page."""
    ((lines, source),) = blocks("# Title\n\n```python\nassert 1 == 2\n```\n")
    assert lines == 3
    with pytest.raises(AssertionError):
        exec(compile(source, "page", "exec"), {})
