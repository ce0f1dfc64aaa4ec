"""Files are whole or absent, whatever kills the writer; what is read is checked first."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.core import atomic, files
from fromnoise.core.errors import DiskError, FileError, FromNoiseError, UsageError

KILLS = 10
SIDE = 700


def _weights(fill: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((SIDE, SIDE), fill), "b": torch.full((SIDE, SIDE), fill)}


def _kill_while(
    repeat: Callable[[int], None], delay: float, begun: Callable[[], bool] = lambda: True
) -> None:
    """Fork a child that calls `repeat(0), repeat(1), …`; kill it `delay` s after it has begun."""
    child = os.fork()
    if child == 0:
        try:
            count = 0
            while True:
                repeat(count)
                count += 1
        finally:
            os._exit(1)
    while not begun():
        time.sleep(0.01)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _survivals(path: Path, repeat: Callable[[int], None]) -> int:
    """How many of the kills left a file that loads with one single fill in both tensors."""
    rng, whole = random.Random(0), 0
    for _ in range(KILLS):
        _kill_while(repeat, 0.02 + 0.06 * rng.random())
        try:
            loaded, metadata = files.load_tensors(path)
        except FileError:
            continue
        values = {float(v) for tensor in loaded.values() for v in (tensor.min(), tensor.max())}
        whole += values == {float(metadata["fill"])}
    return whole


def test_a_killed_writer_never_tears_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    files.save_tensors(path, _weights(0), {"fill": "0"})

    def save(count: int) -> None:
        files.save_tensors(path, _weights(count % 7), {"fill": str(count % 7)})

    assert _survivals(path, save) == KILLS
    files.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_kill_test_catches_a_naive_writer(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    contents = []
    for fill in range(2):
        files.save_tensors(path, _weights(fill), {"fill": str(fill)})
        contents.append(path.read_bytes())

    def overwrite(count: int) -> None:
        with path.open("wb") as file:
            for start in range(0, len(contents[0]), 4096):
                file.write(contents[count % 2][start : start + 4096])

    assert _survivals(path, overwrite) < KILLS


def test_a_killed_writer_never_tears_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    rng = random.Random(1)

    def save(count: int) -> None:
        with files.atomic_folder(folder) as fresh:
            (fresh / "sub").mkdir()
            files.write_bytes(fresh / "sub" / "x.bin", bytes([count % 5]) * 300_000)
            files.write_json(fresh / "y.json", {"count": count % 5})

    save(0)
    for _ in range(KILLS):
        _kill_while(save, 0.02 + 0.05 * rng.random())
        files.sweep(tmp_path)
        files.verify_folder(folder)
        count = files.read_json(folder / "y.json")["count"]
        assert (folder / "sub" / "x.bin").read_bytes() == bytes([count]) * 300_000
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_replacing_keeps_the_old_content_when_the_writer_raises(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError, match="boom"), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("boom")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_permissions_of_a_new_file(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "a", b"1")
        files.save_tensors(tmp_path / "b", {"x": torch.ones(2)})
    finally:
        os.umask(previous)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"}
    assert modes == {0o640}


def test_names_up_to_the_longest_can_be_written(tmp_path: Path) -> None:
    files.write_text(tmp_path / ("é" * 127), "x")
    with pytest.raises(DiskError, match="shorter name"):
        files.write_text(tmp_path / ("é" * 128), "x")
    assert len(list(tmp_path.iterdir())) == 1


@contextmanager
def _file_size_limit(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_size_limit_is_a_disk_error_and_the_old_file_stays(tmp_path: Path) -> None:
    plain, weights, folder = tmp_path / "f.bin", tmp_path / "w.safetensors", tmp_path / "d"
    files.write_bytes(plain, b"old")
    files.save_tensors(weights, {"x": torch.ones(3)})
    with files.atomic_folder(folder) as fresh:
        files.write_text(fresh / "t", "old")
    with _file_size_limit(100_000):
        with pytest.raises(DiskError, match=r"f\.bin.*ulimit"):
            files.write_bytes(plain, bytes(200_000))
        with pytest.raises(DiskError, match=r"w\.safetensors"):
            files.save_tensors(weights, {"x": torch.ones(50_000)})
        with pytest.raises(DiskError), files.atomic_folder(folder) as fresh:
            (fresh / "t").write_bytes(bytes(200_000))
    assert plain.read_bytes() == b"old"
    assert torch.equal(files.load_tensors(weights)[0]["x"], torch.ones(3))
    files.verify_folder(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "f.bin", "w.safetensors"]


_FULL = """
import sys
from pathlib import Path
from fromnoise.core import files
from fromnoise.core.errors import DiskError
path = Path(sys.argv[1]) / "f.bin"
files.write_bytes(path, b"old")
try:
    files.write_bytes(path, bytes(2**20))
