"""One self-contained page: figures with their intervals, pictures, recipe and environment."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fromnoise.core.errors import UsageError
from fromnoise.evaluate.report import KEYS

PNG = b"\x89PNG\r\n\x1a\n"

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; }
tr { border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.meaning, figcaption, .summary { opacity: .75; font-size: .88rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; min-width: min(100%, 24rem); }
pre { overflow-x: auto; font-size: .82rem; padding: .8rem;
  background: color-mix(in srgb, currentColor 6%, transparent); }
""".strip()


@dataclass(frozen=True)
class Picture:
    """A picture of the report: its heading, PNG bytes, one sentence about it.

    pixels: whether its pixels are shown as squares when enlarged (samples, not plots).
    """

    heading: str
    png: bytes
    caption: str = ""
    pixels: bool = False


@dataclass(frozen=True)
class Page:
    """What a report shows.

    figures: `Evaluation.as_json()`, of which entries with a "value" are listed. pictures: in order.
    recipe, environment: shown as they are, as JSON.
    """

    title: str
    summary: str
    figures: Mapping[str, Any]
    pictures: Sequence[Picture] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def report_html(page: Page) -> str:
    """The page as HTML5 that needs nothing else: styles and pictures are inside, without scripts.

    Every text is escaped. Raises UsageError for a picture that is not PNG bytes.
    """
    title = html.escape(page.title)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body>",
        f'<h1>{title}</h1><p class="summary">{html.escape(page.summary)}</p>',
        _table(page.figures),
        *(_picture(picture) for picture in page.pictures),
        _facts("How the figures were come by", _rest(page.figures)),
        _facts("Recipe", page.recipe),
        _facts("Environment", page.environment),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def figure_text(figure: Mapping[str, Any]) -> tuple[str, str]:
    """A figure and its interval as short texts: ("0.982", "0.968 to 0.991")."""
    low, high = figure.get("low"), figure.get("high")
    interval = "" if low is None or high is None else f"{_number(low)} to {_number(high)}"
    return _number(figure["value"]), interval


def _number(value: float | None) -> str:
    if value is None:
        return "not finite"
    text = f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2e}"
    return text if abs(value) < 1000 else f"{value:.5g}"


def _is_figure(value: Any) -> bool:
    return isinstance(value, Mapping) and "value" in value


def _rest(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in figures.items() if not _is_figure(v)}


def _table(figures: Mapping[str, Any]) -> str:
    listed = {k: v for k, v in figures.items() if _is_figure(v)}
    if not listed:
        return ""
    # In the order of the documentation, then whatever else there is.
    order = [k for k in KEYS if k in listed] + [k for k in listed if k not in KEYS]
    rows = "\n".join(_row(key, listed[key]) for key in order)
    head = "<tr><th>figure</th><th>value</th><th>95 % interval</th><th>real data</th></tr>"
    return f"<h2>Figures</h2>\n<table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _row(key: str, figure: Mapping[str, Any]) -> str:
    value, interval = figure_text(figure)
    yardstick: Any = figure.get("real") or figure.get("held_out")
    real = figure_text(yardstick)[0] if _is_figure(yardstick) else ""
    name = html.escape(key.replace("_", " "))
    meaning = html.escape(KEYS.get(key, ""))
    cells = "".join(f'<td class="number">{html.escape(c)}</td>' for c in (value, interval, real))
    return f'<tr><td>{name}<div class="meaning">{meaning}</div></td>{cells}</tr>'


def _picture(picture: Picture) -> str:
    if not picture.png.startswith(PNG):
        raise UsageError(f"picture {picture.heading!r} is not PNG bytes")
    heading, caption = html.escape(picture.heading), html.escape(picture.caption)
    data = base64.b64encode(picture.png).decode("ascii")
    kind = ' class="pixels"' if picture.pixels else ""
    image = f'<img{kind} alt="{heading}" src="data:image/png;base64,{data}">'
    return f"<h2>{heading}</h2>\n<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _facts(heading: str, facts: Mapping[str, Any]) -> str:
    if not facts:
        return ""
    text = html.escape(json.dumps(facts, indent=2, ensure_ascii=False, default=str))
    return f"<details><summary><b>{html.escape(heading)}</b></summary><pre>{text}</pre></details>"
