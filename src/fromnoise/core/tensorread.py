"""Tensors out of a safetensors file, each into memory of its own, and never two copies at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def read_tensors(
    path: str | Path,
    dtype: torch.dtype | None = torch.float32,
    wanted: Callable[[str], bool] = lambda name: True,
) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, its header checked first.

    They are read in the order of the file, straight to where they stay: the most memory that is
    taken is theirs, and that of the largest one again where its type changes. A map of the file
    would count twice while it is copied, and used in place it would hold tensors at addresses that
    kernels round otherwise at: the same weights would draw other last bits.

    dtype: what floating-point tensors become; None leaves them as they are. wanted: of which names.
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
                value = torch.empty(header.shapes[name], dtype=_TYPES[kind])
                file.seek(header.starts[name])
                _fill(file.readinto, value, path)
                read[name] = _typed(value, dtype)
    except OSError as error:
        raise unreadable(path, error) from None
    return read


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
