"""What this machine has left."""

import os
from pathlib import Path

_NO_MEMORY = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
"""What torch says of it, on the processor, on a device, and of sizes that no number counts."""

OUT_OF_MEMORY = (
    "out of memory; ask for a smaller size (--width, --height), for fewer at once (--batch-size) "
    "or for --half, where the verb takes them, or free some memory"
)
"""What is said of it where nothing more is known."""


def free_memory() -> int | None:
    """Bytes of memory that could be had now; None where the system does not say.

    The least of what the system has available and what is left of the limits of this process's
    control group.
    """
    left = [n for n in (_system(), _group()) if n is not None]
    return min(left) if left else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, here or on a device."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _NO_MEMORY)


def _system() -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _group() -> int | None:
    root = Path("/sys/fs/cgroup")
    limit, used = ("".join(_lines(root / f"memory.{name}")) for name in ("max", "current"))
    if not (limit.isdigit() and used.isdigit()):
        return None
    return max(0, int(limit) - int(used))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii", "replace").splitlines()
    except OSError:
        return []
