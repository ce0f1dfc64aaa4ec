"""Messages and progress bars on a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from fromnoise.app.reporting import Progress, Reporter


class _Rate(TextColumn):
    """Units per second over the recent past."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: object) -> Text:
        speed = getattr(task, "finished_speed", None) or getattr(task, "speed", None)
        return Text("" if not speed else f"{speed:.1f}/s", style="progress.data.speed")


class _Bar(Progress):
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, done: int, note: str = "") -> None:
        self._bars.update(self._task, completed=done, note=note)


class Terminal(Reporter):
    """Messages to standard output, bars and warnings to standard error."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, message: str) -> None:
        self._out.print(message, markup=False)

    def warn(self, message: str) -> None:
        self._err.print(f"fromnoise: warning: {message}", markup=False)

    def note(self, message: str) -> None:
        """A line about how work goes, apart from its results."""
        self._err.print(message, markup=False)

    @contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[Progress]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}"),
        )
        live = sys.stderr.isatty()
        with Bars(*columns, console=self._err, refresh_per_second=4, disable=not live) as bars:
            task = bars.add_task(what, total=total, completed=done, note="")
            bar = _Bar(bars, task)
            yield bar if live else _Lines(self, what, total)


class _Lines(Progress):
    """Where there is no terminal to redraw: a line at every tenth of the way."""

    def __init__(self, terminal: Terminal, what: str, total: int) -> None:
        self._terminal, self._what, self._total = terminal, what, total
        self._said = 0

    def advance(self, done: int, note: str = "") -> None:
        tenth = done * 10 // max(self._total, 1)
        if tenth > self._said:
            self._said = tenth
            self._terminal.note(f"{self._what}: {done} of {self._total} {note}".rstrip())
