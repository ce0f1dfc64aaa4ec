"""Runs side by side: a table, and one page that overlays curves, settings and samples."""

import base64
import html
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from fromnoise.core.errors import UsageError
from fromnoise.training.curves import chart
from fromnoise.training.metrics import NAME, read_metrics
from fromnoise.training.settings import TrainSettings

COLOURS = ("#1f6fb4", "#d1541f", "#2f8f4e", "#8a4fb0", "#b08a00", "#c03a76", "#3a9aa8", "#666666")
_PICTURES = 8
_QUANTITIES = {
    "loss": "Training loss (smoothed; thin: as measured)",
    "validation": "Loss on held-out data, averaged weights",
    "grad_norm": "Norm of the gradient",
    "learning_rate": "Learning rate",
}


@dataclass(frozen=True)
class RunRow:
    """What a run folder tells: its settings and all it measured so far.

    config: dotted key → value. metrics: the whole lines of its metrics file. pictures: sheets of
    samples by step.
    """

    folder: Path
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    pictures: Mapping[int, Path]

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def recipe(self) -> str:
        """The recipe it follows."""
        return str(self.config.get("name", ""))

    @property
    def step(self) -> int:
        """The last step it measured."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def steps(self) -> int | None:
        """The steps it is to take, where its configuration says so."""
        steps = self.config.get("train.steps")
        return steps if isinstance(steps, int) else None

    def last(self, quantity: str) -> float | None:
        """The last value measured of a quantity."""
        values = self.curve(quantity)
        return values[-1][1] if values else None

    def best(self, quantity: str) -> float | None:
        """The lowest value measured of a quantity."""
        return min((value for _, value in self.curve(quantity)), default=None)

    def curve(self, quantity: str) -> list[tuple[int, float]]:
        """Step and value of every line that has the quantity."""
        found = [(line["step"], line.get(quantity)) for line in self.metrics]
        return [(s, float(v)) for s, v in found if isinstance(v, int | float) and isfinite(v)]

    def line(self) -> str:
        """The run in one line of text."""
        total = self.steps or "?"
        figures = {"loss": self.last("loss"), "held-out": self.last("validation")}
        told = "  ".join(f"{k} {v:.4f}" for k, v in figures.items() if v is not None)
        base = self.config.get("base")
        origin = f"  from {base}" if base else ""
        line = f"{self.name:24} {self.recipe:20} step {self.step} of {total}  {told}"
        return f"{line.rstrip()}{origin}"


def read_runs(folders: Sequence[Path]) -> list[RunRow]:
    """The runs in these folders, also while they train.

    Raises FileError for a folder that holds no run.
    """
    return [_read(Path(folder)) for folder in folders]


def compare(folders: Sequence[Path]) -> str:
    """One HTML page for some runs: figures, settings that differ, curves, samples by step.

    It refers to nothing outside itself. Raises UsageError when no run is named, FileError for a
    folder that holds none.
    """
    if not folders:
        raise UsageError("name at least one run to compare")
    runs = read_runs(folders)
    colours = [colour for colour, _ in zip(itertools.cycle(COLOURS), runs, strict=False)]
    parts = [
        _legend(runs, colours),
        _figures(runs),
        _settings(runs),
        *_charts(runs, colours),
        _pictures(runs),
    ]
    title = html.escape(", ".join(run.name for run in runs))
    return _PAGE.format(title=title, style=_STYLE, script=_SCRIPT, body="\n".join(parts))


def _read(folder: Path) -> RunRow:
    from fromnoise.training.runner import read_config

    pictures = {}
    for path in sorted((folder / "samples").glob("step-*.png")):
        number = path.stem.removeprefix("step-")
        if number.isdigit():
            pictures[int(number)] = path
    config = _flat(read_config(folder))
    return RunRow(folder, config, read_metrics(folder / NAME), pictures)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _legend(runs: Sequence[RunRow], colours: Sequence[str]) -> str:
    boxes = [
        f'<label><input type="checkbox" checked data-run="{i}">'
        f'<i style="background:{colour}"></i>{html.escape(run.name)}</label>'
        for i, (run, colour) in enumerate(zip(runs, colours, strict=True))
    ]
    return f"<nav>{''.join(boxes)}</nav>"


def _figures(runs: Sequence[RunRow]) -> str:
    columns: dict[str, Callable[[RunRow], Any]] = {
        "recipe": lambda run: run.recipe,
        "step": lambda run: f"{run.step} of {run.steps or '?'}",
        "loss": lambda run: run.last("loss"),
        "held-out loss": lambda run: run.last("validation"),
        "lowest held-out loss": lambda run: run.best("validation"),
        "steps a second": lambda run: run.last("rate"),
    }
    rows = [[name, *[_shown(read(run)) for run in runs]] for name, read in columns.items()]
    return "<h2>Figures</h2>" + _table(["", *[run.name for run in runs]], rows)


def _settings(runs: Sequence[RunRow]) -> str:
    keys = sorted({key for run in runs for key in run.config})
    told = TrainSettings.model_fields
    rows = []
    for key in keys:
        values = [run.config.get(key) for run in runs]
        if any(value != values[0] for value in values):
            field = told.get(key.removeprefix("train."))
            hint = f" ({field.description})" if field and field.description else ""
            rows.append([key + hint, *[_shown(value) for value in values]])
    if not rows:
        return "<h2>Settings that differ</h2><p>None.</p>"
    return "<h2>Settings that differ</h2>" + _table(["", *[run.name for run in runs]], rows)


def _charts(runs: Sequence[RunRow], colours: Sequence[str]) -> list[str]:
    parts = []
    for quantity, title in _QUANTITIES.items():
        curves = [run.curve(quantity) for run in runs]
        if any(curves):
            drawn = chart(curves, colours, smooth=quantity == "loss")
            parts.append(f"<h2>{html.escape(title)}</h2>{drawn}")
    return parts


def _pictures(runs: Sequence[RunRow]) -> str:
    steps = sorted({step for run in runs for step in run.pictures})
    if not steps:
        return ""
    # Evenly over the run, first and last always: a page of hundreds of sheets helps nobody.
    count = min(len(steps), _PICTURES)
    places = {round(i * (len(steps) - 1) / max(count - 1, 1)) for i in range(count)}
    rows = []
    for step in (steps[place] for place in sorted(places)):
        cells = "".join(
            f'<td data-of="{i}">{_image(run.pictures.get(step))}</td>' for i, run in enumerate(runs)
        )
        rows.append(f"<tr><th>{step}</th>{cells}</tr>")
    head = "".join(f'<th data-of="{i}">{html.escape(r.name)}</th>' for i, r in enumerate(runs))
    return f"<h2>Samples by step</h2><table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _image(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="samples" src="data:image/png;base64,{data}">'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        marked = [f'<{tag} data-of="{i - 1}">' if i else f"<{tag}>" for i in range(len(values))]
        return "".join(
            f"{mark}{html.escape(value)}</{tag}>"
            for mark, value in zip(marked, values, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', head)}</tr>{body}</table>"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;
border-bottom:1px solid #ddd;vertical-align:top;font-variant-numeric:tabular-nums}
nav{position:sticky;top:0;background:#fff;padding:.4rem 0;border-bottom:1px solid #ddd}
nav label{margin-right:1.2rem}nav i{display:inline-block;width:.8em;height:.8em;margin:0 .35em}
img{max-width:22rem;image-rendering:pixelated}svg{width:100%;height:auto;max-width:60rem}
svg text{font:12px system-ui,sans-serif;fill:#555}
"""
_SCRIPT = """
for(const box of document.querySelectorAll('[data-run]'))box.addEventListener('change',()=>{
for(const e of document.querySelectorAll('[data-of="'+box.dataset.run+'"]'))
e.style.display=box.checked?'':'none'});
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>
{body}
<script>{script}</script></body></html>
"""
