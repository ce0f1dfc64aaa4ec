"""Training in a child that can be killed: forked, so that nothing is imported a second time."""

import ctypes
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from training import toy

from fromnoise.core.errors import FromNoiseError
from fromnoise.core.files import read_json
from fromnoise.training import Run, checkpoint
from fromnoise.training.ema import EMA

BUG = 70
"""Exit code of a child that ended by what is no error of the library."""

Work = Callable[[], object]


def warm(folder: Path) -> None:
    """Import what training imports, before the forks."""
    list(toy.run(folder, {"steps": 1}).train())


def begin(work: Work, errors: Path | None = None) -> int:
    """Run in a child; return its number. It writes the message of its error to a file."""
    child = os.fork()
    if child:
        return child
    code = BUG
    try:
        work()
        code = 0
    except FromNoiseError as error:
        code = error.exit_code
        told = f"{type(error).__name__}: {error}"
        if errors is None:
            print(told, file=sys.__stderr__)
        else:
            errors.write_text(told)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a child, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(work: Work, errors: Path | None = None) -> int:
    """Run in a child to its end."""
    return ended(begin(work, errors))


def alive(process: int) -> bool:
    """Whether a process runs: neither gone nor waiting to be buried."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def children() -> list[int]:
    """The processes that this one started and that run."""
    told = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(number) for number in told.split() if alive(int(number))]


class Traced:
    """A run that writes a line for each step: its numbers exactly, and hashes of all weights."""

    def __init__(self, made: Run, out: Path) -> None:
        self.made, self.out = made, out
        self._average: dict[str, torch.Tensor] = {}

    def train(self) -> None:
        update = EMA.update

        def watched(average: EMA, step: int) -> None:
            update(average, step)
            self._average = average.shadow

        EMA.update = watched
        try:
            with self.out.open("a", buffering=1) as file:
                for event in self.made.train():
                    data = b"".join(v.numpy().tobytes() for v in self._average.values())
                    file.write(f"{toy.trace(event, self.made)} {sha256(data).hexdigest()}\n")
        finally:
            EMA.update = update


def train(
    folder: Path, settings: dict[str, Any], out: Path, arm: Callable[[Run], object] = id
) -> None:
    """Train the toy in a folder, tracing each step; `arm` may prepare a fault first."""
    made = toy.run(folder, {"sample_every": 4, **settings})
    arm(made)
    Traced(made, out).train()


def trained(
    folder: Path, settings: dict[str, Any], out: Path, arm: Callable[[Run], object] = id
) -> int:
    """The same in a child; how it ended."""
    return outcome(partial(train, folder, settings, out, arm))


def lines(out: Path) -> list[str]:
    """The whole lines of a trace: what follows the last line end was cut off by a kill."""
    return out.read_text().split("\n")[:-1] if out.exists() else []


def held(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds: weights, averages, optimizer and state, as bytes."""
    state = read_json(path / "state.json")
    # How many processes read ahead is part of the configuration, and no part of the result.
    del state["config"]
    found: dict[str, Any] = {"state": state}
    for file in sorted(path.glob("*.safetensors")):
        tensors = checkpoint.load_tensors(file)[0]
        found |= {f"{file.stem} {k}": v.numpy().tobytes() for k, v in tensors.items()}
    return found


def final(folder: Path) -> dict[str, Any]:
    """All that the last checkpoint of a run holds."""
    return held(checkpoint.steps(folder)[-1])


def weights_outside(folder: Path) -> dict[str, bytes]:
    """The files of weights of a run that are not in its checkpoints: snapshots of averages."""
    found = (p for p in folder.rglob("*.safetensors") if checkpoint.FOLDER not in p.parts)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def temporaries(folder: Path) -> list[Path]:
    """What a killed writer left."""
    return [p for p in folder.rglob("*") if ".tmp-" in p.name or ".old-" in p.name]


def small_disk(place: Path, size: int) -> bool:
    """Mount an empty file system of `size` bytes for this process alone; False where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, private, recursive = 0x00020000, 1 << 18, 1 << 14
    if libc.unshare(new_namespace) or libc.mount(b"none", b"/", None, private | recursive, None):
        return False
    place.mkdir(parents=True, exist_ok=True)
    options = f"size={size}".encode()
    return not libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, options)
