"""Plots as PNG bytes: losses by step, quality by the number of steps."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from fromnoise.core.errors import UsageError

Point = tuple[float, float]


def loss_curves(rows: Sequence[Mapping[str, Any]], keys: Sequence[str] = ()) -> bytes:
    """Losses by step, from the rows of a metrics file (each with "step").

    keys: the columns to draw; by default every numeric one with "loss" in its name. Raises
    UsageError when no row has one.
    """
    chosen = list(keys) or sorted({k for row in rows for k in row if "loss" in k})
    curves = {key: _curve(rows, key) for key in chosen}
    curves = {key: points for key, points in curves.items() if points}
    if not curves:
        raise UsageError(f"no losses to draw among {len(rows)} rows of metrics")
    positive = all(y > 0 for points in curves.values() for _, y in points)
    return line_plot(curves, "step", "loss", log_y=positive)


def quality_curve(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]], quality: str
) -> bytes:
    """Quality against the number of steps, one line for each sampler.

    curves: name → points (steps, value, low, high); the interval is drawn as a bar. Both axes are
    logarithmic where all values are above 0.
    """
    if not any(curves.values()):
        raise UsageError("no points to draw")
    positive = all(p[1] > 0 for points in curves.values() for p in points)

    def draw(axes: Any) -> None:
        for name, points in curves.items():
            steps, values, lows, highs = zip(*sorted(points), strict=True)
            below = [max(v - low, 0.0) for v, low in zip(values, lows, strict=True)]
            above = [max(high - v, 0.0) for v, high in zip(values, highs, strict=True)]
            axes.errorbar(
                steps, values, yerr=[below, above], label=name, marker="o", markersize=3,
                linewidth=1.2, capsize=2, elinewidth=0.8,
            )  # fmt: skip
        axes.set_xscale("log")
        if positive:
            axes.set_yscale("log")
        ticks = sorted({p[0] for points in curves.values() for p in points})
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        axes.set_xlabel("steps")
        axes.set_ylabel(quality)
        axes.legend(frameon=False)

    return _figure(draw)


def line_plot(
    curves: Mapping[str, Sequence[Point]], x_label: str, y_label: str, log_y: bool = False
) -> bytes:
    """Named curves of points (x, y) in one plot."""

    def draw(axes: Any) -> None:
        for name, points in curves.items():
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, label=name, linewidth=1.2, marker="o" if len(xs) == 1 else "")
        axes.set_yscale("log" if log_y else "linear")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.legend(frameon=False)

    return _figure(draw)


def _curve(rows: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    points = ((row.get("step"), row.get(key)) for row in rows)
    return [(float(s), float(v)) for s, v in points if s is not None and v is not None]


def _figure(draw: Any) -> bytes:
    """What `draw` puts on one pair of axes; the same bytes for the same plot."""
    # Figure by itself, not pyplot: no window, no global state, safe in threads.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.25, linewidth=0.6)
    draw(axes)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
