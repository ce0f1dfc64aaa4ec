"""Sampling split over processes draws the pictures of one, and writes them once."""

from pathlib import Path
from typing import Any

import pytest
from model.tiny import tiny
from training.group import Group

from fromnoise.app import shares
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import SampleRequest
from fromnoise.app.sample import sample
from fromnoise.app.shares import share
from fromnoise.core.errors import UsageError
from fromnoise.training.ranks import Ranks


class Place(Ranks):
    """A process that meets no other."""

    def __init__(self, index: int, count: int) -> None:
        self.index, self.count = index, count


@pytest.mark.parametrize("count", [1, 5, 8, 33])
@pytest.mark.parametrize("batch", [1, 4, 8, 64])
@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_shares_are_whole_batches_and_all_of_them(count: int, batch: int, processes: int) -> None:
    parts = [share(count, batch, Place(index, processes)) for index in range(processes)]
    assert [i for part in parts for i in part] == list(range(count))
    assert all(part.start % batch == 0 for part in parts if part)
    batches = [-(-len(part) // batch) for part in parts]
    assert max(batches) - min(batches) <= 1
    assert parts[0]


def _drawn(model: Path, out: Path, **asked: Any) -> list[str]:
    watcher = Silent()
    request = SampleRequest(model=str(model), out=str(out), steps=3, seed=7, **asked)
    assert sample(request, watcher) == 0
    return watcher.lines


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("count", "asked"),
    [
        (2, {"count": 33, "batch_size": 4, "label": "all", "guidance": 2.0, "film": True}),
        (3, {"count": 5, "batch_size": 4, "label": "1", "sampler": "ddpm", "film": True}),
    ],
)
def test_processes_together_draw_what_one_draws(
    tmp_path: Path, count: int, asked: dict[str, Any]
) -> None:
    tiny().save(tmp_path / "tiny")
    _drawn(tmp_path / "tiny", tmp_path / "one", **asked)

    def work(rank: int) -> None:
        # A process that wrote would write elsewhere, and be found out.
        out = tmp_path / ("many" if rank == 0 else f"rank-{rank}")
        print("\n".join(_drawn(tmp_path / "tiny", out, **asked)))

    group = Group(tmp_path / "g", work, count)
    assert group.end() == [0] * count
    one, many = _files(tmp_path / "one"), _files(tmp_path / "many")
    assert len(one) == asked["count"] + 2
    assert one == many
    assert not list(tmp_path.glob("rank-*"))
    too_few = "5 samples are 2 batches of 4, too few for 3 processes; give --batch-size 2 or less"
    assert (too_few in group.said(0)) == (count == 3)


def test_a_batch_cut_in_two_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the comparison above: at another batch shape the numbers differ."""
    model = tiny()
    whole = model.sample(6, steps=3, batch_size=6, label=1).tensor
    cut = model.sample(6, steps=3, batch_size=3, label=1).tensor
    assert not (whole == cut).all()
    assert (whole == model.sample(6, steps=3, batch_size=6, label=1).tensor).all()


def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    tiny().save(tmp_path / "tiny")
    group = Group(
        tmp_path / "g", lambda rank: print(_drawn(tmp_path / "tiny", tmp_path / "o", label="9"))
    )
    assert group.end() == [2, 2]
    assert "UsageError" in group.said(0) and "(quiet)" not in group.said(0)
    assert "(quiet)" in group.said(1)


def test_alone_a_mistake_is_the_models_own(tmp_path: Path) -> None:
    arguments = {"count": 2, "label": "unheard of", "seed": 0, "batch_size": None}
    with pytest.raises(UsageError, match="unheard of"):
        shares.draw(tiny(), arguments, False, Ranks(0, 1, None), Silent())
