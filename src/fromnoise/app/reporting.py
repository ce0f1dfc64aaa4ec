"""How long work shows itself, whoever is watching: a terminal, a server, or nobody."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager


class Progress(ABC):
    """One piece of long work under way."""

    @abstractmethod
    def advance(self, done: int, note: str = "") -> None:
        """`done` units of the total are done; `note` says how it goes (a loss, say)."""


class Reporter(ABC):
    """Where messages and progress go."""

    @abstractmethod
    def say(self, message: str) -> None:
        """A line for the person who asked."""

    @abstractmethod
    def warn(self, message: str) -> None:
        """A line about something unexpected that does not stop the work."""

    @abstractmethod
    @contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Follow `total` units of work, `done` of them done already."""


class Silent(Reporter):
    """Nobody is watching. What was said is kept in `lines`."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")

    @contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[Progress]:
        yield _Unseen()


class _Unseen(Progress):
    def advance(self, done: int, note: str = "") -> None:
        del done, note
