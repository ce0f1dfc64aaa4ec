"""SIGINT and SIGTERM while training: finish the step, save, leave."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fromnoise.core.errors import FromNoiseError

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Stopped(FromNoiseError):
    """Training was asked to stop; it finished its step and saved. The exit code tells by what."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Interrupts:
    """Whether a stop was asked for, and by which signal."""

    def __init__(self) -> None:
        self.asked: int | None = None

    def ask(self, number: int = signal.SIGTERM) -> None:
        """Ask for a stop after the step that is under way."""
        self.asked = number

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within, the first signal asks for a stop; a second Ctrl-C interrupts at once.

        Only the main thread receives signals; in another one only `ask` stops.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in _CAUGHT}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            # Saving is atomic: what was saved before stays whole.
            signal.default_int_handler(number, frame)
        self.asked = number
