"""The processes that work together, by gloo: what they add up, gather and agree on.

A process is known by its rank, 0 for the first. Alone there is one, and nothing here costs a thing.
Whatever goes wrong in one is known to all: an error raised within `together` is raised by all, and
one that dies or hangs is named by those that are left.
"""

import atexit
import os
import platform
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fromnoise.core.errors import FromNoiseError, OutOfMemoryError, TrainingError
from fromnoise.core.group import LOST, STORE, expected, rank, supervised
from fromnoise.core.machine import OUT_OF_MEMORY, is_out_of_memory

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.distributed import ProcessGroup

_MEET = 600.0
_ROLL_CALL = 2.0
_LONGEST = 4000


class LostProcess(TrainingError):
    """Another process of the group died or does not answer."""

    exit_code = LOST


@dataclass
class Shared:
    """A number from each process: `mine` is set within `together`, `all` is there after it."""

    mine: float = 0.0
    all: list[float] = field(default_factory=list)


@lru_cache(maxsize=8)
def join(timeout: float = _MEET) -> "Ranks":
    """All processes that were started together; this one alone where no launcher says otherwise.

    timeout: seconds that one waits for another before it gives up.
    Raises LostProcess when they do not find each other.
    """
    if expected() == 1:
        return Ranks(0, 1, None)
    _meet()
    group = torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
    return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), group, timeout)


