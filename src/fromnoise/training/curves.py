"""Curves over training steps as one SVG, drawn with nothing but text."""

import itertools
import math
from collections.abc import Sequence

Curve = Sequence[tuple[int, float]]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 900, 300, 70, 30, 10
_POINTS = 500


def chart(curves: Sequence[Curve], colours: Sequence[str], smooth: bool = False) -> str:
    """The curves in one frame, the value axis logarithmic where the values span more than 10.

    Each is marked `data-of` its place, so that a page can hide it. smooth: a running mean is
    drawn thick over the values as they are.
    """
    shown = [thinned(curve) for curve in curves]
    values = [value for curve in shown for _, value in curve]
    steps = [step for curve in shown for step, _ in curve]
    if not values:
        return ""
    low, high = min(values), max(values)
    log = low > 0 and high > 10 * low
    frame = _Frame(min(steps), max(steps), low, high, log)
    parts = [frame.axes()]
    for place, (curve, colour) in enumerate(zip(shown, colours, strict=True)):
        if smooth:
            parts.append(frame.line(curve, colour, place, 0.7, 0.3))
            curve = smoothed(curve)
        parts.append(frame.line(curve, colour, place, 2.0, 1.0))
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def thinned(curve: Curve, most: int = _POINTS) -> list[tuple[int, float]]:
    """At most so many points: means over neighbours, each at its last step."""
    if len(curve) <= most:
        return list(curve)
    edges = [len(curve) * i // most for i in range(most + 1)]
    parts = [curve[a:b] for a, b in itertools.pairwise(edges)]
    return [(part[-1][0], sum(v for _, v in part) / len(part)) for part in parts]


def smoothed(curve: Curve, decay: float = 0.9) -> list[tuple[int, float]]:
    """A running mean that forgets by `decay`, without a bias at its beginning."""
    total, weight, result = 0.0, 0.0, []
    for step, value in curve:
        total = decay * total + (1.0 - decay) * value
        weight = decay * weight + (1.0 - decay)
        result.append((step, total / weight))
    return result


class _Frame:
    """Where steps and values lie in the picture."""

    def __init__(self, first: int, last: int, low: float, high: float, log: bool) -> None:
        self.first, self.last = first, max(last, first + 1)
        self.log = log
        bottom, top = self._height(low), self._height(high)
        margin = 0.05 * (top - bottom) or abs(top) * 0.05 or 1.0
        self.bottom, self.top = bottom - margin, top + margin

    def _height(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def _x(self, step: float) -> float:
        share = (step - self.first) / (self.last - self.first)
        return _LEFT + share * (_WIDTH - _LEFT - 10)

    def _y(self, height: float) -> float:
        share = (height - self.bottom) / (self.top - self.bottom)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    def line(self, curve: Curve, colour: str, place: int, width: float, opacity: float) -> str:
        points = " ".join(f"{self._x(s):.1f},{self._y(self._height(v)):.1f}" for s, v in curve)
        return (
            f'<polyline data-of="{place}" points="{points}" fill="none" stroke="{colour}" '
            f'stroke-width="{width}" opacity="{opacity}"/>'
        )

    def axes(self) -> str:
        parts = []
        for i in range(5):
            height = self.bottom + (self.top - self.bottom) * (i + 0.5) / 5
            y = self._y(height)
            value = 10**height if self.log else height
            ends = f'x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"'
            parts.append(
                f'<line {ends} stroke="#e4e4e4"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
            )
            step = self.first + (self.last - self.first) * i / 4
            parts.append(
                f'<text x="{self._x(step):.1f}" y="{_HEIGHT - 8}" '
                f'text-anchor="{("start", "middle", "middle", "middle", "end")[i]}">'
                f"{round(step)}</text>"
            )
        return "".join(parts)
