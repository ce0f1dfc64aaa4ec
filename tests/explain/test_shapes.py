"""Shapes on the meta device are those of the real run, for every kind of model."""

import json
from pathlib import Path

import diffusers
import pytest
import torch
from interop import foreign
from model.tiny import tiny, tiny_text
from model.tiny_latent import tiny_latent

import fromnoise as fn
from fromnoise import codecs, encoders, nets, processes
from fromnoise.cli.main import run
from fromnoise.core.errors import FileError, ShapeError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.explain.shapes import model_shapes, network_shapes
from fromnoise.interop.skeleton import skeleton
from fromnoise.layers.attention import ReadMaps, hooked
from fromnoise.model import Model
from fromnoise.parameterizations import V


def dit() -> Model:
    net = nets.build(
        {
            "kind": "dit", "in_channels": 1, "size": 8, "width": 8, "depth": 2, "heads": 2,
            "accepts": {"vector": {"label": 3}},
        }
    )  # fmt: skip
    return Model(
        NetworkDenoiser(net, processes.Gaussian(fn.schedules.cosine()), V()),
        (1, 8, 8),
        codecs.Identity(),
        encoders.Conditioning({"label": encoders.Label(3)}),
    )


def points() -> Model:
    return Model(
        NetworkDenoiser(
            nets.build({"kind": "mlp", "width": 16, "depth": 2}),
            processes.Gaussian(fn.schedules.cosine()),
            V(),
        ),
        (2,),
        codecs.Identity(),
        encoders.Conditioning({}),
    )


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Model]:
    return {
        "pixels": tiny(),
        "text": tiny_text(),
        "latent": tiny_latent(tmp_path),
        "dit": dit(),
        "points": points(),
    }


@pytest.mark.parametrize("kind", ["pixels", "text", "latent", "dit", "points"])
def test_every_shape_is_that_of_the_real_run(kind: str, models: dict[str, Model]) -> None:
    model = models[kind]
    net = model.denoiser.net
    real: dict[str, list[tuple[int, ...]]] = {}
    handles = [
        part.register_forward_hook(
            lambda _, __, out, name=name: (
                real.setdefault(name, []).append(tuple(out.shape))
                if isinstance(out, torch.Tensor)
                else None
            )
        )
        for name, part in net.named_modules()
    ]
    latent = model.codec.latent_shape(model.shape)
    maps = ReadMaps()
    raw = {"prompt": "a cat"} if "prompt" in model.conditioning.names else {}
    with torch.no_grad(), hooked(maps):
        told = model.conditioning(raw, 1, latent[1:]) if model.conditioning.names else None
        maps.maps_at.clear()
        net(torch.randn(1, *latent), torch.zeros(1), told)
    for handle in handles:
        handle.remove()
    found = model_shapes(model)
    rows = [row for row in found.rows if row.part == "network"]
    parts = [row for row in rows if row.name in real]
    assert parts
    for row in parts:
        assert row.shape in real[row.name], row
    attention = [one for row in rows for one in row.attention for _ in range(row.times)]
    seen = [tuple(m.shape[1:]) for every in maps.maps_at.values() for m in every]
    assert sorted(one[1:] for one in attention) == sorted(seen)
    assert rows[0].shape == (1, *latent) and rows[-1].shape == real[""][-1]
    assert found.parameters["network"] == sum(p.numel() for p in net.parameters())
    # No weight was moved or changed, and no hook stays.
    assert not any(p.is_meta for p in net.parameters())
    assert not any(part._forward_hooks for part in net.modules())


def test_the_chain_from_prompt_to_picture(tmp_path: Path) -> None:
    found = model_shapes(tiny_latent(tmp_path), shape=(3, 64, 48))
    shapes = {(row.part, row.name): row.shape for row in found.rows}
    assert shapes["prompt", "token ids"] == (1, 77)
    assert shapes["prompt", "tokens"] == (1, 77, 16)
    assert shapes["picture", "x0"] == (1, 3, 64, 48)
    assert shapes["latents", "z"] == shapes["network", "x_t"] == (1, 4, 16, 12)
    assert shapes["sample", "picture"] == (1, 3, 64, 48)
    ups = [row for row in found.rows if row.name.startswith("up.") and row.skip]
    # What the way down left behind: 8 after the first convolution, 8, 8, 16.
    assert [row.skip for row in ups for _ in range(row.times)] == [16, 8, 8, 8]
    with pytest.raises(ShapeError, match="nearest are 56 and 64"):
        model_shapes(tiny_latent(tmp_path), shape=(3, 60, 48))


def test_published_networks_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    net = nets.build("adm-64", device="meta")
    rows = network_shapes(net, (3, 64, 64))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in net.parameters())
    assert run(["explain", "dit-s/2", "--shapes"]) == 0
    said = capfd.readouterr().out
    assert "self: 6 heads × 256 × 256" in said and "blocks.0 … 11" in said


def test_from_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny_latent(tmp_path)
    model.save(tmp_path / "model")
    assert run(["explain", str(tmp_path / "model"), "--shapes", "--json", "--width", "64"]) == 0
    told = json.loads(capfd.readouterr().out)
    expected = model_shapes(model, shape=(3, 32, 64)).plain()
    assert told["tensors"] == expected["tensors"] and told["parameters"] == expected["parameters"]
    assert run(["explain", str(tmp_path / "model")]) == 2
    assert "--shapes shows every tensor" in capfd.readouterr().err
    assert run(["explain", "no/such", "--shapes"]) == 2


def test_no_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of our models and of diffusers': the files' headers are enough."""
    tiny_latent(tmp_path).save(tmp_path / "ours")
    foreign.saved(tmp_path / "theirs", "DDIMPipeline", foreign.unet(), diffusers.DDIMScheduler())
    expected = {name: model_shapes(fn.load(tmp_path / name)) for name in ("ours", "theirs")}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    monkeypatch.setattr("fromnoise.interop.diffusers_folder.read_tensors", refuse)
    for name, shapes in expected.items():
        bare = skeleton(tmp_path / name)
        assert all(p.is_meta for p in bare.denoiser.net.parameters())
        assert model_shapes(bare) == shapes
        with pytest.raises(AssertionError, match="weights were read"):
            fn.load(tmp_path / name)
    with pytest.raises(FileError):
        skeleton(tmp_path / "nothing")
