"""The process that reads a pickle: it has two open files, and may open nothing more.

It imports the standard library and its neighbours here only, so neither torch nor `pickle` is
there to be reached. The file comes as standard input, the weights leave as standard output, and
one line of JSON on standard error says what was found or why it was refused.
"""

import codecs
import json
import resource
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal

from fromnoise.interop.checkpoints import Found, find
from fromnoise.interop.pickle_data import ELEMENTS, RefusedError, TensorView
from fromnoise.interop.torch_files import Archive, check, pieces, read, verify

_FORMS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def main() -> None:
    """Read the file at standard input, as the order in the first argument says."""
    order = json.loads(sys.argv[1])
    source, target = sys.stdin.buffer, sys.stdout.buffer
    # Codecs are imported when they are first used, which must be before imports are refused.
    for coding in ("cp437", "latin1", "utf-8"):
        codecs.lookup(coding)
    limit(order["memory"], order["seconds"], order["output"])
    sys.addaudithook(refuse)
    try:
        archive = read(source)
        found = find(archive.value, order["which"])
        write(found, archive, source, target, order["marks"])
        answer = {
            "wrapper": found.wrapper,
            "which": found.which,
            "tensors": len(found.tensors),
            "notes": found.notes,
        }
    except RefusedError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"refused": "a file that asks for more memory than it may have"}
    except RecursionError:
        answer = {"refused": "values nested too deep"}
    sys.stderr.write(json.dumps(answer) + "\n")


def limit(memory: int, seconds: int, output: int) -> None:
    """Bounds the system keeps: address space, processor time, size of what is written, files."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, output),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        # The standard three are open; nothing else can be.
        (resource.RLIMIT_NOFILE, 3),
    ):
        # A bound that holds already can only be lowered.
        _, hard = resource.getrlimit(kind)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse whatever reaches outside: files, processes, sockets, code made from text."""
    del arguments
    if event.startswith(_FORBIDDEN):
        raise RefusedError(f"a file whose reading tried {event}")


_FORBIDDEN = (
    "open", "os.", "subprocess.", "socket.", "ctypes.", "exec", "compile", "import", "shutil.",
    "pty.", "tempfile.", "urllib.", "http.", "ftplib.", "smtplib.", "winreg.", "mmap.", "syslog.",
    "pickle.", "marshal.", "signal.", "code.__new__", "function.__new__", "sqlite3.", "webbrowser.",
)  # fmt: skip


def write(
    found: Found, archive: Archive, source: BinaryIO, target: BinaryIO, marks: dict[str, str]
) -> None:
    """Write the weights as a safetensors file, the bytes of each tensor as they are in the file.

    marks: what else its metadata says, whatever the pickle does.
    """
    check(found.tensors.items(), archive)
    used = {view.storage.key for view in found.tensors.values()}
    verify(source, [archive.storages[key] for key in sorted(used)])
    header: dict[str, Any] = {
        "__metadata__": {
            "format": "pt",
            "wrapper": found.wrapper,
            "weights": found.which,
            **found.notes,
            **marks,
        }
    }
    place = 0
    for name, view in found.tensors.items():
        end = place + _count(view) * ELEMENTS[view.dtype][1]
        header[name] = {
            "dtype": ELEMENTS[view.dtype][0],
            "shape": view.shape,
            "data_offsets": (place, end),
        }
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target.write(len(text).to_bytes(8, "little") + text)
    for view in found.tensors.values():
        for piece in content(view, archive, source):
            target.write(piece)
    target.flush()


def content(view: TensorView, archive: Archive, source: BinaryIO) -> Iterator[bytes]:
    """The bytes of a tensor in the order of its places."""
    width = ELEMENTS[view.dtype][1]
    start = archive.storages[view.storage.key].start + view.offset * width
    if not _count(view):
        return
    if _contiguous(view):
        yield from pieces(source, start, _count(view) * width)
        return
    reach = 1 + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    held = memoryview(b"".join(pieces(source, start, reach * width))).cast(_FORMS[width])
    made = memoryview(bytearray(_count(view) * width)).cast(_FORMS[width])
    # One slice for each line along the longest axis: the loops in Python are over the others.
    axis = max(range(len(view.shape)), key=view.shape.__getitem__)
    steps = _contiguous_strides(view.shape)
    side, step, stride = view.shape[axis], steps[axis], view.strides[axis]
    others = [i for i in range(len(view.shape)) if i != axis]
    for to, at in _places(view, others, steps):
        made[to : to + (side - 1) * step + 1 : step] = held[
            at : at + (side - 1) * stride + 1 : stride
        ]
    yield made.cast("B").tobytes()


def _places(view: TensorView, axes: list[int], steps: list[int]) -> Iterator[tuple[int, int]]:
    """Where each line begins, in the tensor written and in the one read."""
    places = [(0, 0)]
    for axis in axes:
        places = [
            (to + i * steps[axis], at + i * view.strides[axis])
            for to, at in places
            for i in range(view.shape[axis])
        ]
    yield from places


def _count(view: TensorView) -> int:
    count = 1
    for side in view.shape:
        count *= side
    return count


def _contiguous_strides(shape: tuple[int, ...]) -> list[int]:
    strides = [1] * len(shape)
    for i in reversed(range(len(shape) - 1)):
        strides[i] = strides[i + 1] * shape[i + 1]
    return strides


def _contiguous(view: TensorView) -> bool:
    wanted = _contiguous_strides(view.shape)
    return all(
        side == 1 or stride == step
        for side, stride, step in zip(view.shape, view.strides, wanted, strict=True)
    )
