"""Processes that train together, forked from the test: they share what is imported already."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from fromnoise.core.errors import FromNoiseError
from fromnoise.core.group import STORE
from fromnoise.training import ranks

Work = Callable[[int], None]
"""What a process does, given its rank. What it prints is kept."""


class Group:
    """`count` processes at work, and what became of them."""

    def __init__(self, folder: Path, work: Work, count: int = 2, supervised: bool = False) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.began = time.monotonic()
        self.processes = [self._begin(rank, count, work, supervised) for rank in range(count)]
        self.codes: dict[int, int] = {}
        self.seconds: dict[int, float] = {}

    def said(self, rank: int) -> str:
        """All that a process has printed so far."""
        path = self.folder / f"out-{rank}"
        return path.read_text() if path.exists() else ""

    def lines(self, rank: int) -> list[str]:
        return self.said(rank).splitlines()

    def send(self, rank: int, number: int) -> None:
        os.kill(self.processes[rank], number)

    def until(self, done: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for something that the processes do."""
        limit = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < limit, [self.said(r) for r in range(len(self.processes))]
            time.sleep(0.005)

    def end(self, seconds: float = 60.0, ranks: tuple[int, ...] | None = None) -> list[int]:
        """Exit codes in order of rank; any that has not ended by then is killed, and told so."""
        waiting = set(range(len(self.processes)) if ranks is None else ranks) - self.codes.keys()
        limit = time.monotonic() + seconds
        while waiting and time.monotonic() < limit:
            for rank in sorted(waiting):
                finished, status = os.waitpid(self.processes[rank], os.WNOHANG)
                if finished:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)
                    self.seconds[rank] = time.monotonic() - self.began
                    waiting.discard(rank)
            time.sleep(0.005)
        if waiting:
            self.kill()
            raise AssertionError(f"processes {sorted(waiting)} have not ended")
        return [self.codes[rank] for rank in sorted(self.codes)]

    def kill(self) -> None:
        for rank, process in enumerate(self.processes):
            if rank not in self.codes:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                self.codes[rank] = -signal.SIGKILL

    def _begin(self, rank: int, count: int, work: Work, supervised: bool) -> int:
        child = os.fork()
        if child:
            return child
        code = 70
        try:
            self._place(rank, count, supervised)
            work(rank)
            code = 0
        except FromNoiseError as error:
            print(f"{type(error).__name__}: {error}", "(quiet)" if error.quiet else "", flush=True)
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _place(self, rank: int, count: int, supervised: bool) -> None:
        with (self.folder / f"out-{rank}").open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        # The test runner has put its own in their place.
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
        os.environ |= {"GLOO_SOCKET_IFNAME": "lo", STORE: str(self.folder / "store")}
        if not supervised:
            ranks.supervised = lambda: False  # type: ignore[assignment]
        ranks.join.cache_clear()
