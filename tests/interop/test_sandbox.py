"""Nothing in a pickle runs, nothing in it takes memory, and what is refused leaves no trace."""

import io
import json
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from interop import hostile

from fromnoise.core.errors import FileError
from fromnoise.core.files import load_tensors, refuse_pickle
from fromnoise.interop import sandbox, torch_files
from fromnoise.interop.checkpoints import find
from fromnoise.interop.pickle_data import RefusedError
from fromnoise.interop.sandbox import extract

SOURCE = Path(sandbox.__file__).parents[2]
SUFFIXES = (".pt", ".ckpt", ".pth", ".bin")


def _refusals(folder: Path, corpus: dict[str, bytes]) -> dict[str, str]:
    """What is said of each file; a file that is taken has no entry."""

    def ask(item: tuple[int, tuple[str, bytes]]) -> tuple[str, str]:
        index, (name, content) = item
        path = folder / f"{index}{SUFFIXES[index % len(SUFFIXES)]}"
        path.write_bytes(content)
        try:
            extract(path, folder / "out" / f"{index}.safetensors")
        except FileError as error:
            return name, str(error)
        return name, ""

    with ThreadPoolExecutor(2) as pool:
        return {name: said for name, said in pool.map(ask, enumerate(corpus.items())) if said}


def test_no_payload_is_read(tmp_path: Path) -> None:
    """By the reader alone: it may be run here, since nothing it reads is."""
    canary = tmp_path / "canary"
    pickles = hostile.runs(canary) | hostile.inert(canary)
    assert len(pickles) >= 49
    for name, body in pickles.items():
        with pytest.raises(RefusedError):
            find(torch_files.read(io.BytesIO(hostile.zipped(body))).value)
        assert not canary.exists(), name


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_payload_runs_and_each_is_refused(tmp_path: Path, every: bool) -> None:
    canary = tmp_path / "canary"
    pickles = hostile.runs(canary) | (hostile.inert(canary) if every else {})
    corpus = {name: hostile.zipped(body) for name, body in pickles.items()}
    corpus |= hostile.archives(canary)
    assert len(corpus) >= (60 if every else 31)
    said = _refusals(tmp_path, corpus)
    assert said.keys() == corpus.keys()
    assert not canary.exists()
    # Refused by the reader: not one came so far as to be stopped at the second wall.
    assert not [line for line in said.values() if "tried" in line or "reader failed" in line]
    assert list((tmp_path / "out").iterdir()) == []
    assert "os.system" in said["os.system"] and "tar archive" in said["tar"]


@pytest.mark.parametrize("name", sorted(hostile.runs(Path("x"))))
def test_the_payloads_do_run_when_loaded_in_the_usual_way(name: str, tmp_path: Path) -> None:
    """The control: a corpus that would do nothing anywhere would prove nothing."""
    canary = tmp_path / "canary"
    body = hostile.runs(canary)[name]
    try:
        made = pickle.loads(body)
    except (TypeError, pickle.UnpicklingError):
        made = None
    del made
    assert canary.exists()


def test_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """In a process that has nothing in it, so that the peak is that of the reader."""
    corpus = hostile.bombs()
    for name, content in corpus.items():
        (tmp_path / f"{name}.pt").write_bytes(content)
    code = """
import json, resource, sys, time
from pathlib import Path
from fromnoise.core.errors import FileError
from fromnoise.interop.sandbox import extract
folder, told = Path(sys.argv[1]), {}
for path in sorted(folder.glob("*.pt")):
    begun = time.monotonic()
    try:
        extract(path, folder / "out.safetensors")
        said = ""
    except FileError as error:
        said = str(error)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    told[path.stem] = [said, time.monotonic() - begun, peak]
print(json.dumps(told))
"""
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    told = json.loads(out.stdout)
    assert told.keys() == corpus.keys()
    assert [name for name, (said, _, _) in told.items() if not said] == []
    assert not [said for said, _, _ in told.values() if "reader failed" in said or "tried" in said]
    assert max(seconds for _, seconds, _ in told.values()) < 5.0
    # Kilobytes; a bare interpreter takes 10 to 15 MiB of it.
    assert max(peak for _, _, peak in told.values()) < (64 + 24) * 1024
    assert not (tmp_path / "out.safetensors").exists()


def test_the_same_bombs_do_go_off_elsewhere(tmp_path: Path) -> None:
    """The control: torch.load takes some of them, weights_only or not, as tensors of terabytes."""
    bombs = hostile.bombs()
    taken = {}
    for name in ("sparse", "stride 0", "deflated"):
        (tmp_path / "x.pt").write_bytes(bombs[name])
        taken[name] = torch.load(tmp_path / "x.pt", weights_only=True)["w"].numel()
    assert taken == {"sparse": 2**40, "stride 0": 2**30, "deflated": 4_000_000}


