"""A whole model in one file: opened, written, and taken back and forth without a bit changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from interop import latent_pipelines as tiny
from safetensors.torch import load_file, save_file

import fromnoise as fn
from fromnoise import nets
from fromnoise.codecs import KL
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.meta import without_memory
from fromnoise.core.tensorheader import TensorHeader
from fromnoise.encoders import CLIPText
from fromnoise.interop import (
    clip_keys,
    clip_single,
    compvis_autoencoder,
    compvis_unet,
    diffusers_folder,
    hub,
    single_file,
)
from fromnoise.interop.conversion import Choice, Report, open_source, write_target

slow = pytest.mark.slow
NO_SHAPE = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "inpaint": "Stable Diffusion 1 inpainting",
    "depth": "Stable Diffusion 1 depth",
    "upscale": "Stable Diffusion x4 upscaler",
    "sdxl": "Stable Diffusion XL",
    "refiner": "Stable Diffusion XL refiner",
}


def converted(source: Path, out: Path, to: str) -> Report:
    """What `fromnoise convert SOURCE OUT --to TO` does."""
    report = Report(str(source), to=to, out=str(out))
    opened = open_source(source, Choice(), report)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_target(opened, to, out, report)
    return report


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Of a file, or of all files of a folder; a text model's names with `text_model.`."""
    if path.is_file():
        return load_file(path)
    found = {}
    for file in sorted(path.rglob("*.safetensors")):
        part = file.relative_to(path).parts[0]
        for name, value in load_file(file).items():
            bare = part.startswith("text_encoder") and not name.startswith("text_")
            found[f"{part}/{'text_model.' * bare}{name}"] = value
    return {name: value for name, value in found.items() if not name.startswith("depth_estimator")}


def same(a: Path, b: Path) -> bool:
    """Whether all tensors are the same in names, types and bits."""
    one, other = tensors(a), tensors(b)
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def single(root: Path, family: str, **more: Any) -> tuple[Any, Path, Path]:
    """A pipeline, its folder, and the file it was converted to, its vocabulary beside it."""
    pipeline, folder = tiny.saved(root, family, wide=True, **more)
    path = root / "one" / "model.safetensors"
    converted(folder, path, "single-file")
    shutil.copytree(next(folder.glob("tokenizer*")), path.parent / "tokenizer")
    return pipeline, folder, path


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    return single(tmp_path_factory.mktemp("single"), "sd1", plan=tiny.scheduler("pndm"))


def drawn(model: fn.Model, **asked: Any) -> torch.Tensor:
    """At the smallest size, from the same noise."""
    sides = [model.codec.factor * 8] * 2
    return tiny.ours(
        model, prompt="a cat", start=tiny.noise(), steps=3, shape=(3, *sides), **asked
    )[0]


def test_a_file_draws_as_its_folder_does(sd1: tuple[Any, Path, Path]) -> None:
    """With the sampler and the grid a plain Stable Diffusion 1 was published with."""
    _, folder, path = sd1
    one, whole = fn.load(path), fn.load(folder)
    assert one.card.family == "Stable Diffusion 1" and one.defaults == whole.defaults
    assert one.shape == (3, 128, 128)
    assert torch.equal(drawn(one), drawn(whole))
    assert one.fingerprint == whole.fingerprint


def test_back_and_forth_without_a_bit_changed(sd1: tuple[Any, Path, Path], tmp_path: Path) -> None:
    _, folder, path = sd1
    assert path.read_bytes()[:1] != b"\x80"
    report = converted(path, tmp_path / "folder", "diffusers")
    assert report.placed == len(load_file(path)) and not report.ignored
    converted(tmp_path / "folder", tmp_path / "two.safetensors", "single-file")
    assert same(folder, tmp_path / "folder") and same(path, tmp_path / "two.safetensors")


@slow
def test_types_are_kept_and_what_is_not_used_is_named(
    sd1: tuple[Any, Path, Path], tmp_path: Path
) -> None:
    """A file of half the size, with a running average and constants in it."""
    _, folder, path = sd1
    half = {name: value.half() for name, value in load_file(path).items()}
    extra = {"alphas_cumprod": torch.ones(3), "model_ema.decay": torch.ones(1)}
    shutil.copytree(path.parent / "tokenizer", tmp_path / "tokenizer")
    save_file(half | extra, tmp_path / "half.safetensors")
    report = converted(tmp_path / "half.safetensors", tmp_path / "folder", "diffusers")
    assert sorted(report.ignored) == sorted(extra)
    found, whole = tensors(tmp_path / "folder"), tensors(folder)
    assert found.keys() == whole.keys()
    assert all(value.dtype == torch.float16 for value in found.values())
    assert all(torch.equal(found[name], whole[name].half()) for name in found)
    # Opened to be run, they are float32.
    model = fn.load(tmp_path / "half.safetensors")
    assert {p.dtype for p in model.denoiser.parameters()} == {torch.float32}


