"""The report page of a run, whatever was measured of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fromnoise.core.environment import environment
from fromnoise.core.files import write_text
from fromnoise.evaluate import Page, Picture, report_html
from fromnoise.recipes import Recipe


def write_report(
    folder: Path, recipe: Recipe, figures: Mapping[str, Any], pictures: Sequence[Picture]
) -> None:
    """Write report.html into a run's folder: figures, pictures, the recipe and the machine."""
    page = Page(
        title=f"fromnoise: {recipe.name}",
        summary=f"{recipe.summary} After: {recipe.paper}.",
        figures=figures,
        pictures=pictures,
        recipe=recipe.model_dump(mode="json"),
        environment=environment(),
    )
    write_text(folder / "report.html", report_html(page))
