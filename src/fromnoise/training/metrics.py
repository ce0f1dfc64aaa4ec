"""What a run measured, one JSON object a line, and TensorBoard event files on request."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

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
        path = folder / NAME
        kept = [line for line in read_metrics(path) if line["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._events: Any = _events(folder / TENSORBOARD, step) if tensorboard else None

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one line at once, and its numbers to TensorBoard."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in line.items():
                if name != "step" and isinstance(value, int | float):
                    self._events.add_scalar(name, value, line["step"])

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
