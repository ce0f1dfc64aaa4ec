"""Runs side by side: what the page shows is what the folders hold, live ones too."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from training import toy

from fromnoise.core.errors import FileError, UsageError
from fromnoise.training import compare, read_runs
from fromnoise.training.curves import chart, smoothed, thinned
from fromnoise.training.metrics import Metrics, read_metrics

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


class Reader(HTMLParser):
    """Collects table rows and what a page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        self._open = tag in ("td", "th")
        if self._open:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


def _run(folder: Path, **settings: Any) -> None:
    made = toy.run(folder, {**settings, "sample_every": 4}, name="<toy & co>")
    object.__setattr__(made.task, "preview", lambda: PICTURE)
    list(made.train())


def test_the_page_shows_settings_figures_curves_and_pictures(tmp_path: Path) -> None:
    _run(tmp_path / "a")
    _run(tmp_path / "b", learning_rate=0.05, seed=3)
    page = compare([tmp_path / "a", tmp_path / "b"])
    read = Reader(page)
    table = {row[0].split(" (")[0]: row[1:] for row in read.rows}
    assert table["train.learning_rate"] == ["0.01", "0.05"]
    assert table["train.seed"] == ["0", "3"]
    assert "train.batch_size" not in table
    assert table["recipe"] == ["<toy & co>"] * 2
    assert table["step"] == ["12 of 12"] * 2
    rows = read_runs([tmp_path / "a", tmp_path / "b"])
    assert float(table["loss"][0]) == pytest.approx(rows[0].metrics[-1]["loss"], rel=1e-4)
    assert float(table["lowest held-out loss"][1]) == pytest.approx(
        min(m["validation"] for m in rows[1].metrics if "validation" in m), rel=1e-4
    )
    assert [row[0] for row in read.rows if row[0] in ("4", "8", "12")] == ["4", "8", "12"]
    assert read.links == ["data:image/png;base64," + base64.b64encode(PICTURE).decode()] * 6
    assert len(re.findall("<svg", page)) == 4
    assert len(re.findall('<polyline data-of="1"', page)) == 5
    assert "<toy" not in page


def test_a_live_run_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    loop = toy.run(tmp_path / "live", {}).train()
    for _ in range(5):
        next(loop)
    with (tmp_path / "live" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    (row,) = read_runs([tmp_path / "live"])
    assert row.step == 5
    assert "step 5 of 12" in row.line()
    assert compare([tmp_path / "live"]).count("<polyline") == 5
    loop.close()


def test_a_run_that_goes_on_has_each_step_once(tmp_path: Path) -> None:
    for step, last in ((0, 5), (3, 6)):
        with Metrics(tmp_path, step, tensorboard=False) as metrics:
            for number in range(step + 1, last + 1):
                metrics.write({"step": number, "loss": float(10 * step + number)})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == [1, 2, 3, 34, 35, 36]


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="config"):
        compare([tmp_path])
    with pytest.raises(UsageError, match="at least one run"):
        compare([])


def test_curves_are_thinned_and_smoothed_without_bias() -> None:
    curve = [(step, 3.0 + step % 2) for step in range(1, 10_001)]
    few = thinned(curve, 100)
    assert len(few) == 100
    assert few[-1] == (10_000, pytest.approx(3.5))
    assert smoothed([(1, 2.0), (2, 2.0)]) == [(1, pytest.approx(2.0)), (2, pytest.approx(2.0))]
    assert chart([[]], ["#000"]) == ""


def test_higher_values_are_drawn_higher_and_later_ones_further_right() -> None:
    for values in ([1.0, 2.0, 3.0], [0.01, 1.0, 100.0]):
        drawn = chart([list(enumerate(values, start=1))], ["#000"])
        found = re.search('points="([^"]*)"', drawn)
        assert found is not None
        places = [tuple(map(float, p.split(","))) for p in found[1].split()]
        assert places[0][0] < places[1][0] < places[2][0]
        assert places[0][1] > places[1][1] > places[2][1]
        gaps = [places[0][1] - places[1][1], places[1][1] - places[2][1]]
        assert gaps[0] == pytest.approx(gaps[1], abs=0.2)
