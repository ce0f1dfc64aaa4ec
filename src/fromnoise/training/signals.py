"""SIGINT and SIGTERM while training: finish the step, save, leave."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fromnoise.core.errors import FromNoiseError

_CAUGHT = (signal.SIGINT, signal.SIGTERM)
_SAME = 1.0


class Stopped(FromNoiseError):
    """Training was asked to stop; it finished its step and saved. The exit code tells by what."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class Interrupts:
    """Whether a stop was asked for, and by which signal."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._since = 0.0

    def ask(self, number: int = signal.SIGTERM) -> None:
        """Ask for a stop after the step that is under way."""
        self.asked = number

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within, the first signal asks for a stop; a second Ctrl-C interrupts at once.

        One that follows within a second is the same: a terminal sends it to all processes, and a
        launcher passes it on. Only the main thread receives signals; another stops by `ask` alone.
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
        again = self.asked is not None and time.monotonic() - self._since > _SAME
        if again and number == signal.SIGINT:
            # Saving is atomic: what was saved before stays whole.
            signal.default_int_handler(number, frame)
        if self.asked is None:
            self._since = time.monotonic()
        self.asked = number
