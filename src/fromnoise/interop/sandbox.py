"""The one door for pickles: a process of its own, with limits, that turns one into safetensors.

Nothing in the pickle is executed: `pickle_data` reads it as data. The process is the second wall,
for the faults that such a reader may have itself.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fromnoise.core.errors import FileError
from fromnoise.core.files import OURS, check_own_file, read_header, replacing
from fromnoise.core.tensorheader import unreadable
from fromnoise.interop.checkpoints import Which

MEMORY = 768 * 2**20
"""Address space the reader may have, beside the size of the file itself."""
SECONDS = 60.0
"""Time the reader may take, beside one second for each 20 MB."""
_MAX_ANSWER = 4 * 2**20
_START = (
    "import sys; sys.path.append(sys.argv.pop()); "
    "from fromnoise.interop.sandbox_child import main; main()"
)


@dataclass(frozen=True)
class Extracted:
    """What was found in a pickle: the wrapper around the weights, which they were, how many."""

    wrapper: str
    which: str
    tensors: int
    notes: dict[str, str]


def extract(
    source: str | Path, target: str | Path, which: Which = "auto", seconds: float | None = None
) -> Extracted:
    """Write the weights in a PyTorch pickle as a safetensors file, whole or not at all.

    which: "ema" for averaged weights, "model" for the others, "auto" for the first that are there.
    seconds: the longest it may take; by default `SECONDS` and one more for each 20 MB.
    Raises FileError for a file that is missing, holds anything but plain weights, or takes more
    memory or time than a file of its size may, and where the target is of another program.
    """
    source, target = Path(source), check_own_file(target)
    try:
        size = source.stat().st_size
        file = source.open("rb")
    except OSError as error:
        raise unreadable(source, error) from None
    limit = seconds if seconds is not None else SECONDS + size / 20e6
    with file, replacing(target) as temporary:
        with temporary.open("wb") as out:
            answer = _ask(file.fileno(), out.fileno(), size, which, limit)
        if "refused" in answer:
            raise FileError(f"{source} is refused: it is {answer['refused']}")
        # What came out is judged like any other file of unknown origin.
        read_header(temporary)
    return Extracted(answer["wrapper"], answer["which"], answer["tensors"], answer["notes"])


def _ask(source: int, target: int, size: int, which: str, limit: float) -> dict[str, Any]:
    order = {
        "which": which,
        "memory": MEMORY + 3 * size,
        "seconds": int(limit) + 1,
        "output": 2 * size + 2**24,
        "marks": OURS,
    }
    root = str(Path(__file__).resolve().parents[2])
    # -I: no environment, no current folder; -S: no packages; -B: writes no byte code.
    command = [sys.executable, "-I", "-S", "-B", "-c", _START, json.dumps(order), root]
    child = subprocess.Popen(
        command,
        stdin=source,
        stdout=target,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        start_new_session=True,
    )
    try:
        _, told = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"refused": f"a file that takes longer than {limit:.0f} s to read"}
    finally:
        # Also when this process is interrupted: the reader never outlives the question.
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return _answer(told[-_MAX_ANSWER:], child.returncode)


def _answer(told: bytes, code: int) -> dict[str, Any]:
    if code == 0:
        answer: dict[str, Any] = json.loads(told.splitlines()[-1])
        return answer
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return {"refused": "a file that takes more time or memory to read than it may"}
    if code == -signal.SIGXFSZ:
        return {"refused": "a file that unfolds into more than its own size"}
    last = told.decode(errors="replace").strip().splitlines()[-1:] or [""]
    return {"refused": f"a file that its reader failed on (code {code}: {last[0][:200]})"}