@slow
def test_diffusers_opens_what_is_written(sd1: tuple[Any, Path, Path], tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline, folder, path = sd1
    converted(path, tmp_path / "folder", "diffusers")
    read = StableDiffusionPipeline.from_pretrained(tmp_path / "folder")
    one = StableDiffusionPipeline.from_single_file(
        str(path), config=str(folder), local_files_only=True
    )
    assert (
        dict(read.scheduler.config).items()
        >= {k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")}.items()
    )
    for part in ("unet", "vae", "text_encoder"):
        wanted = getattr(pipeline, part).state_dict()
        for found in (getattr(read, part).state_dict(), getattr(one, part).state_dict()):
            assert all(torch.equal(found[name], value) for name, value in wanted.items())
    ids = pipeline.tokenizer("a cat", padding="max_length").input_ids
    assert read.tokenizer("a cat", padding="max_length").input_ids == ids


@slow
@pytest.mark.parametrize("family", list(NO_SHAPE))
def test_every_family(family: str, tmp_path: Path) -> None:
    """Told by names and shapes alone; a YAML beside it says what they do not."""
    plan = tiny.scheduler("euler" if family in ("sdxl", "refiner") else "ddim")
    if family in ("sd2", "upscale"):
        plan = tiny.scheduler("ddim", **tiny.V)
    pipeline, folder, path = single(tmp_path, family, plan=plan)
    betas = "linear_start: 0.00085, linear_end: 0.012"
    path.with_suffix(".yaml").write_text(f"model: {{params: {{{betas}}}}}")
    one, whole = fn.load(path), fn.load(folder)
    assert one.card.family == NO_SHAPE[family]
    inputs: dict[str, Any] = {}
    if family == "depth":
        inputs = {"depth": torch.rand(9, 9)}
    elif family == "upscale":
        inputs = {
            "low_res": {"picture": tiny.picture(8)[0], "level": 0, "noise": torch.zeros(3, 8, 8)}
        }
        # Of the noise in the small picture the folder has another schedule: none is added here.
        one.conditioning.encoders["low_res"].kept = whole.conditioning.encoders["low_res"].kept
    asked = {"inputs": inputs, "sampler": "ddim", "grid": "trailing"}
    assert torch.equal(drawn(one, **asked), drawn(whole, **asked))
    converted(path, tmp_path / "folder", "diffusers")
    converted(tmp_path / "folder", tmp_path / "two.safetensors", "single-file")
    assert same(folder, tmp_path / "folder") and same(path, tmp_path / "two.safetensors")
    if family == "depth":
        return
    read = type(pipeline).from_pretrained(tmp_path / "folder")
    single_file = type(pipeline).from_single_file(
        str(path), config=str(folder), local_files_only=True
    )
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            for found in (getattr(read, part), getattr(single_file, part)):
                state = found.state_dict()
                assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())


@slow
def test_what_a_yaml_says(tmp_path: Path) -> None:
    """A plain Stable Diffusion 2 is taken for the 768 of v; a YAML says it is the base model."""
    _, _, path = single(tmp_path, "sd2")
    assert fn.load(path).denoiser.parameterization.config["kind"] == "v"  # type: ignore[attr-defined]
    assert fn.load(path).shape == (3, 192, 192)
    path.with_suffix(".yaml").write_text("model: {params: {parameterization: eps}}")
    model = fn.load(path)
    assert model.denoiser.parameterization.config["kind"] == "eps"  # type: ignore[attr-defined]
    assert model.shape == (3, 128, 128)
    for said in ("model: {params: {parameterization: w}}", "- 1", "model: {params: {x: *y}}"):
        path.with_suffix(".yaml").write_text(said)
        with pytest.raises(FileError, match="parameterization|no configuration"):
            fn.load(path)


@slow
def test_the_last_layer_that_is_not_used(tmp_path: Path) -> None:
    """Stable Diffusion 2 has one more layer in one file than in a folder; both read the same."""
    from transformers import CLIPTextModel

    words = tiny.tokenizer(tmp_path / "words", pad="!")
    tower = tiny.text(CLIPTextModel, hidden_act="gelu", num_hidden_layers=24, wide=True)
    pipeline = tiny.sd2(tmp_path, wide=True)
    pipeline.register_modules(text_encoder=tower, tokenizer=words)
    pipeline.save_pretrained(tmp_path / "all")
    converted(tmp_path / "all", tmp_path / "x.safetensors", "single-file")
    # As Stability writes it: 24 layers, and nothing that says they are all used.
    path = tmp_path / "plain" / "x.safetensors"
    path.parent.mkdir()
    save_file(load_file(tmp_path / "x.safetensors"), path)
    shutil.copytree(tmp_path / "words", path.parent / "tokenizer")
    model = fn.load(path)
    assert model.conditioning.encoders["prompt"].skip == 1
    report = converted(path, tmp_path / "folder", "diffusers")
    assert any("the last 1 of 24 layers" in note for note in report.notes)
    whole = fn.load(tmp_path / "folder")
    assert torch.equal(drawn(model), drawn(whole))
    converted(tmp_path / "folder", tmp_path / "b" / "x.safetensors", "single-file")
    shutil.copytree(tmp_path / "words", tmp_path / "b" / "tokenizer")
    assert torch.equal(drawn(fn.load(tmp_path / "b" / "x.safetensors")), drawn(model))


def test_where_the_vocabulary_is_looked_for(
    sd1: tuple[Any, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "alone.safetensors"
    shutil.copy(sd1[2], path)
    monkeypatch.setattr(hub, "held", lambda name: None)
    with pytest.raises(FileError, match="vocab.json and merges.txt, or tokenizer.json, beside it"):
        fn.load(path)
    words = sd1[2].parent / "tokenizer"
    monkeypatch.setattr(hub, "held", lambda name: words if name.startswith("openai/") else None)
    assert fn.load(path).tokens("a cat") == {"prompt": (4,)}


UNET, VAE = "model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.encoder.conv_in.w"
TOLD = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([VAE], "holds an autoencoder alone; give it to a model with --vae"),
        (["encoder.conv_in.weight"], "holds an autoencoder alone"),
        ([UNET, TOLD, VAE], "holds a U-Net and no text encoder"),
        ([UNET], "holds a U-Net and no autoencoder"),
        (["input_blocks.0.0.weight"], "holds a U-Net alone"),
        (["down_blocks.0.x"], "holds a U-Net of diffusers alone; give the folder"),
        (["lora_unet_down"], "holds a LoRA"),
        (["cond_stage_model.x"], "holds a text encoder alone"),
        (["net.enter.weight"], "give the folder that holds it"),
        (["x"], "is no whole model"),
    ],
)
def test_what_is_no_whole_model(names: list[str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "part.safetensors"
    save_file({name: torch.zeros(4, 4, 3, 3) for name in names}, path)
    with pytest.raises(FileError, match=message) as caught:
        fn.load(path)
    assert "\n" not in str(caught.value)


def test_a_pickle_and_a_file_cut_short(sd1: tuple[Any, Path, Path], tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    with pytest.raises(FileError, match="fromnoise convert --from-pickle"):
        fn.load(tmp_path / "model.ckpt")
    data = sd1[2].read_bytes()
    for count in (100, len(data) - 1000):
        (tmp_path / "cut.safetensors").write_bytes(data[:count])
        with pytest.raises(FileError, match="cut short"):
            fn.load(tmp_path / "cut.safetensors")


def test_what_has_no_single_file(tmp_path: Path) -> None:
    from interop import foreign

    foreign.saved(tmp_path / "ddim", "DDIMPipeline", foreign.unet(), tiny.scheduler())
    with pytest.raises(UsageError, match="is no Stable Diffusion .*, nor latent diffusion"):
        converted(tmp_path / "ddim", tmp_path / "x.safetensors", "single-file")
    assert not (tmp_path / "x.safetensors").exists()


_CHILD = """
import sys
import torch
import fromnoise as fn
from fromnoise.interop import loading, pipelines, single_file
from fromnoise.model.files import modules
def most():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
fn.load(sys.argv[1])
before = most()
model = fn.load(sys.argv[2])
state = modules(model).state_dict().values()
print(most() - before, sum(value.numel() * value.element_size() for value in state))
"""


@slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account")
@pytest.mark.parametrize("one", [False, True])
def test_the_most_memory_that_loading_takes(one: bool, tmp_path: Path) -> None:
    """Of a model of 300 MB: its weights, and 15 % besides."""
    _, small, file = single(tmp_path / "small", "sd1")
    _, folder = tiny.saved(
        tmp_path / "large", "sd1", wide=True, block_out_channels=(320, 640), layers_per_block=4
    )
    source = folder
    if one:
        source = tmp_path / "large" / "one.safetensors"
        converted(folder, source, "single-file")
        shutil.copytree(file.parent / "tokenizer", source.parent / "tokenizer")
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(small), str(source)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    taken, weights = map(int, done.stdout.split())
    assert weights > 200e6
    assert taken < 1.15 * weights


_L, _H, _G = "vit-l/14", "vit-h/14", "vit-bigg/14"
PUBLISHED: dict[str, tuple[tuple[str, ...], str, tuple[int, ...], list[tuple[int, int]]]] = {
    "sd1": ((_L,), "Stable Diffusion 1", (3, 512, 512), [(0, 12)]),
    "sd1-inpaint": ((_L,), "Stable Diffusion 1 inpainting", (3, 512, 512), [(0, 12)]),
    "sd2": ((_H,), "Stable Diffusion 2", (3, 768, 768), [(1, 16)]),
    "sd2-inpaint": ((_H,), "Stable Diffusion 2 inpainting", (3, 512, 512), [(1, 16)]),
    "sd2-depth": ((_H,), "Stable Diffusion 2 depth", (3, 512, 512), [(1, 16)]),
    "sd-x4": ((_H,), "Stable Diffusion x4 upscaler", (3, 512, 512), [(1, 16)]),
    "sdxl": ((_L, _G), "Stable Diffusion XL", (3, 1024, 1024), [(1, 12), (1, 20)]),
    "sdxl-refiner": ((_G,), "Stable Diffusion XL refiner", (3, 1024, 1024), [(1, 20)]),
}
"""Networks → towers beside them, family, shape, and of each tower the layers left out and heads."""


@pytest.mark.parametrize(
    "name", [one if one in ("sd1", "sd2") else pytest.param(one, marks=slow) for one in PUBLISHED]
)
def test_published_sizes_are_told_by_shapes_alone(
    name: str, sd1: tuple[Any, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole models in their own sizes: the header of a file, and no weights."""
    towers, family, shape, wanted = PUBLISHED[name]
    one = {_L: clip_single.SD1, _H: clip_single.SD2, _G: clip_single.REFINER}[towers[0]]
    places = clip_single.XL if len(towers) == 2 else (one,)
    with without_memory():
        net = nets.build(name, device="meta")
        codec = KL(widths=(128, 256, 512)) if name == "sd-x4" else KL()
        texts = [CLIPText(t, pooled=place.pooled) for t, place in zip(towers, places, strict=True)]
    assert isinstance(net, nets.UNet)
    state = compvis_unet.unet_to_compvis(net.state_dict(), net)
    state |= compvis_autoencoder.autoencoder_to_compvis(codec.state_dict(), codec)
    for text, place in zip(texts, places, strict=True):
        ours = place.program == "transformers"
        write = clip_keys.to_transformers if ours else clip_keys.to_openai
        named = write(text.tower.state_dict(), text.tower)
        state |= {place.prefix + key: value for key, value in named.items()}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    header = TensorHeader(shapes, dict.fromkeys(shapes, "F16"), {}, dict.fromkeys(shapes, 0))
    for module in (single_file, diffusers_folder):
        monkeypatch.setattr(module, "read_header", lambda path: header)
    with diffusers_folder.shapes_only():
        model = single_file.open_single(sd1[2])
    assert (model.card.family, model.shape) == (family, shape)
    assert model.denoiser.net.config["attention"] == net.config["attention"]
    for ours_, theirs in ((model.denoiser.net, net), (model.codec, codec)):
        assert sum(p.numel() for p in ours_.parameters()) == sum(
            p.numel() for p in theirs.parameters()
        )
    read = [part for part in model.conditioning.modules() if isinstance(part, CLIPText)]
    assert [(one.skip, one.tower.settings.heads) for one in read] == wanted
