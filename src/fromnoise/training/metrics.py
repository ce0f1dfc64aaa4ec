"""What a run measured, one JSON object a line, and TensorBoard event files on request."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from fromnoise.core.atomic import disk_errors
from fromnoise.core.files import write_text

NAME = "metrics.jsonl"
TENSORBOARD = "tensorboard"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, of a live run too; none where it is missing."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            # The last line of a live run, or of one that was killed, may be half written.
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            found.append(value)
    return found


class Metrics:
    """Writes the lines of a run that goes on after `step`; later lines are dropped first."""

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._path = folder / NAME
        kept = [line for line in read_metrics(self._path) if line["step"] <= step]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        with disk_errors(self._path):
            self._file: IO[bytes] = self._path.open("ab", buffering=0)
        self._logs = folder / TENSORBOARD
        with disk_errors(self._logs):
            self._events: Any = _events(self._logs, step) if tensorboard else None

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line at once, whole or not at all, and its numbers to TensorBoard.

        Raises DiskError when it cannot be written.
        """
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        with disk_errors(self._path, len(data)):
            self._append(data)
        if self._events is None:
            return
        with disk_errors(self._logs):
            for name, value in line.items():
                if name != "step" and isinstance(value, int | float):
                    self._events.add_scalar(name, value, line["step"])

    def _append(self, data: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            left = data
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(end)
            raise

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _events(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
