"""Headers that mean harm are refused before the library or the memory has to do with them."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fromnoise.core.errors import FileError
from fromnoise.core.tensorheader import read_header

EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


def _file(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


@pytest.mark.parametrize("name", ["../up", "a/../b", "..", "..\\up", "a\\..\\b", "nul\0", "line\n"])
def test_names_that_are_paths_or_unprintable_are_refused(tmp_path: Path, name: str) -> None:
    path = _file(tmp_path / "w.safetensors", json.dumps({name: EMPTY}).encode())
    with pytest.raises(FileError, match="in its name|for its name"):
        read_header(path)
    # The control: the library itself has nothing against them.
    with safe_open(path, "pt") as opened:
        assert list(opened.keys()) == [name]


@pytest.mark.parametrize("name", ["a..b", "module.a.weight", "a/b", "größe", "...", "x" * 300])
def test_ordinary_names_are_read(tmp_path: Path, name: str) -> None:
    save_file({name: torch.ones(1)}, tmp_path / "w.safetensors")
    assert read_header(tmp_path / "w.safetensors").shapes == {name: (1,)}


def _many(count: int) -> bytes:
    entry = json.dumps(EMPTY, separators=(",", ":"))
    return ("{" + ",".join(f'"{i}":{entry}' for i in range(count)) + "}").encode()


def test_huge_headers_take_neither_time_nor_memory(tmp_path: Path) -> None:
    """In a process of its own under 2 GiB: the same files take the library seconds and a GB."""
    # As long as the header of 1.6 million empty tensors; it need not be more to be refused.
    many = _file(tmp_path / "many.safetensors", b"{")
    with many.open("r+b") as file:
        file.write(struct.pack("<Q", 93_000_000))
        file.truncate(8 + 93_000_000)
    _file(tmp_path / "some.safetensors", _many(100_001))
    _file(tmp_path / "nested.safetensors", b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000)
    code = """
import resource, sys, time
from pathlib import Path
from fromnoise.core.errors import FileError
from fromnoise.core.tensorheader import read_header
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
before = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    begun = time.process_time()
    try:
        read_header(path)
    except FileError as error:
        spent = time.process_time() - begun
        after = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
        print(path.stem, spent < 1.0, after - before < 64 * 1024, str(error)[-90:])
"""
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    lines = out.stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        [name, "True", "True"] for name in ("many", "nested", "some")
    ], out.stdout
