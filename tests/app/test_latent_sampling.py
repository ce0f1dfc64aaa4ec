"""Images, second passes, clip skip and other autoencoders from the command line, and back again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from interop.foreign import filled
from model.tiny import tiny
from model.tiny_latent import tiny_latent
from PIL import Image
from safetensors.torch import save_file

import fromnoise as fn
from fromnoise.app import sample as verb
from fromnoise.cli.main import run
from fromnoise.core.images import read_png_text
from fromnoise.interop import compvis_autoencoder as compvis
from fromnoise.interop.autoencoder import open_autoencoder

ASKED = ["a (cat:1.2)", "--negative", "dog", "--steps", "6", "--sampler", "dpm++2m"]
ASKED += ["--grid", "karras", "--guidance", "7", "--seed", "3"]
VAE = {
    "block_out_channels": (8, 8, 16),
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_latent(folder).save(folder / "latent")
    tiny().save(folder / "pixels")
    other = filled(AutoencoderKL(**VAE))
    other.save_pretrained(folder / "vae")
    filled(AutoencoderKL(**{**VAE, "latent_channels": 3})).save_pretrained(folder / "narrow")
    filled(
        AutoencoderKL(
            **{
                **VAE,
                "block_out_channels": (8, 16),
                "down_block_types": ["DownEncoderBlock2D"] * 2,
                "up_block_types": ["UpDecoderBlock2D"] * 2,
            }
        )
    ).save_pretrained(folder / "shallow")
    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((96, 64)).save(folder / "photo.png")
    return folder


def drawn(out: Path) -> tuple[np.ndarray, dict[str, object], str]:
    """A picture, what its recipe holds of the draw, and the text of the web UI."""
    texts = read_png_text(out)
    with Image.open(out) as picture:
        return np.asarray(picture), json.loads(texts["fromnoise"]), texts["parameters"]


def test_every_flag_reaches_the_picture_and_comes_back(models: Path, tmp_path: Path) -> None:
    more = ["--width", "48", "--height", "32", "--hires", "1.5", "--hires-strength", "0.5"]
    more += [
        "--hires-steps",
        "4",
        "--clip-skip",
        "2",
        "--half",
        "--preview",
        "2",
        "--film",
        "-n",
        "2",
    ]
    out = tmp_path / "out"
    assert run(["sample", str(models / "latent"), *ASKED, *more, "--out", str(out)]) == 0
    pixels, recipe, parameters = drawn(out / "000004.png")
    model = fn.load(models / "latent")
    expected = model.sample(
        2, prompt="a (cat:1.2)", negative="dog", steps=6, sampler="dpm++2m", grid="karras",
        guidance=7.0, seed=3, shape=(3, 32, 48), hires=fn.Hires(1.5, 0.5, 4), clip_skip=2,
        dtype="bfloat16",
    )  # fmt: skip
    assert np.array_equal(pixels, np.asarray(expected[1])) and pixels.shape == (48, 72, 3)
    draw = recipe["draw"]
    assert draw["clip_skip"] == 2 and draw["dtype"] == "bfloat16" and draw["steps"] == 6
    assert draw["hires"] == {"scale": 1.5, "strength": 0.5, "steps": 4, "upscaler": "bicubic"}
    for part in ("Size: 48x32", "Denoising strength: 0.5", "Clip skip: 2", "Hires upscale: 1.5"):
        assert part in parameters
    assert "Hires steps: 4" in parameters and "Hires upscaler: Bicubic" in parameters
    for name in ("preview.png", "film.png", "sheet.png"):
        with Image.open(out / name) as picture:
            picture.verify()
    assert run(["sample", "--replay", str(out / "000004.png"), "--out", str(tmp_path)]) == 0


def test_an_image_is_begun_from_and_found_again(models: Path, tmp_path: Path) -> None:
    photo, out = str(models / "photo.png"), tmp_path / "out"
    more = ["--image", photo, "--strength", "0.5", "-n", "2"]
    assert run(["sample", str(models / "latent"), *ASKED, *more, "--out", str(out)]) == 0
    pixels, recipe, parameters = drawn(out / "000004.png")
    # The area of 32×32 at the aspect 3:2, in steps of 8.
    assert pixels.shape == (24, 40, 3) and recipe["draw"]["shape"] == [3, 24, 40]
    assert recipe["draw"]["image"] == photo and recipe["draw"]["strength"] == 0.5
    assert "Denoising strength: 0.5" in parameters and "Hires" not in parameters
    replay = ["sample", "--replay", str(out / "000004.png"), "--out", str(tmp_path)]
    assert run(replay) == 0


def test_a_changed_image_is_told_of(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.png"
    Image.new("RGB", (32, 32), "red").save(mine)
    more = ["--image", str(mine), "-n", "1", "--out", str(tmp_path)]
    assert run(["sample", str(models / "latent"), *ASKED, *more]) == 0
    Image.new("RGB", (32, 32), "blue").save(mine)
    assert run(["sample", "--replay", str(tmp_path / "000003.png"), "--out", str(tmp_path)]) == 1
    assert f"{mine} is not the one it was drawn with" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "pipeline", "file", "compvis", "whole", "model"])
def test_another_autoencoder_decodes(kind: str, tmp_path: Path) -> None:
    """However it is kept. A file does not say its groups, which are 32 in all published ones."""
    options = {**VAE, "block_out_channels": (32, 32, 64), "norm_num_groups": 32}
    other = filled(AutoencoderKL(**options)).eval()
    source = tmp_path / "pipeline" / "vae" if kind == "pipeline" else tmp_path / "vae"
    other.save_pretrained(source)
    codec = open_autoencoder(source)
    theirs = compvis.autoencoder_to_compvis(codec.state_dict(), codec)
    states = {
        "file": dict(other.state_dict()),
        "compvis": {name.removeprefix(compvis.PREFIX): value for name, value in theirs.items()},
        "whole": {**theirs, "model.diffusion_model.weight": torch.zeros(3)},
    }
    if kind in states:
        source = tmp_path / f"{kind}.safetensors"
        save_file({name: value.clone() for name, value in states[kind].items()}, source)
    if kind == "model":
        model = tiny_latent(tmp_path)
        model.codec = codec
        model.save(source := tmp_path / "both")
    if kind == "pipeline":
        source = source.parent
    latents = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = other.decode(latents / 0.18215).sample
        assert torch.allclose(open_autoencoder(source).decode(latents), expected, atol=1e-4)


def test_the_picture_says_which_autoencoder(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vae = str(models / "vae")
    more = ["--vae", vae, "-n", "1", "--out", str(tmp_path)]
    assert run(["sample", str(models / "latent"), *ASKED, *more]) == 0
    pixels, recipe, parameters = drawn(tmp_path / "000003.png")
    assert recipe["model"]["vae"] == vae and ", VAE: vae," in parameters
    assert recipe["model"]["vae_fingerprint"][:10] in parameters
    replay = ["sample", "--replay", str(tmp_path / "000003.png"), "--out", str(tmp_path)]
    assert run(replay) == 0
    assert (
        run(["sample", str(models / "latent"), *ASKED, "-n", "1", "--out", str(tmp_path / "o")])
        == 0
    )
    assert not np.array_equal(drawn(tmp_path / "o" / "000003.png")[0], pixels)


@pytest.mark.parametrize(
    ("model", "asked", "message"),
    [
        ("latent", ["--width", "50"], "width 50 is not a multiple of 8"),
        ("latent", ["--height", "4"], "the nearest is 8"),
        ("latent", ["--strength", "0.5"], "give an image"),
        ("latent", ["--strength", "1.5"], "strength: input should be less than or equal to 1"),
        ("latent", ["--image", "no-such.png"], "no-such.png"),
        ("latent", ["--image", "notes.txt"], "notes.txt"),
        ("latent", ["--image", "photo.png", "--strength", "0.01"], "use 0.167 or more"),
        ("latent", ["--hires-strength", "0.5"], "--hires-strength is of a second pass"),
        ("latent", ["--hires-upscaler", "latent"], "--hires-upscaler is of a second pass"),
        ("latent", ["--hires", "1"], "hires: input should be greater than 1"),
        ("latent", ["--hires", "1.1"], "no larger in steps of 8; use 1.25 or more"),
        ("latent", ["--hires-upscaler", "magic", "--hires", "2"], "magic"),
        ("latent", ["--exact", "--half"], "leave out one"),
        ("latent", ["--clip-skip", "4"], "from 1, the last, to 3, the first"),
        ("latent", ["--clip-skip", "0"], "clip_skip: input should be greater than or equal to 1"),
        ("latent", ["--vae", "no-such"], "no-such"),
        ("latent", ["--vae", "pixels"], "pixels draws pixels and has no autoencoder"),
        ("latent", ["--vae", "narrow"], "makes latents of shape (3, 8, 8)"),
        ("latent", ["--vae", "shallow"], "makes latents of shape (4, 16, 16)"),
        ("latent", ["--vae", "notes.txt"], "notes.txt"),
        ("latent", ["--preview", "0"], "preview: input should be greater than or equal to 1"),
        ("pixels", ["--clip-skip", "2"], "clip skip is of CLIP text encoders"),
        ("pixels", ["--vae", "vae"], "draws pixels, so --vae has no place"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    model: str,
    asked: list[str],
    message: str,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(models)
    (models / "notes.txt").write_text("no picture, and no weights either")
    told = ["a", "--steps", "6"] if model == "latent" else ["--label", "1", "--steps", "6"]
    assert run(["sample", model, *told, *asked, "--out", "drawn"]) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (models / "drawn").exists()


def test_cells_of_a_grid_differ_in_them(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    asked = ["--across", "strength=0.3,0.9", "--down", "clip-skip=1,2", "--steps", "5"]
    asked += ["--image", str(models / "photo.png"), "--vae", str(models / "vae")]
    assert run(["grid", str(models / "latent"), "a cat", *asked, "--out", str(out)]) == 0
    told = json.loads(out.with_suffix(".json").read_text())
    draws = [cell["samples"][0]["draw"] for cell in told["cells"]]
    found = {(draw["strength"], draw["clip_skip"]) for draw in draws}
    assert found == {(0.3, 1), (0.9, 1), (0.3, 2), (0.9, 2)}
    assert told["model"]["vae"] == str(models / "vae")


def test_previews_are_whole_at_any_time(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there after each step opens; it changes while the run goes on."""
    seen: list[bytes] = []
    real = verb.Preview.__call__

    def looked(self: verb.Preview, step: fn.Step) -> None:
        real(self, step)
        path = tmp_path / "preview.png"
        if path.exists():
            with Image.open(path) as picture:
                picture.load()
            seen.append(path.read_bytes())

    monkeypatch.setattr(verb.Preview, "__call__", looked)
    asked = ["a cat", "--steps", "9", "--preview", "3", "-n", "1", "--out", str(tmp_path)]
    assert run(["sample", str(models / "latent"), *asked]) == 0
    # After steps 3 and 6; the ninth is the picture itself.
    assert len(seen) == 7 and len(set(seen)) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000.png", "preview.png", "sheet.png"]
