"""Tiles of the autoencoder: as asked, or chosen where memory is short; the recipe says which."""

from pathlib import Path

import pytest
import torch
from model.tiny import tiny
from model.tiny_latent import shaken, tiny_latent

import fromnoise as fn
from fromnoise import codecs
from fromnoise.codecs.tiling import Tiled, tiled
from fromnoise.core.errors import OutOfMemoryError, UsageError
from fromnoise.model import tiles
from fromnoise.model.memory import cut, decoding
from fromnoise.model.model import Model

LARGE = (3, 128, 128)
ASKED = {"prompt": "ab", "steps": 2, "guidance": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_latent(tmp_path_factory.mktemp("model"))


def free(monkeypatch: pytest.MonkeyPatch, amount: int | None) -> None:
    monkeypatch.setattr(tiles, "free_on", lambda _: amount)


def test_all_that_the_codec_does_is_done_in_tiles(tmp_path: Path) -> None:
    """A picture to begin from and both passes, against a model whose codec is in tiles itself."""
    model = tiny_latent(tmp_path)
    whole = model.codec
    image = torch.rand(3, 96, 72) * 2 - 1
    asked = {**ASKED, "image": image, "hires": fn.Hires(1.5, 0.5)}
    drawn = model.sample(1, **asked, tile=16)
    assert drawn.recipe["tile"] == 16 and model.card.speed["tile"] == 16
    model.codec = Tiled(whole, 16, 4)
    assert torch.equal(drawn.tensor, model.sample(1, **asked, tile=0).tensor)
    model.codec = whole
    # The control: in one piece it is another picture.
    assert not torch.equal(drawn.tensor, model.sample(1, **asked, tile=0).tensor)
    assert model.card.speed["tile"] == 0


def test_tiles_are_chosen_where_one_piece_would_not_fit(
    model: Model, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    latent = model.codec.latent_shape(LARGE)
    whole, half = (decoding(model.codec, shape, torch.float32) for shape in (latent, (4, 24, 24)))
    ahead = model.ahead(torch.float32)
    for room, tile in ((whole + 9, 0), (whole - 9, 24), (half - 9, 16), (0, 16)):
        free(monkeypatch, int((room + ahead) / tiles.ROOM) + 1)
        stream = model.stream(1, shape=LARGE, **ASKED)
        assert stream.recipe["tile"] == tile and bool(stream.notes) == bool(tile)
    free(monkeypatch, int((half + ahead) / tiles.ROOM) + 1)
    assert not recwarn.list
    chosen = model.sample(1, shape=LARGE, **ASKED)
    assert "in tiles of 24 latents" in str(recwarn.pop(UserWarning).message)
    assert torch.equal(chosen.tensor, model.sample(1, shape=LARGE, **ASKED, tile=24).tensor)
    # Never, where that is asked for; nor where the system does not say; nor is a small one cut.
    assert model.stream(1, shape=LARGE, **ASKED, tile=0).recipe["tile"] == 0
    assert model.stream(1, **ASKED).recipe["tile"] == 0
    free(monkeypatch, None)
    assert model.stream(1, shape=LARGE, **ASKED).recipe["tile"] == 0


def test_the_second_pass_is_what_has_to_fit(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    latent = model.codec.latent_shape((3, 64, 64))
    need = decoding(model.codec, latent, torch.float32) + model.ahead(torch.float32)
    free(monkeypatch, int(need / tiles.ROOM) + 9)
    small = {**ASKED, "shape": (3, 64, 64)}
    assert model.stream(1, **small).recipe["tile"] == 0
    assert model.stream(1, **small, hires=fn.Hires(2.0, 0.5)).recipe["tile"] == 16


def test_processes_share_what_is_free(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    latent = model.codec.latent_shape(LARGE)
    need = decoding(model.codec, latent, torch.float32) + model.ahead(torch.float32)
    free(monkeypatch, int(1.5 * need / tiles.ROOM))
    assert tiles.tiling(model, latent, torch.float32).tile == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert tiles.tiling(model, latent, torch.float32).tile == 24


@pytest.mark.parametrize("name", ["kl-f4", "kl-f8", "kl-f16", "vq-f4", "vq-f8", "vqgan-f16-1024"])
def test_what_costs_nothing_to_know_is_never_too_little(name: str) -> None:
    codec = codecs.build(name, device="meta")
    for side in (24, 40):
        latent = codec.latent_shape((3, side * codec.factor, 32 * codec.factor))
        exact = decoding(codec, latent, torch.float32)
        assert exact <= tiles._rough(codec, latent, torch.float32) < 6 * exact


def test_a_network_without_an_autoencoder_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1)
    pixels = tiny()
    assert pixels.sample(1, label=1, steps=2).recipe["tile"] == 0
    assert tiles.fitting(pixels.codec, (3, 512, 512), torch.float32, -1) == 0


@pytest.mark.parametrize(
    ("tile", "message"),
    [(1, "from 8"), (7, "from 8"), (-16, "from 8"), (True, "from 8"), (16.0, "from 8")],
)
def test_tiles_that_cannot_be_are_refused(model: Model, tile: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model.stream(1, **ASKED, tile=tile)


def test_pixels_have_no_tiles() -> None:
    with pytest.raises(UsageError, match="draws pixels"):
        tiny().stream(1, label=1, tile=16)
    assert tiny().stream(1, label=1, tile=0).recipe["tile"] == 0


def test_memory_that_runs_out_names_smaller_tiles(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"

    def fails(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(said)

    z = torch.zeros(1, 4, 40, 32)
    monkeypatch.setattr(model.codec, "decode", fails)
    for tile, hint in ((0, "--tile 32"), (32, "--tile 16"), (12, "--tile 8"), (8, "smaller pict")):
        with pytest.raises(OutOfMemoryError, match=hint):
            model.decode(z, tile=tile)
    # No larger than the picture: that would change nothing.
    with pytest.raises(OutOfMemoryError, match="--tile 16"):
        model.decode(z[..., :32, :])
    said = "another mistake"
    with pytest.raises(RuntimeError, match="another mistake"):
        model.decode(z)


def test_a_tile_overlaps_by_a_quarter() -> None:
    codec = shaken(codecs.KL(widths=(8, 8), groups=4, blocks=1, latent=2), 0)
    for tile in (8, 9, 16, 20, 31, 64):
        made = tiled(codec, tile)
        assert isinstance(made, Tiled) and made.tile == tile
        assert made.overlap == max(4, tile // 16 * 4)
    assert tiled(codec, 0) is codec
    assert cut((4, 40, 12), 16) == (4, 16, 12) and cut((4, 40, 12), 0) == (4, 40, 12)