class Ranks:
    """The processes of a group, seen from one of them.

    index: its rank, of `count`; group: what carries their messages, None for one alone.
    """

    def __init__(
        self, index: int, count: int, group: "ProcessGroup | None", timeout: float = _MEET
    ) -> None:
        self.index, self.count, self.timeout = index, count, timeout
        self._group = group
        here = torch.tensor([os.getpid(), zlib.crc32(platform.node().encode())])
        self._homes = self.gather(here)

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.index == 0

    @property
    def machine(self) -> "Accelerator":
        """The device this process computes on."""
        from accelerate import Accelerator

        # Without this it takes several processes on the processor for one.
        return Accelerator(cpu=self.count > 1 and not torch.accelerator.is_available())

    @contextmanager
    def together(self) -> Iterator[Shared]:
        """Within, each works for itself; the error of one is then raised by all, as its own.

        The first process says whose error it was. Memory that runs out is such an error, and not a
        mistake of the program. Nothing within may wait for the others.
        """
        shared = Shared()
        mine: FromNoiseError | None = None
        try:
            yield shared
        except FromNoiseError as error:
            if self.count == 1:
                raise
            mine = error
        except (RuntimeError, MemoryError) as error:
            if self.count == 1 or not is_out_of_memory(error):
                raise
            mine = OutOfMemoryError(OUT_OF_MEMORY)
        if self.count == 1:
            shared.all = [shared.mine]
            return
        failed = float(mine is not None)
        told = self.gather(torch.tensor([failed, shared.mine], dtype=torch.float64))
        if bool(told[:, 0].any()):
            self._raise(mine)
        shared.all = told[:, 1].tolist()

    def gather(self, values: Tensor) -> Tensor:
        """The values of all processes (N, ...) → (count, N, ...), which must be of one shape."""
        if self.count == 1:
            return values[None]
        parts = [torch.empty_like(values) for _ in range(self.count)]
        with self._answered():
            torch.distributed.all_gather(parts, values, group=self._group)
        return torch.stack(parts)

    def rows(self, values: Tensor) -> Tensor:
        """Rows of all processes one after the other, however many each has."""
        if self.count == 1:
            return values
        lengths = self.gather(torch.tensor([len(values)])).flatten().tolist()
        padded = torch.zeros((max(lengths), *values.shape[1:]), dtype=values.dtype)
        padded[: len(values)] = values.detach().cpu()
        parts = self.gather(padded)
        kept = [part[:length] for part, length in zip(parts, lengths, strict=True)]
        return torch.cat(kept).to(values.device)

    def largest(self, value: int) -> int:
        """The largest of the values of all processes."""
        return value if self.count == 1 else int(self.gather(torch.tensor([value])).max())

    def add(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum over all processes of each tensor, in one message; the same bits everywhere."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        # Gloo carries what is in the processor's memory; the default group, what is on a device.
        group = self._group if flat.device.type == "cpu" else None
        with self._answered():
            torch.distributed.all_reduce(flat, group=group)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def same(self, module: nn.Module) -> None:
        """Give all processes the first one's weights and buffers."""
        if self.count == 1:
            return
        with torch.no_grad(), self._answered():
            for value in (*module.parameters(), *module.buffers()):
                group = self._group if value.device.type == "cpu" else None
                copy = value.detach().clone()
                torch.distributed.broadcast(copy, src=0, group=group)
                value.copy_(copy)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.largest(0)

    def hush(self, error: FromNoiseError) -> FromNoiseError:
        """An error that all processes raise, for the first one alone to say."""
        error.quiet = not self.first
        return error

    def _raise(self, mine: FromNoiseError | None) -> None:
        code = 0 if mine is None else mine.exit_code
        text = torch.tensor(list(str(mine or "").encode()[:_LONGEST]), dtype=torch.uint8)
        codes = self.gather(torch.tensor([code])).flatten().tolist()
        lengths = self.gather(torch.tensor([len(text)])).flatten().tolist()
        texts = torch.split(self.rows(text), lengths)
        whose = next(index for index, found in enumerate(codes) if found)
        if mine is not None and whose == self.index:
            raise self.hush(mine)
        message = bytes(texts[whose].tolist()).decode("utf-8", "replace")
        error = TrainingError(f"{self.name(whose)}: {message}")
        error.exit_code = codes[whose]
        raise self.hush(error) from mine

    def name(self, index: int) -> str:
        """A process as messages call it."""
        return f"process {index} of {self.count}"

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Name those that are lost when a message does not get through."""
        began = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            waited = time.monotonic() - began
            raise self._lost(waited) from error

    def _lost(self, waited: float) -> LostProcess:
        hanging = waited > 0.9 * self.timeout
        names, advice = [], "what was saved is whole; give the same command to go on"
        for index in self._absent():
            dead = self._died(index)
            how = "died" if dead else f"does not answer (for {waited:.0f} s)" if hanging else "left"
            names.append(f"{self.name(index)} {how}")
        who = ", ".join(names) or "another process of the group left"
        error = LostProcess(f"{who}; {advice}")
        error.quiet = supervised()
        return error

    def _absent(self) -> list[int]:
        """The processes that do not come to a roll call: they are dead, or hang."""
        others = [index for index in range(self.count) if index != self.index]
        try:
            store: Any = torch.distributed.distributed_c10d._get_default_store()
            # It may be kept by one that hangs.
            store.set_timeout(timedelta(seconds=_ROLL_CALL))
            store.set(f"alive/{self.index}", "yes")
            until = time.monotonic() + _ROLL_CALL
            while others and time.monotonic() < until:
                others = [index for index in others if not store.check([f"alive/{index}"])]
                if any(self._died(index) for index in others):
                    break
                time.sleep(0.05)
        except RuntimeError:
            # The store went with the process that kept it.
            pass
        dead = [index for index in others if self._died(index)]
        return dead or others

    def _died(self, index: int) -> bool:
        """Whether a process has ended, as far as can be seen from this machine."""
        number, machine = self._homes[index].tolist()
        return bool(machine == self._homes[self.index, 1]) and _is_dead(number)


def _meet() -> None:
    if torch.distributed.is_initialized():
        return
    # Imported later, its functions would keep the group of processes alive as a default.
    import_module("torch.distributed.nn.functional")
    store = os.environ.get(STORE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.distributed.init_process_group(
            None if torch.cuda.is_available() else "gloo",
            init_method=None if store is None else f"file://{store}",
            rank=rank(),
            world_size=expected(),
            timeout=timedelta(seconds=_MEET),
        )
    # The threads of a group that still lives when the interpreter ends abort the process.
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _is_dead(number: int) -> bool:
    """Whether a process of this machine has ended, its parent told of it or not yet."""
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] in ("Z", "X")
