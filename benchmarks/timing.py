"""Speeds in one process, in turn: every function sees the same machine in the same minutes."""

import time
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

Row = tuple[str, float, float, float]
"""A name, milliseconds, how much faster than the first, how far its answer is from the first's."""


def in_turn(functions: Mapping[str, Callable[[], Tensor]], repeats: int) -> list[Row]:
    """The least time of each function over so many rounds, after one that only warms up."""
    answers = {name: function() for name, function in functions.items()}
    least = dict.fromkeys(functions, float("inf"))
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            least[name] = min(least[name], time.perf_counter() - start)
    first, base = next(iter(answers.values())), next(iter(least.values()))
    return [
        (name, 1e3 * least[name], base / least[name], float((y - first).norm() / first.norm()))
        for name, y in answers.items()
    ]


def show(title: str, rows: Sequence[Row]) -> None:
    """Print them as a table."""
    print(f"\n{title}\n{'':26}{'ms':>8}{'speed':>8}{'difference':>13}")
    for name, milliseconds, ratio, difference in rows:
        print(f"{name:26}{milliseconds:8.1f}{ratio:8.2f}{difference:13.1e}")