except DiskError as error:
    print("refused:", error)
print(path.read_bytes(), [p.name for p in path.parent.iterdir()])
"""


def test_a_full_disk_is_a_disk_error_and_the_old_file_stays(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=256k none {tmp_path}"
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "sh", "-c", mount]).returncode:
        pytest.skip("needs the right to mount a small disk")
    run = [unshare, "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1" {tmp_path}']
    out = subprocess.run([*run, sys.executable, _FULL], capture_output=True, text=True)
    assert "refused: cannot write" in out.stdout and "free some space" in out.stdout
    assert "b'old' ['f.bin']" in out.stdout, out.stderr


def test_a_path_through_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError, match="part of the path is a file"):
        files.write_text(tmp_path / "file" / "below", "y")
    with pytest.raises(DiskError, match="folder has that name"):
        files.write_text(tmp_path, "y")
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_is_tried_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine")

    def tried() -> list[Path]:
        atomic.try_writing(tmp_path / "new" / "deep")
        atomic.try_writing(tmp_path / "there")
        return sorted(tmp_path.rglob("*"))

    before = sorted(tmp_path.rglob("*"))
    assert tried() == before
    with pytest.raises(DiskError, match="choose a shorter name"):
        atomic.try_writing(tmp_path / "new" / ("x" * 300))

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(DiskError, match="choose a folder you may write to"):
        tried()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_the_system_does_not_take_is_a_disk_error(tmp_path: Path) -> None:
    for check in (files.check_folder, files.check_file, files.check_own_file):
        with pytest.raises(DiskError, match="choose a shorter name"):
            check(tmp_path / ("x" * 300))


def test_the_module_is_light() -> None:
    code = "import sys, fromnoise.core.files; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def _folder(path: Path) -> Path:
    with files.atomic_folder(path) as fresh:
        (fresh / "in").mkdir()
        (fresh / "in" / "one").write_bytes(b"1" * 100)
        (fresh / "two").write_bytes(b"2" * 100)
    return path


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "in" / "one").unlink(), "in/one is missing"),
        (lambda f: (f / "two").write_bytes(b"2" * 99), "two has 99 bytes where 100"),
        (lambda f: _flip(f / "in" / "one"), "in/one has changed"),
        (lambda f: (f / "three").write_text(""), "three is extra"),
        (lambda f: (f / "two").unlink() or (f / "two").symlink_to("in/one"), "not a plain file"),
        (lambda f: (f / "MANIFEST.json").unlink(), "MANIFEST.json does not exist"),
        (lambda f: files.write_json(f / "MANIFEST.json", {"format": 1}), "not a manifest"),
        (
            lambda f: files.write_json(f / "MANIFEST.json", {"format": 2, "files": {}}),
            "file format 2",
        ),
        (shutil.rmtree, "is not a folder"),
    ],
)
def test_damage_to_a_folder_is_named(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = _folder(tmp_path / "run")
    assert set(files.verify_folder(folder)["files"]) == {"in/one", "two"}
    damage(folder)
    with pytest.raises(FileError, match=message):
        files.verify_folder(folder)


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("cat")
    with pytest.raises(FileError, match="choose another name"):
        _folder(tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.png").read_text() == "cat"
    (tmp_path / "empty").mkdir()
    files.verify_folder(_folder(tmp_path / "empty"))
    files.verify_folder(_folder(_folder(tmp_path / "mine")))


def test_a_folder_whose_filling_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), files.atomic_folder(tmp_path / "new") as fresh:
        (fresh / "x").write_text("x")
        raise KeyError("x")
    assert list(tmp_path.iterdir()) == []


def _dead_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_sweep_takes_only_what_dead_processes_left(tmp_path: Path) -> None:
    dead, alive = _dead_process(), os.getppid()
    stale = [f".a.json.tmp-{dead}-0123abcd", f".b.tmp-{os.getpid()}-0123abcd"]
    kept = [f".c.tmp-{alive}-0123abcd", "d.tmp-1", f"e.tmp-{dead}-0123abcd.txt", "f.png"]
    for name in [*stale, *kept]:
        (tmp_path / name).write_text("x")
    folder = tmp_path / "runs" / f"step-1.tmp-{dead}-0123abcd"
    folder.mkdir(parents=True)
    (folder / "x").write_text("x")
    with files.replacing(tmp_path / "mine") as temporary:
        removed = files.sweep(tmp_path)
        assert temporary.exists()
    assert {p.name for p in removed} == {*stale, folder.name}
    assert {p.name for p in tmp_path.iterdir()} == {*kept, "mine", "runs"}


def test_sweep_puts_back_a_folder_whose_successor_never_came(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model")
    folder.rename(tmp_path / f"model.old-{_dead_process()}-0123abcd")
    files.sweep(tmp_path)
    files.verify_folder(folder)


def test_a_locked_folder_refuses_a_second_holder(tmp_path: Path) -> None:
    with (
        files.lock(tmp_path / "run"),
        pytest.raises(FileError, match=rf"in use by process {os.getpid()}"),
        files.lock(tmp_path / "run"),
    ):
        pass
    with files.lock(tmp_path / "run"):
        pass


def test_a_killed_holder_gives_its_lock_back(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def hold(_: int) -> None:
        with files.lock(tmp_path):
            ready.touch()
            time.sleep(60)

    _kill_while(hold, 0.0, ready.exists)
    with files.lock(tmp_path):
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=25, deadline=None, derandomize=True)
@given(value=JSON)
def test_json_reads_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert files.read_json(path) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{\n "a": 1,\n "b": [1,\n}', "line 4: not valid JSON"),
        (b'{\n "a": {"k": 1},\n "k": 2,\n "a": 3}', r"line 4: the key 'a' is given twice"),
        (b'{"a":\n "b\xff"}', "line 2: not UTF-8"),
        (b"\n" + b"[" * 70 + b"]" * 70, "line 2: nested deeper than 64"),
        (b"\n\n" + b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "line 3: nested deeper"),
        (b'{"a": 1e999}', "1e999 is not finite"),
        (b'{"a": NaN}', "NaN is not finite"),
        (b"9" * 5000, "value.json: "),
        (b"", "line 1"),
    ],
)
def test_bad_json_is_refused_with_its_line(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(text)
    with pytest.raises(FileError, match=message) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def test_json_at_the_depth_limit_is_read_and_large_or_missing_files_are_not(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(b"[" * 64 + b"]" * 64)
    files.read_json(path)
    with pytest.raises(FileError, match="larger than 100 bytes"):
        files.read_json(path, max_bytes=100)
    with pytest.raises(FileError, match="does not exist"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(FileError, match="is a folder"):
        files.read_json(tmp_path)
    for value in (float("nan"), {1, 2}, "\ud800"):
        with pytest.raises(UsageError, match="cannot hold"):
            files.write_json(path, {"x": value})


TENSORS = {
    "half": torch.randn(3, 4).to(torch.bfloat16),
    "long": torch.arange(5),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5, dtype=torch.float64),
    "strided": torch.randn(4, 6).t(),
}


def test_the_texts_of_a_tensor_file_stand_in_the_order_of_their_names(tmp_path: Path) -> None:
    # The library's own order is another in each process, and with it the bytes of the file.
    texts = {name: f"ß{name}" for name in "hgfedcba"}
    path = tmp_path / "t.safetensors"
    files.save_tensors(path, {"w": torch.ones(3), "ä": torch.zeros(2)}, texts)
    raw = path.read_bytes()
    written = list(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"])
    assert written == sorted(written) and set(texts) < set(written)
    tensors, told = files.load_tensors(path)
    assert told["a"] == "ßa" and torch.equal(tensors["w"], torch.ones(3))


def test_tensors_and_metadata_read_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.randn(4)
    tied = {**TENSORS, "one": shared, "two": shared, "part": shared[:2]}
    files.save_tensors(tmp_path / "t.safetensors", tied, {"note": "ä"})
    loaded, metadata = files.load_tensors(tmp_path / "t.safetensors")
    assert loaded.keys() == tied.keys()
    for name, tensor in tied.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor), name
    assert metadata["note"] == "ä" and metadata["format"] == "pt"
    header = files.read_header(tmp_path / "t.safetensors")
    assert header.shapes["strided"] == (6, 4) and header.dtypes["half"] == "BF16"


def _raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


_SAME = b'{"a":%s,"a":%s}' % ((json.dumps(_entry([1], 0, 4)).encode(),) * 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cut short"),
        (b"\x10\0\0\0\0\0\0\0{}", "cut short"),
        (_raw(b"{}", length=9 * 2**20), "header of 9437184 bytes"),
        (_raw(b"[]"), "not a safetensors file"),
        (_raw(b'{"a":}'), "not valid JSON"),
        (_raw(_SAME, bytes(4)), "'a' is given twice"),
        (_raw({"a": _entry([2], 0, 4)}, bytes(4)), "needs 8 bytes and has 4"),
        (_raw({"a": _entry([2], 0, 8)}, bytes(7)), "cut short"),
        (_raw({"a": _entry([2], 0, 8)}, bytes(9)), "too long"),
        (_raw({"a": _entry([2], 4, 12)}, bytes(12)), "starts at byte 4 where 0"),
        (_raw({"a": _entry([1], 0, 4), "b": _entry([1], 0, 4)}, bytes(4)), "starts at byte 0"),
        (_raw({"a": _entry([-1], 0, 4)}, bytes(4)), r"shape \[-1\]"),
        (_raw({"a": _entry([True], 0, 4)}, bytes(4)), r"shape \[True\]"),
        (_raw({"a": _entry([0, 2**50], 0, 0)}), "impossible shape"),
        (_raw({"a": _entry([2**40, 2**40], 0, 4)}, bytes(4)), "impossible shape"),
        (_raw({"a": _entry([1], 0, 4, "F12")}, bytes(4)), "unknown element type 'F12'"),
        (_raw({"a\0": _entry([1], 0, 4)}, bytes(4)), "control character"),
        (_raw({"a": {"dtype": "F32"}}), "does not have exactly"),
        (_raw({"a": 3}), "does not have exactly"),
        (_raw({"__metadata__": {"x": 1}}), "metadata are not texts"),
        (_raw({str(i): _entry([0], 0, 0) for i in range(100_001)}), "100001 tensors"),
        (_raw({"__metadata__": {"fromnoise_format": "2"}}), "file format 2"),
        (_raw({"__metadata__": {"fromnoise_format": "x"}}), "file format 'x'"),
    ],
)
def test_a_hostile_or_damaged_tensor_file_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message) as caught:
        files.load_tensors(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_recognised_and_never_opened(tmp_path: Path, legacy: bool) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (canary,))

    path = tmp_path / "weights.pt"
    torch.save({"x": Payload()}, path, _use_new_zipfile_serialization=not legacy)
    for opened in (files.load_tensors, files.refuse_pickle):
        with pytest.raises(FileError, match="is a pickle .* is never loaded"):
            opened(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists(), "the payload of this test does nothing"


def test_a_header_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    header = json.dumps({"__metadata__": {"pad": ""}})
    header = json.dumps({"__metadata__": {"pad": "x" * (640 - len(header))}})
    path.write_bytes(_raw(header.encode()))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert files.load_tensors(path)[0] == {}
    files.refuse_pickle(path)


def test_sha256_is_the_published_one(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "abc", b"abc")
    # FIPS 180-2, appendix B.1
    assert files.sha256(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(FileError, match="does not exist"):
        files.sha256(tmp_path / "none")


def test_every_cut_of_a_tensor_file_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    files.save_tensors(path, {"x": torch.randn(20), "y": torch.randn(20)}, {"note": "n"})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(FileError):
            files.load_tensors(path)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_a_mutated_tensor_file_loads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    entries = {"a": _entry([2, 3], 0, 24), "b": _entry([4], 24, 32, "I16")}
    content = bytearray(_raw(entries, bytes(32)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded, _ = files.load_tensors(path)
    except FromNoiseError:
        return
    assert sum(t.numel() * t.element_size() for t in loaded.values()) == 32


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        files.load_tensors(tmp_path / "none.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        files.load_tensors(tmp_path)
