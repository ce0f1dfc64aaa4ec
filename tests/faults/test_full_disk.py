"""A disk that fills up ends training clearly, and costs nothing that was saved."""

import os
import re
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import child
from model.tiny import tiny
from training import toy

from fromnoise.core import atomic
from fromnoise.core.errors import DiskError
from fromnoise.core.files import require_room, verify_folder, write_bytes
from fromnoise.model import load_model
from fromnoise.training import Run, checkpoint
from fromnoise.training.metrics import Metrics, read_metrics

DISK = 4 * 2**20
BIG = {"steps": 40, "checkpoint_every": 2, "validate_every": 0, "log_every": 1}


def _big(folder: Path) -> Run:
    """A run of which two checkpoints fit the disk and a third does not."""
    made = toy.run(folder, BIG)
    made.task.objective.register_buffer("ballast", torch.ones(DISK // 3 // 4))
    return made


def on_small_disk(place: Path, work: Callable[[Path], object], errors: Path) -> int:
    """Work in a child, on a disk of 4 MiB that only it sees; what it asserts counts."""

    def mounted() -> None:
        if not child.small_disk(place, DISK):
            os._exit(NO_DISK)
        work(place)

    code = child.outcome(mounted, errors)
    if code == NO_DISK:
        pytest.skip("this user may not mount a small disk; the limit on file sizes is tested below")
    return code


NO_DISK = 77


def _train_until_full(place: Path) -> None:
    """Train until the disk is full; look at what is left before the error goes on."""
    run = place / "run"
    try:
        list(_big(run).train())
    except DiskError:
        assert not child.temporaries(run)
        kept = checkpoint.steps(run)
        assert [p.name for p in kept] == ["step-00000002", "step-00000004"]
        for path in kept:
            verify_folder(path)
        checkpoint.load_tensors(kept[-1] / "objective.safetensors")
        assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
        raise


@pytest.mark.parametrize("foreseen", [True, False])
def test_training_on_a_disk_that_fills_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreseen: bool
) -> None:
    """Before the save that does not fit, or in its middle where the disk did not tell."""
    if not foreseen:
        monkeypatch.setattr(checkpoint, "require_room", lambda *_: None)
    told = tmp_path / "error"
    code = on_small_disk(tmp_path / "disk", _train_until_full, told)
    assert code == DiskError.exit_code == 1, told.read_text()
    message = told.read_text()
    assert message.startswith("DiskError: cannot write") and "checkpoints" in message
    needed = r"it needs 1\d{6} bytes" if foreseen else r"objective.safetensors \(1\d{6} bytes\)"
    assert re.search(needed, message) and "free some space" in message
    assert "What was there before is unchanged" in message


def _plain_save(run: Path, step: int, *_: Any) -> Path:
    """What a plain trainer does: one file, under its final name."""
    path = run / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True)
    torch.save(torch.ones(DISK // 3 // 4), path / "state.pt")
    return path


def _plain_until_full(place: Path) -> None:
    checkpoint.save = _plain_save  # type: ignore[assignment]
    checkpoint.check_room = lambda *_: None
    checkpoint.prune = lambda *_: None
    try:
        list(_big(place / "run").train())
    except RuntimeError:
        newest = checkpoint.steps(place / "run")[-1] / "state.pt"
        assert newest.stat().st_size < DISK // 3, "the control is not torn"
        raise DiskError("torn") from None


def test_a_plain_writer_leaves_a_torn_file(tmp_path: Path) -> None:
    """The control: the same disk, and torch.save under the final name."""
    told = tmp_path / "error"
    assert on_small_disk(tmp_path / "disk", _plain_until_full, told) == 1
    assert told.read_text() == "DiskError: torn"


def _no_room_at_all(place: Path) -> None:
    made = _big(place / "run")
    (place / "other").write_bytes(bytes(3 * 2**20))
    with pytest.raises(DiskError, match=r"it needs 1\d{6} bytes and a fifth more, and only"):
        next(made.train())
    assert made.task.objective.get_buffer("taken") == 0


def test_no_room_for_one_checkpoint_is_said_before_the_first_step(tmp_path: Path) -> None:
    told = tmp_path / "error"
    assert on_small_disk(tmp_path / "disk", _no_room_at_all, told) == 0


def _fill(place: Path, left: int) -> None:
    """Leave so many bytes of the disk."""
    with (place / "filling").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            size = file.tell()
        file.truncate(size - size % 4096 - left)


def _metrics_until_full(place: Path) -> None:
    folder = place / "run"
    folder.mkdir()
    with Metrics(folder, 0, False) as metrics:
        metrics.write({"step": 1, "loss": 1.0})
        _fill(place, 8192)
        step = 1
        try:
            while True:
                step += 1
                metrics.write({"step": step, "loss": 1.0})
        finally:
            text = (folder / "metrics.jsonl").read_text()
            assert text.endswith("}\n") and len(text.splitlines()) == step - 1


def _picture_until_full(place: Path) -> None:
    write_bytes(place / "picture.png", b"old")
    _fill(place, 8192)
    try:
        write_bytes(place / "picture.png", bytes(100_000))
    finally:
        assert (place / "picture.png").read_bytes() == b"old"
        assert not child.temporaries(place)


def _model_until_full(place: Path) -> None:
    model = tiny()
    model.save(place / "model")
    _fill(place, 8192)
    try:
        tiny(seed=1).save(place / "model")
    finally:
        assert not child.temporaries(place)
        kept = load_model(place / "model").denoiser.net.state_dict()
        assert all(torch.equal(kept[k], v) for k, v in model.denoiser.net.state_dict().items())


@pytest.mark.parametrize(
    ("work", "named"),
    [
        (_metrics_until_full, "metrics.jsonl (2"),
        (_picture_until_full, "picture.png (100000 bytes)"),
        (_model_until_full, "model"),
    ],
)
def test_other_writers_on_a_full_disk(
    tmp_path: Path, work: Callable[[Path], None], named: str
) -> None:
    told = tmp_path / "error"
    code = on_small_disk(tmp_path / "disk", work, told)
    assert code == 1 and named in told.read_text()
    assert "bytes)" in told.read_text() and "free some space" in told.read_text()


def _limited(folder: Path) -> None:
    """The same without a disk of one's own: no file may grow beyond 1 MiB."""
    made = _big(folder)
    events = made.train()
    next(events)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    list(events)


def test_a_limit_on_file_sizes_ends_training_as_clearly(tmp_path: Path) -> None:
    run, told = tmp_path / "run", tmp_path / "error"
    assert child.outcome(partial(_limited, run), told) == 1
    assert re.search(r"objective.safetensors \(1\d{6} bytes\).*File too large", told.read_text())
    assert not child.temporaries(run) and not checkpoint.steps(run)
    assert [line["step"] for line in read_metrics(run / "metrics.jsonl")] == [1, 2]


def test_a_picture_that_cannot_be_written_does_not_stop_training(tmp_path: Path) -> None:
    made = toy.run(tmp_path / "run", {"sample_every": 4})
    loop = made.train()
    next(loop)
    (tmp_path / "run" / "samples").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="no sample picture at step 4: cannot write"):
        assert len(list(loop)) == 11


def test_room_is_asked_for_with_a_fifth_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"total": 10**9, "used": 0, "free": 1200})
    monkeypatch.setattr(atomic.shutil, "disk_usage", lambda place: usage)
    require_room(tmp_path / "a" / "b", 1000)
    with pytest.raises(DiskError, match="needs 1001 bytes and a fifth more, and only 1200"):
        require_room(tmp_path / "a" / "b", 1001)
    usage.total = 0
    require_room(tmp_path, 10**12)
