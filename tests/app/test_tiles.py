"""Tiles and previews from the command line: recorded, repeated, agreed on between processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model.tiny import tiny
from model.tiny_latent import tiny_latent
from PIL import Image
from training.group import Group

import fromnoise as fn
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import SampleRequest
from fromnoise.app.sample import sample
from fromnoise.cli.main import run
from fromnoise.codecs import KL
from fromnoise.core.images import read_png_text
from fromnoise.model import tiles
from fromnoise.model.memory import decoding

ASKED = ["a cat", "--steps", "3", "--width", "96", "--height", "128", "-n", "1", "--seed", "4"]
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_latent(folder).save(folder / "latent")
    tiny().save(folder / "pixels")
    return folder


def drawn(folder: Path, name: str = "000004.png") -> tuple[np.ndarray, dict[str, object]]:
    with Image.open(folder / name) as picture:
        told = json.loads(read_png_text(folder / name)["fromnoise"])
        return np.asarray(picture), told["draw"]


def short(model: Path) -> int:
    """Free memory in which a picture of 96×128 is decoded in tiles of 24 latents."""
    opened = fn.load(model)
    half = decoding(opened.codec, (4, 24, 24), torch.float32) + opened.ahead(torch.float32)
    return int(half / tiles.ROOM) + 9


def test_what_was_chosen_is_said_and_repeated(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    latent, amount = str(models / "latent"), short(models / "latent")
    assert run(["sample", latent, *ASKED, "--out", str(tmp_path / "whole")]) == 0
    assert "tiles" not in capfd.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr(tiles, "free_on", lambda _: amount)
        assert run(["sample", latent, *ASKED, "--film", "--out", str(tmp_path / "chosen")]) == 0
    assert "in tiles of 24 latents" in " ".join(capfd.readouterr().err.split())
    asked = [*ASKED, "--tile", "24", "--out", str(tmp_path / "asked")]
    assert run(["sample", latent, *asked]) == 0
    assert "tiles" not in capfd.readouterr().err
    pictures = {name: drawn(tmp_path / name) for name in ("whole", "chosen", "asked")}
    assert [pictures[name][1]["tile"] for name in pictures] == [0, 24, 24]
    assert np.array_equal(pictures["chosen"][0], pictures["asked"][0])
    assert not np.array_equal(pictures["chosen"][0], pictures["whole"][0])
    # Again bit for bit, each as it was, with memory enough and with too little.
    for amount in (None, 1):
        monkeypatch.setattr(tiles, "free_on", lambda _, amount=amount: amount)
        for name in pictures:
            path = str(tmp_path / name / "000004.png")
            assert run(["sample", "--replay", path, "--out", str(tmp_path / "again")]) == 0


def test_a_picture_of_before_was_never_cut(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fromnoise.app import provenance

    assert run(["sample", str(models / "latent"), *ASKED, "--out", str(tmp_path)]) == 0
    told = json.loads(read_png_text(tmp_path / "000004.png")["fromnoise"])
    del told["draw"]["tile"]
    assert provenance.PictureRecipe(**told).draw.tile == 0


@pytest.mark.parametrize(
    ("model", "tile", "message"),
    [
        ("latent", "7", "tile 7 is no number of latents from 8"),
        ("latent", "-1", "tile: input should be greater than or equal to 0"),
        ("pixels", "16", "draws pixels, so there is nothing to decode in tiles"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    models: Path, tmp_path: Path, model: str, tile: str, message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    told = ["a"] if model == "latent" else ["--label", "1"]
    out = tmp_path / "out"
    asked = ["sample", str(models / model), *told, "--tile", tile, "--out", str(out)]
    assert run(asked) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1 and not out.exists()


def test_a_data_set_is_cut_only_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that one gone on with another day is the same."""
    from fromnoise.app import dataset

    seen: list[object] = []
    model = tiny()
    monkeypatch.setattr(model, "stream", lambda **told: seen.append(told["tile"]))
    for tile in (None, 0, 16):
        request = SampleRequest(model="x", as_dataset="x", tile=tile)
        job = dataset.Job(request, model, _Source(), None, None, None, 2, lambda _: model)
        dataset._stream(job, [dataset.Wanted(seed=1)])
    assert seen == [0, 0, 16]


class _Source:
    def arguments(self, wanted: object) -> dict[str, object]:
        return {}


def test_a_look_costs_the_decoder_nothing_after_the_first(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures are the same bytes; latents are decoded for the line, the looks, the end."""
    calls: list[int] = []
    real = KL.decode

    def decode(self: KL, z: torch.Tensor) -> torch.Tensor:
        calls.append(len(z))
        return real(self, z)

    monkeypatch.setattr(KL, "decode", decode)
    latent = str(models / "latent")
    folders = [tmp_path / "without", tmp_path / "with"]
    assert run(["sample", latent, *ASKED, "--out", str(folders[0])]) == 0
    monkeypatch.setattr("fromnoise.model.previews.SHARE", 0.0)
    calls.clear()
    assert run(["sample", latent, *ASKED, "--preview", "1", "--out", str(folders[1])]) == 0
    # Four of 16×16 for the line, one at the end; nothing for the two looks.
    assert len(calls) == 5
    without, looked = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders
    )
    assert looked.pop("preview.png") and looked == without


def test_processes_cut_alike(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of them sees too little memory, all cut; the pictures are those of one process."""
    amount = 2 * short(models / "latent")
    asked = {"prompt": "a cat", "steps": 2, "count": 2, "batch_size": 1, "width": 96}
    asked |= {"model": str(models / "latent"), "height": 128}

    def work(rank: int) -> None:
        tiles.free_on = lambda _: 10**12 if rank == 0 else amount
        out = tmp_path / ("many" if rank == 0 else f"rank-{rank}")
        assert sample(SampleRequest(out=str(out), **asked), Silent()) == 0

    group = Group(tmp_path / "g", work)
    assert group.end() == [0, 0], group.said(0) + group.said(1)
    assert sample(SampleRequest(out=str(tmp_path / "one"), tile=24, **asked), Silent()) == 0
    for name in ("000000.png", "000001.png"):
        one, many = (drawn(tmp_path / folder, name) for folder in ("one", "many"))
        assert np.array_equal(one[0], many[0]) and many[1]["tile"] == 24


@pytest.mark.parametrize("whose", [(0, 1), (1,)])
@pytest.mark.parametrize("part", ["decoder", "network"])
def test_out_of_memory_is_said_once(
    models: Path, tmp_path: Path, whose: tuple[int, ...], part: str
) -> None:
    asked = {"prompt": "a cat", "steps": 2, "count": 2, "batch_size": 1}

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(NO_MEMORY)

    def work(rank: int) -> None:
        if rank in whose and part == "decoder":
            KL.decode = fails
        if rank in whose and part == "network":
            fn.Model.prepared = fails
        out = str(tmp_path / "out")
        sample(SampleRequest(model=str(models / "latent"), out=out, **asked), Silent())

    group = Group(tmp_path / "g", work)
    assert group.end() == [1, 1]
    said = group.said(0)
    assert "out of memory" in said and "(quiet)" not in said and "(quiet)" in group.said(1)
    assert ("process 1 of 2: " in said) == (0 not in whose)
    assert ("in the autoencoder" in said) == (part == "decoder")
    assert not list((tmp_path / "out").glob("*"))
