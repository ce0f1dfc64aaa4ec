"""Tensors out of a safetensors file: read, each into memory of its own, or mapped."""

import math
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import FileError
from fromnoise.core.files import versioned_header
from fromnoise.core.tensorheader import unreadable

_TYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16,
    "I32": torch.int32, "I64": torch.int64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "F16": torch.float16, "BF16": torch.bfloat16,
    "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
}  # fmt: skip


_LARGE = 2**20
"""Bytes from which on a tensor is worth a map."""
_ALIGNMENT = 64
"""Bytes: torch's own tensors begin at multiples of it."""


def every(name: str) -> bool:
    """All tensors."""
    return True


def none(name: str) -> bool:
    """No tensor."""
    return False


def read_tensors(
    path: str | Path,
    dtype: torch.dtype | None = torch.float32,
    wanted: Callable[[str], bool] = every,
    mapped: Callable[[str], bool] = none,
) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, its header checked first.

    They are read in the order of the file, straight to where they stay: the most memory that is
    taken is theirs, and that of the largest one again where its type changes.

    dtype: what floating-point tensors become; None leaves them as they are. wanted: of which names.
    mapped: which of them may stay in the file until they are computed with, if they are large and
    their type does not change: a map that is private, so that what is written to it stays here.
    They may stand at addresses that kernels round otherwise at; see `aligned`.
    Raises FileError for a file that is missing, cut short, damaged, a pickle, or holds a type that
    torch does not have.
    """
    path = Path(path)
    header = versioned_header(path)
    read: dict[str, Tensor] = {}
    try:
        with path.open("rb", buffering=0) as file:
            for name in sorted(filter(wanted, header.shapes), key=header.starts.__getitem__):
                kind = header.dtypes[name]
                if kind not in _TYPES:
                    raise FileError(f"{path}: tensor {name!r} is of type {kind}, which is not read")
                shape, start = header.shapes[name], header.starts[name]
                if mapped(name) and _worth_a_map(shape, _TYPES[kind], dtype, start):
                    read[name] = _map(file, shape, _TYPES[kind], start)
                    continue
                value = torch.empty(shape, dtype=_TYPES[kind])
                file.seek(start)
                _fill(file.readinto, value, path)
                read[name] = _typed(value, dtype)
    except OSError as error:
        raise unreadable(path, error) from None
    return read


def aligned(value: Tensor) -> Tensor:
    """A tensor at an address like those that torch gives; a copy where it is at another.

    Kernels may sum in another order elsewhere, and the same weights would draw other last bits.
    """
    if value.device.type != "cpu" or value.data_ptr() % _ALIGNMENT == 0:
        return value
    return value.clone(memory_format=torch.preserve_format)


def _worth_a_map(
    shape: Sequence[int], kind: torch.dtype, dtype: torch.dtype | None, start: int
) -> bool:
    stays = dtype in (None, kind) or not kind.is_floating_point
    large = kind.itemsize * math.prod(shape) >= _LARGE
    return stays and large and start % kind.itemsize == 0


def _map(file: FileIO, shape: Sequence[int], kind: torch.dtype, start: int) -> Tensor:
    """A private map of a tensor in a file that is open; it stays when the file is closed."""
    size = kind.itemsize * math.prod(shape)
    place = np.memmap(file, dtype=np.uint8, mode="c", offset=start, shape=(size,))
    return torch.from_numpy(place).view(kind).reshape(tuple(shape))


def _fill(readinto: Callable[[memoryview], int | None], value: Tensor, path: Path) -> None:
    """Read bytes into all of a tensor; one call of the system reads 2 GiB at most."""
    if not value.numel():
        return
    room: Any = memoryview(value.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    done = 0
    while done < len(room):
        count = readinto(room[done:])
        if not count:
            raise FileError(f"{path} is cut short: it ended while it was read")
        done += count


def _typed(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    return value if dtype is None or not value.is_floating_point() else value.to(dtype)
