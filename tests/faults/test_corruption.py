"""Damage on the disk is found by the manifest, the file is named, and the one before is taken."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from faults import child
from training import toy

from fromnoise.core.errors import FileError, TrainingError
from fromnoise.training import checkpoint

FLIPS = CUTS = 100
FILES = [
    "MANIFEST.json", "ema.safetensors", "objective.safetensors", "optimizer.safetensors",
    "state.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def kept(quick_disk: Path) -> Path:
    """A run that has ended, with two checkpoints."""
    folder = quick_disk / "corruption"
    list(toy.run(folder, {}).train())
    assert sorted(p.name for p in checkpoint.steps(folder)[-1].iterdir()) == FILES
    return folder


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(kept, tmp_path / "run")
    return tmp_path / "run"


def check_seen(run: Path, *named: str) -> None:
    """The newest checkpoint is passed over, naming a file, and the one before it is taken."""
    older, newer = checkpoint.steps(run)
    told: list[str] = []
    assert checkpoint.latest(run, told.append) == older
    (message,) = told
    assert newer.name in message
    assert any(name in message for name in named), (message, named)


def damaged(run: Path, count: int, damage: Callable[[random.Random, bytearray], None]) -> None:
    """Damage files of the newest checkpoint one at a time, and check that each is seen."""
    chance = random.Random(0)
    newer = checkpoint.steps(run)[-1]
    for number in range(count):
        path = newer / FILES[number % len(FILES)]
        whole = path.read_bytes()
        data = bytearray(whole)
        damage(chance, data)
        path.write_bytes(data)
        # A damaged manifest may blame a file that never was.
        check_seen(run, "" if path.name == "MANIFEST.json" else path.name)
        path.write_bytes(whole)
    assert checkpoint.latest(run, pytest.fail) == newer


def _flip(chance: random.Random, data: bytearray) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _cut(chance: random.Random, data: bytearray) -> None:
    # The line end that closes a JSON file says nothing.
    del data[chance.randrange(len(data) - 1) :]


def _zeros(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data) - 1)
    data[start:] = bytes(len(data) - start)


@pytest.mark.parametrize(("damage", "count"), [(_flip, FLIPS), (_cut, CUTS), (_zeros, 20)])
def test_all_damage_is_seen(
    run: Path, damage: Callable[[random.Random, bytearray], None], count: int
) -> None:
    damaged(run, count, damage)


def test_flips_load_silently_without_the_manifest(run: Path) -> None:
    """The control: a tensor file has no check of its own."""
    path = checkpoint.steps(run)[-1] / "objective.safetensors"
    before = {k: v.clone() for k, v in safetensors.torch.load_file(path).items()}
    whole, chance, silent = path.read_bytes(), random.Random(0), 0
    tensors = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(FLIPS):
        data = bytearray(whole)
        data[chance.randrange(tensors, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        loaded = safetensors.torch.load_file(path)
        silent += any(not torch.equal(loaded[k], v) for k, v in before.items())
    assert silent == FLIPS


@pytest.mark.parametrize("name", FILES)
def test_a_deleted_file_is_seen(run: Path, name: str) -> None:
    (checkpoint.steps(run)[-1] / name).unlink()
    check_seen(run, name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_checkpoint_is_seen(run: Path, name: str) -> None:
    older, newer = checkpoint.steps(run)
    shutil.copy(older / name, newer / name)
    check_seen(run, *(FILES if name == "MANIFEST.json" else [name]))


def test_a_checkpoint_under_the_name_of_another_is_seen(run: Path) -> None:
    older, newer = checkpoint.steps(run)
    shutil.rmtree(newer)
    shutil.copytree(older, newer)
    check_seen(run, "state.json is of step 8, and the folder of step 12")


def test_an_extra_file_is_seen(run: Path) -> None:
    (checkpoint.steps(run)[-1] / "weights.bin").write_bytes(b"x")
    check_seen(run, "weights.bin")


def test_files_swapped_between_two_checkpoints_leave_neither(run: Path) -> None:
    older, newer = (path / "objective.safetensors" for path in checkpoint.steps(run))
    held = older.read_bytes()
    older.write_bytes(newer.read_bytes())
    newer.write_bytes(held)
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(TrainingError, match="none of its 2 checkpoints is valid"),
    ):
        next(toy.run(run, {}).train())


def test_a_run_goes_on_from_the_one_before_and_ends_the_same(run: Path) -> None:
    expected = child.final(run)
    path = checkpoint.steps(run)[-1] / "ema.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"step-00000012 is damaged.*ema\.safetensors"):
        assert len(list(toy.run(run, {}).train())) == 4
    assert child.final(run) == expected
    checkpoint.latest(run, pytest.fail)


def test_damage_after_the_check_is_an_error_and_not_a_crash(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "verify_folder", lambda path: {})
    path = checkpoint.steps(run)[-1] / "objective.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FileError, match="cut short"):
        next(toy.run(run, {"steps": 12}).train())