FORBIDDEN = {
    "os.system('true')": "os.system",
    "open('/etc/passwd')": "open",
    "open(sys.argv[1], 'w')": "open",
    "__import__('socket')": "import",
    "os.fork()": "os.fork",
    "os.execv('/bin/true', ['true'])": "os.exec",
    "eval('1')": "compile",
    "os.posix_spawn('/bin/true', ['true'], {})": "os.posix_spawn",
    "os.remove(sys.argv[1])": "os.remove",
    "os.rename(sys.argv[1], 'x')": "os.rename",
    "os.listdir('/')": "os.listdir",
    "__import__('pickle')": "import",
    "os.kill(os.getppid(), 0)": "os.kill",
}


@pytest.mark.parametrize("act", FORBIDDEN)
def test_the_second_wall_stands_by_itself(act: str, tmp_path: Path) -> None:
    """Were the reader fooled, the process it is in could still do nothing."""
    victim = tmp_path / "victim"
    victim.write_text("here")
    code = f"""
import os, sys
sys.path.append({str(SOURCE)!r})
from fromnoise.interop import sandbox_child
def act(): {act}
sandbox_child.limit(2**30, 5, 2**20)
sys.addaudithook(sandbox_child.refuse)
act()
"""
    command = [sys.executable, "-I", "-S", "-c", code, str(victim)]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.returncode == 1 and f"tried {FORBIDDEN[act]}" in out.stderr
    assert victim.read_text() == "here"


def test_the_limits_of_memory_and_output_hold() -> None:
    head = f"""
import sys
sys.path.append({str(SOURCE)!r})
from fromnoise.interop import sandbox_child
sandbox_child.limit(2**28, 1, 2**20)
"""
    acts = {"bytearray(2**30)": "MemoryError", "while True: pass": "", "open('x')": "Too many"}
    for act, said in acts.items():
        out = subprocess.run(
            [sys.executable, "-I", "-S", "-c", head + act], capture_output=True, text=True
        )
        assert out.returncode != 0 and said in out.stderr, act


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_come_out_bit_for_bit(tmp_path: Path, legacy: bool) -> None:
    shared = torch.randn(6)
    weights = {
        "plain": torch.randn(3, 4),
        "parameter": torch.nn.Parameter(torch.randn(2).bfloat16()),
        "turned": torch.randn(4, 6).T,
        "channels last": torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last),
        "sliced": torch.arange(40).reshape(5, 8)[1:4, ::2],
        "half": torch.randn(5).half(),
        "double": torch.randn(2, 1, 3).double(),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "complex": torch.randn(3, dtype=torch.complex64),
        "part": shared[2:],
        "whole": shared,
        "in": {"in": torch.arange(3)},
    }
    if not legacy:
        weights |= {
            "f8": torch.randn(4).to(torch.float8_e4m3fn),
            "u16": torch.arange(3).to(torch.uint16),
        }
    path, out = tmp_path / "w.pt", tmp_path / "w.safetensors"
    torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    found = extract(path, out)
    got, metadata = load_tensors(out)
    expected = {**weights, "in.in": weights["in"]["in"]}
    del expected["in"]
    assert found.tensors == len(got) and got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype and got[name].shape == value.shape, name
        bits = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (got[name], value)]
        assert torch.equal(*bits), name
    assert metadata["weights"] == "model"


def test_a_killed_or_refused_reader_leaves_what_was_there(tmp_path: Path) -> None:
    path, out = tmp_path / "w.pt", tmp_path / "w.safetensors"
    torch.save({"w": torch.ones(4)}, path)
    extract(path, out)
    before = out.read_bytes()
    with pytest.raises(FileError, match="takes longer than 0 s"):
        extract(path, out, seconds=0.005)
    path.write_bytes(hostile.zipped(hostile.program(hostile.call("os.system", hostile.text("x")))))
    with pytest.raises(FileError, match=r"w\.pt is refused: it is a pickle that names os\.system"):
        extract(path, out)
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pt", "w.safetensors"]
    with pytest.raises(FileError, match="does not exist"):
        extract(tmp_path / "none.pt", out)
    with pytest.raises(FileError, match="is a folder"):
        extract(path, tmp_path)


def test_no_descriptor_and_no_child_is_left(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"no")
    counts = []
    for _ in range(3):
        with pytest.raises(FileError):
            extract(tmp_path / "x.pt", tmp_path / "o.safetensors")
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts[0] == counts[-1]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0


@pytest.mark.parametrize("make", [hostile.saved, lambda v: hostile.archives(Path("x"))["tar"]])
def test_an_archive_named_safetensors_is_refused(
    make: Callable[[object], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(make({"w": torch.ones(2)}))
    for opened in (load_tensors, refuse_pickle):
        with pytest.raises(FileError, match=r"is a pickle.*--from-pickle"):
            opened(path)
