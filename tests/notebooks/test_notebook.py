"""In a notebook results show themselves, streams preview live, and an interrupt does no harm."""

import asyncio
import base64
import io
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from model.tiny import tiny
from nbclient import NotebookClient
from PIL import Image

from fromnoise.core.errors import UsageError
from fromnoise.core.images import png_bytes
from fromnoise.model import sheet

OPEN = "import time\nimport torch\nimport fromnoise as fn\nmodel = fn.load('tiny')"
SAMPLE = "model.sample(4, label=1, seed=7)"
LIVE = "for step in model.stream(4, label=1, seed=7, steps=5).live(every=2): print(step.index)"
BARE = "model.stream(4, label=1, seed=7)"
KEEP = "before = model.sample(2, label=1, sampler='euler_a', seed=7).tensor"
SLOW = """
for step in model.stream(2, label=1, sampler='euler_a', seed=7, steps=200).live():
    time.sleep(0.05)
"""
AGAIN = """
after = model.sample(2, label=1, sampler='euler_a', seed=7).tensor
other = model.sample(2, label=1, sampler='euler_a', seed=8).tensor
torch.equal(before, after), torch.equal(before, other), step.index < 199
"""


class Watched(NotebookClient):
    """A client that keeps every picture each cell shows, also those that others replace."""

    def __init__(self, *arguments: Any, **given: Any) -> None:
        super().__init__(*arguments, **given)
        self.shown: dict[int, list[tuple[str, str]]] = {}

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        png = msg["content"].get("data", {}).get("image/png")
        if png is not None:
            self.shown.setdefault(cell_index, []).append((msg["msg_type"], png))
        return super().process_message(msg, cell, cell_index)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    tiny().save(tmp_path / "tiny")
    return tmp_path


def client(here: Path, *cells: str) -> Watched:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    made = Watched(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(here)}}
    )
    # Loopback only, whatever a configuration elsewhere may say.
    made.create_kernel_manager().ip = "127.0.0.1"
    return made


def picture(png: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


@pytest.mark.slow
def test_results_show_themselves_and_streams_preview_live(here: Path) -> None:
    run = client(here, OPEN, SAMPLE, LIVE, BARE)
    run.execute()
    opened, sampled, streamed, bare = run.nb.cells
    assert opened.outputs == []

    (result,) = sampled.outputs
    assert result.output_type == "execute_result"
    sheet = np.asarray(tiny().sample(4, label=1, seed=7).sheet())
    assert np.array_equal(picture(result.data["image/png"]), sheet)

    # Steps 1, 3 and 5 of 5: one place on the page, changed twice.
    kinds, pngs = zip(*run.shown[2], strict=True)
    assert kinds == ("display_data", "update_display_data", "update_display_data")
    steps = list(tiny().stream(4, label=1, seed=7, steps=5))
    finals = [tiny().decode(steps[0].x0), tiny().decode(steps[2].x0), tiny().decode(steps[4].x)]
    for png, x in zip(pngs, finals, strict=True):
        middle = picture(png)[2 + 32 :: 66, 2 + 32 :: 66].reshape(-1) / 127.5 - 1
        # Each pixel is enlarged to 8 × 8: the middle of a picture is its pixel (4, 4).
        assert np.abs(middle - x[:, 0, 4, 4].numpy()).max() < 0.01
    texts = [o for o in streamed.outputs if o.output_type == "stream"]
    assert "".join(o.text for o in texts).split() == ["0", "1", "2", "3", "4"]
    (shown,) = (o for o in streamed.outputs if o.output_type == "display_data")
    assert shown.data["image/png"] == pngs[-1]
    assert shown.data["text/plain"].startswith("step 5 of 5")

    # A stream that ends a cell runs, and its last picture is the sheet of the samples.
    (shown,) = bare.outputs
    assert len(run.shown[3]) == 4
    assert np.array_equal(picture(shown.data["image/png"]), sheet)


@pytest.mark.slow
def test_an_interrupt_leaves_the_model_usable(here: Path) -> None:
    run = client(here, OPEN, KEEP, SLOW, AGAIN)

    async def interrupted() -> None:
        async with run.async_setup_kernel():
            for index, cell in enumerate(run.nb.cells):
                if index == 2:
                    cell.metadata["tags"] = ["raises-exception"]
                    waiting = asyncio.create_task(interrupt_when_shown(run))
                await run.async_execute_cell(cell, index)
            await waiting

    asyncio.run(interrupted())
    slow, again = run.nb.cells[2:]
    (error,) = (o for o in slow.outputs if o.output_type == "error")
    assert error.ename == "KeyboardInterrupt"
    assert 3 <= len(run.shown[2]) < 200
    assert again.outputs[0].data["text/plain"] == "(True, False, True)"


async def interrupt_when_shown(run: Watched) -> None:
    """Ctrl-C once a few previews have come: in the middle of the stream."""
    for _ in range(400):
        if len(run.shown.get(2, ())) >= 3:
            break
        await asyncio.sleep(0.05)
    await run.km.interrupt_kernel()


class Page:
    """IPython's `display`, keeping what it is given."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, content: dict[str, Any], raw: bool, display_id: bool) -> "Page":
        assert raw and display_id
        self.shown.append(("new", content))
        return self

    def update(self, content: dict[str, Any], raw: bool) -> None:
        assert raw
        self.shown.append(("in its place", content))


def test_a_live_stream_shows_its_beliefs_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a notebook is asked for; that it does so is the slow test's."""
    page = Page()
    monkeypatch.setattr("fromnoise.model.stream._display", lambda: page)
    model = tiny()
    steps = list(model.stream(4, label=1, seed=7, steps=5).live(every=2))
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    kinds, contents = zip(*page.shown, strict=True)
    assert kinds == ("new", "in its place", "in its place")
    assert [c["text/plain"].split(",")[0] for c in contents] == [
        "step 1 of 5", "step 3 of 5", "step 5 of 5",
    ]  # fmt: skip
    for content, x in zip(contents, (steps[0].x0, steps[2].x0, steps[4].x), strict=True):
        assert content["image/png"] == png_bytes(sheet(model.decode(x)))
    # The control: the last one is not the belief, nor another step's.
    assert len({content["image/png"] for content in contents}) == 3


def test_outside_a_notebook_there_are_only_the_steps(capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny()
    live = list(model.stream(2, label=1).live())
    plain = list(model.stream(2, label=1))
    assert [step.index for step in live] == [0, 1, 2, 3]
    assert all((a.x == b.x).all() for a, b in zip(live, plain, strict=True))
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UsageError, match="every 0"):
        model.stream(2).live(every=0)
