"""Processes that read ahead: one that dies, hangs or is stopped is an error, never a wait.

torch's own loader raises from a signal handler, wherever the program is when a worker dies, and
waits for ever for a worker that is stopped while it hands a batch over.
"""

import ctypes
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import sharedctypes
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import multiprocessing

from fromnoise.core.errors import FromNoiseError, TrainingError

_AHEAD = 2
"""Items each process reads before they are asked for."""
_NEVER = 2**62
_WATCH = 0.5
_JOIN = 5.0

Read = Callable[[int], Any]
Describe = Callable[[int], str]


def ahead(read: Read, first: int, count: int, timeout: float, describe: Describe) -> Iterator[Any]:
    """`read(first)`, `read(first + 1)`, … without end, each by the next of `count` processes.

    timeout: seconds to wait for an item. describe: what item k is, for errors.
    Raises TrainingError, naming the process and the item, when a process ends or gives nothing in
    time, and what `read` raises. The processes end with the iterator, and when this one dies.
    """
    workers: list[_Worker] = []
    try:
        workers += (_Worker(read, first + place, count) for place in range(count))
        for item in itertools.count(first):
            place = (item - first) % count
            value = workers[place].take(timeout, f"{place + 1} of {count}", describe)
            if isinstance(value, FromNoiseError):
                raise value
            yield value
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """One process, and the pipe its items come through."""

    def __init__(self, read: Read, first: int, stride: int) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._item = sharedctypes.RawValue(ctypes.c_int64, first)
        self._process = multiprocessing.Process(
            target=_serve,
            args=(read, range(first, _NEVER, stride), self._item, theirs, os.getpid()),
            daemon=True,
        )
        self._process.start()
        # While this process held it too, the end of the other would not be seen.
        theirs.close()
        for _ in range(_AHEAD):
            self._pipe.send(True)

    def take(self, timeout: float, name: str, describe: Describe) -> Any:
        """The next item, or the error that came in its place."""
        if not wait([self._pipe, self._process.sentinel], timeout):
            return self._late(timeout, name, describe)
        # What it has begun to hand over may never come to its end.
        late = threading.Event()
        guard = threading.Timer(timeout, self._give_up, (late,))
        guard.daemon = True
        guard.start()
        try:
            value = self._pipe.recv()
            self._pipe.send(True)
        except (EOFError, OSError):
            if late.is_set():
                return self._late(timeout, name, describe)
            return self._died(name, describe)
        finally:
            guard.cancel()
        return value

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join(_JOIN)
        self._pipe.close()

    def _give_up(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()

    def _late(self, timeout: float, name: str, describe: Describe) -> TrainingError:
        return TrainingError(
            f"no data came within {timeout:g} s: worker {name} (process {self._process.pid}) hangs "
            f"at {describe(self._item.value)}, or the disk is too slow; look at these, or allow "
            "more time (--train.timeout)"
        )

    def _died(self, name: str, describe: Describe) -> TrainingError:
        self._process.join(_JOIN)
        code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return TrainingError(
            f"a process that loads data died: worker {name} (process {self._process.pid}, {how}) "
            f"at {describe(self._item.value)}; it may have run out of memory: use fewer "
            "--train.workers"
        )


def _serve(read: Read, items: range, now: Any, pipe: Connection, parent: int) -> None:
    """Read items as they are asked for, telling by `now` which. It runs in the process."""
    # A terminal and a cluster signal all processes; the one that trains decides when to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # What hands batches over would print a trace when the process that trains is killed.
    sys.excepthook = _say_nothing
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    try:
        for item in items:
            pipe.recv()
            now.value = item
            pipe.send(_read(read, item))
    except (EOFError, OSError):
        os._exit(0)


def _say_nothing(*_: Any) -> None:
    """In the place of a trace."""


def _read(read: Read, item: int) -> Any:
    try:
        return read(item)
    except FromNoiseError as error:
        return error
    except Exception as error:
        failed = TrainingError(f"loading data failed: {type(error).__name__}: {error}")
        failed.add_note(traceback.format_exc())
        return failed


def _end_with(parent: int) -> None:
    """End this process, even one that hangs, soon after the one that started it."""
    while os.getppid() == parent:
        time.sleep(_WATCH)
    os._exit(1)
