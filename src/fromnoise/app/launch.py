"""Several processes for one request: started together, watched, stopped together, started again.

Each carries out the same request and knows its place (`core.group`). A process that is killed, or
that stops answering, ends them all; what was saved is whole, so all may begin again from there.
Starting anew is what works: a group that lost a process cannot take in another.
"""

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from fromnoise.app.reporting import Reporter
from fromnoise.core.config import Settings
from fromnoise.core.errors import TrainingError, UsageError
from fromnoise.core.group import LOST, STORE, expected, rank
from fromnoise.training.signals import Stopped

MEMBER = "fromnoise.cli.member"
"""The program that each process is."""

HOW = ("processes", "restarts")
"""Fields of a request that say how it is carried out, and not what."""

_POLL = 0.05
_GRACE = 5.0
_GRACE_LOST = 1.0


class Ended(TrainingError):
    """A process was killed or hung, and all were stopped."""


def wanted(processes: int, restarts: int = 0) -> bool:
    """Whether other processes are to do the work. UsageError where they are there already."""
    if processes == 1 and restarts == 0:
        return False
    if expected() > 1:
        error = UsageError(
            f"--processes {processes} inside of {expected()} processes that a launcher started; "
            "leave out the one or the other"
        )
        error.quiet = rank() > 0
        raise error
    return True


def launch(
    verb: str, request: Settings, processes: int, reporter: Reporter, restarts: int = 0
) -> int:
    """Carry out a request in so many processes; the exit code of the work.

    SIGINT and SIGTERM are passed on. restarts: how often all are started again after one was
    killed or hung. Raises TrainingError, naming the process, when none is left.
    """
    asked: list[int] = []
    for again in range(restarts + 1):
        try:
            return _once(verb, request, processes, asked)
        except Ended as error:
            if asked:
                raise Stopped(f"stopped; {error}", asked[0]) from None
            if again == restarts:
                advice = "what was saved is whole: give the same command to go on"
                raise Ended(f"{error}; {advice}") from None
            reporter.warn(f"{error}; beginning again from there ({again + 1} of {restarts})")
    raise AssertionError


def _once(verb: str, request: Settings, processes: int, asked: list[int]) -> int:
    told = request.model_dump_json(exclude_unset=True, exclude=set(HOW))
    members: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="fromnoise-") as folder:
        try:
            with _passed_on(members, asked):
                for index in range(processes):
                    environment = _environment(index, processes, Path(folder) / "store")
                    members.append(_begun([verb, told], environment))
                return _watch(members)
        finally:
            for member in members:
                member.kill()
                member.wait()


def _begun(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", MEMBER, *arguments],
        env=environment,
        # Our end of it closes when we are gone, which tells a member to stop.
        stdin=subprocess.PIPE,
        # Ctrl-C then reaches us alone, and is passed on once.
        start_new_session=True,
    )


def _watch(members: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all; the exit code of the work. Raises Ended naming who was killed or hangs."""
    codes: dict[int, int] = {}
    until = math.inf
    while len(codes) < len(members) and time.monotonic() < until:
        for index, member in enumerate(members):
            code = member.poll()
            if code is None or index in codes:
                continue
            codes[index] = code
            if code and until == math.inf:
                # One that found another lost has called the roll: who is well has ended by then.
                until = time.monotonic() + (_GRACE_LOST if code == LOST else _GRACE)
        time.sleep(_POLL)
    return _verdict(codes, len(members))


def _verdict(codes: Mapping[int, int], count: int) -> int:
    """What the exit codes of those that ended say about the work, and about those that did not."""
    said = [code for code in codes.values() if code > 0 and code != LOST]
    if said:
        return said[0]
    killed = [
        f"process {index} of {count} was killed by {signal.Signals(-code).name}"
        for index, code in codes.items()
        if code < 0
    ]
    hung = [f"process {i} of {count} did not answer" for i in range(count) if i not in codes]
    if killed or hung:
        raise Ended(f"{' and '.join(killed or hung)}; all were stopped")
    if LOST in codes.values():
        raise Ended(f"{count} processes lost each other; all were stopped")
    return 0


def _environment(rank: int, processes: int, store: Path) -> dict[str, str]:
    """What a process is told of its place; one alone is told nothing, for it has no group."""
    if processes == 1:
        return dict(os.environ)
    told = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        STORE: str(store),
    }
    threads = max(1, (os.cpu_count() or 1) // processes)
    defaults = {"OMP_NUM_THREADS": str(threads)}
    if Path("/sys/class/net/lo").exists():
        # All are on this machine, whatever networks it has.
        defaults["GLOO_SOCKET_IFNAME"] = "lo"
    return {**defaults, **os.environ, **told}


@contextmanager
def _passed_on(members: Sequence[subprocess.Popen[bytes]], asked: list[int]) -> Iterator[None]:
    """Within, SIGINT and SIGTERM are for the members; `asked` keeps which came."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def receive(number: int, frame: FrameType | None) -> None:
        del frame
        asked.append(number)
        for member in members:
            member.send_signal(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
