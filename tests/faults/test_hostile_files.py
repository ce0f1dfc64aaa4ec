"""The files of a run are untrusted when it goes on: tampered ones are refused, and none is run."""

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training import toy

from fromnoise.core.errors import FileError, FromNoiseError
from fromnoise.core.files import _files as names
from fromnoise.core.files import _fingerprint as entry
from fromnoise.core.files import write_json
from fromnoise.training import checkpoint
from fromnoise.training.runner import read_config


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one checkpoint in its middle."""
    loop = toy.run(tmp_path / "run", {}).train()
    for _ in range(5):
        next(loop)
    loop.close()
    return tmp_path / "run"


def sealed(path: Path) -> None:
    """What somebody does who tampers with a checkpoint on purpose: a manifest that agrees."""
    (path / "MANIFEST.json").unlink(missing_ok=True)
    files = {name: entry(path / name) for name in names(path)}
    write_json(path / "MANIFEST.json", {"format": 1, "files": files})


class _Payload:
    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._canary,))


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize("name", ["objective", "ema", "optimizer"])
def test_a_pickle_in_the_place_of_tensors_is_never_opened(
    run: Path, tmp_path: Path, name: str, kind: str
) -> None:
    canary = tmp_path / "canary"
    path = checkpoint.steps(run)[-1]
    file = path / f"{name}.safetensors"
    if kind == "pickle":
        file.write_bytes(pickle.dumps(_Payload(canary)))
    else:
        torch.save({"x": _Payload(canary)}, file, _use_new_zipfile_serialization=kind == "zip")
    sealed(path)
    with pytest.raises(FileError, match=rf"{name}\.safetensors is a pickle .* never loaded"):
        next(toy.run(run, {}).train())
    assert not canary.exists()
    held = io.BytesIO(file.read_bytes())
    torch.load(held, weights_only=False) if kind != "pickle" else pickle.load(held)
    assert canary.exists(), "the control: opened as a pickle, it runs"


def _tensors(entries: dict[str, Any], data: bytes) -> bytes:
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


_ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
_TWICE = b'{"a":%s,"a":%s}' % ((json.dumps(_ONE).encode(),) * 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (struct.pack("<Q", len(_TWICE)) + _TWICE + bytes(4), "is given twice"),
        (struct.pack("<Q", 2**40) + b"{", "at most"),
        (_tensors({"a": {**_ONE, "shape": [2**40]}}, bytes(4)), "needs"),
        (_tensors({str(i): {**_ONE, "shape": [0]} for i in range(100_001)}, b""), "100001 tensors"),
        (_tensors({"elsewhere": _ONE}, bytes(4)), "does not fit what is trained"),
    ],
)
def test_hostile_tensors_are_refused(run: Path, content: bytes, message: str) -> None:
    path = checkpoint.steps(run)[-1]
    (path / "objective.safetensors").write_bytes(content)
    sealed(path)
    with pytest.raises(FileError, match=message):
        next(toy.run(run, {}).train())


STATES = [
    (b'{"format": 1, "step": 1e999}', "not finite"),
    (b'{"format": 1, "step": 4, "step": 5}', "given twice"),
    (b'{"format": 1, "step": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper"),
    (b'{"format": 1, "step": NaN}', "not finite"),
    (b'{"format": 1}', "of step None"),
    (b'{"format": 1, "step": -4}', "of step -4"),
    (b'{"format": 1, "step": "4"}', "of step '4'"),
    (b'{"format": 1, "step": true}', "of step True"),
    (b'{"format": 1, "step": 4.0}', r"of step 4\.0"),
    (b'{"format": 2, "step": 4}', "another format"),
    (b"[]", "another format"),
    (b"\xff", "not UTF-8"),
    (b"", "line 1"),
]


@pytest.mark.parametrize(("content", "message"), STATES)
def test_a_hostile_state_is_passed_over(run: Path, content: bytes, message: str) -> None:
    path = checkpoint.steps(run)[-1]
    (path / "state.json").write_bytes(content)
    sealed(path)
    told: list[str] = []
    with pytest.raises(FromNoiseError, match="none of its 1 checkpoints"):
        checkpoint.latest(run, told.append)
    assert message.replace("\\", "") in told[0] and "state.json" in told[0]


@pytest.mark.parametrize(
    "manifest",
    [
        {"format": 1, "files": {"../../config.json": {"size": 1, "sha256": "0"}}},
        {"format": 1, "files": {"/etc/passwd": {"size": 1, "sha256": "0"}}},
        {"format": 1, "files": {}},
        {"format": 1, "files": []},
        {"format": 1},
    ],
)
def test_a_hostile_manifest_reaches_nothing_outside(run: Path, manifest: Any) -> None:
    path = checkpoint.steps(run)[-1]
    write_json(path / "MANIFEST.json", manifest)
    told: list[str] = []
    with pytest.raises(FromNoiseError, match="none of its 1 checkpoints"):
        checkpoint.latest(run, told.append)
    assert "passed over" in told[0]


def test_a_link_in_a_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    path = checkpoint.steps(run)[-1]
    held = (path / "ema.safetensors").read_bytes()
    (tmp_path / "elsewhere").write_bytes(held)
    (path / "ema.safetensors").unlink()
    (path / "ema.safetensors").symlink_to(tmp_path / "elsewhere")
    told: list[str] = []
    with pytest.raises(FromNoiseError, match="none of its 1 checkpoints"):
        checkpoint.latest(run, told.append)
    assert "not a plain file" in told[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"recipe"', '"train": {}, "recipe"'),
        lambda text: text.replace('"format": 1', '"format": 9'),
        lambda text: text[: len(text) // 2],
    ],
)
def test_a_hostile_configuration_is_refused(run: Path, damage: Callable[[str], str]) -> None:
    path = run / "config.json"
    before = read_config(run)
    path.write_text(damage(path.read_text()))
    with pytest.raises(FileError, match=r"config\.json"):
        next(toy.run(run, {}).train())
    write_json(path, {"format": 1, "config": before})
    assert len(list(toy.run(run, {}).train())) == 8
