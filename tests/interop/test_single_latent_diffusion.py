"""The first latent diffusion in one file: told a text that BERT reads, or nothing at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from interop import latent_pipelines as tiny
from interop.test_single_file import converted, same, tensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import fromnoise as fn
from fromnoise import nets
from fromnoise.cli.main import run
from fromnoise.codecs import CODECS, KL
from fromnoise.codecs.presets import build as codec_named
from fromnoise.codecs.vq import VQ
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.meta import without_memory
from fromnoise.core.tensorheader import TensorHeader
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import ENCODERS
from fromnoise.interop import (
    compvis_autoencoder,
    compvis_unet,
    diffusers_folder,
    hub,
    ldm_bert_keys,
    single_file,
)
from fromnoise.interop.single_file_export import export_single
from fromnoise.model import Defaults
from fromnoise.parameterizations import PARAMETERIZATIONS

slow = pytest.mark.slow
KINDS = ("ldm-text", "ldm")
NAMES = {"ldm-text": "latent diffusion, text", "ldm": "latent diffusion"}
# The published betas of what is behind a codebook.
CODEBOOK = {"beta_start": 0.0015, "beta_end": 0.0195}
BARE = {"norm": "group_norm", "proj_out": "to_out.0"}
Made = dict[str, tuple[Any, Path, Path]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Pipelines, their folders, and the files they were converted to, a vocabulary beside them."""
    found: Made = {}
    for kind in KINDS:
        root = tmp_path_factory.mktemp(kind)
        plan = tiny.scheduler("ddim", **(CODEBOOK if kind == "ldm" else {}))
        pipeline, folder = tiny.saved(root, kind, plan, wide=True)
        path = root / "one" / "model.safetensors"
        report = converted(folder, path, "single-file")
        assert [note for note in report.notes if "vocabulary" not in note] == []
        if kind == "ldm-text":
            (path.parent / "tokenizer").mkdir()
            shutil.copy(root / "words" / "vocab.txt", path.parent / "tokenizer")
        found[kind] = (pipeline, folder, path)
    return found


def drawn(model: fn.Model, **asked: Any) -> Tensor:
    told = {"prompt": "a red cat", "guidance": 4.0} if model.conditioning.names else {}
    channels = model.denoiser.net.in_channels
    sides = [model.codec.factor * 8] * 2
    start = tiny.noise(channels=channels)
    return tiny.ours(model, start=start, steps=3, shape=(3, *sides), **told | asked)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_draws_as_its_folder_does(kind: str, made: Made) -> None:
    """With the schedule, sampler and grid of those that were published."""
    _, folder, path = made[kind]
    one, whole = fn.load(path), fn.load(folder)
    assert one.card.family == whole.card.family == NAMES[kind]
    assert one.defaults == whole.defaults
    assert one.denoiser.process.config == whole.denoiser.process.config
    assert one.conditioning.names == whole.conditioning.names
    assert one.shape == ((3, 256, 256) if kind == "ldm-text" else (3, 128, 128))
    assert torch.equal(drawn(one), drawn(whole))
    assert one.fingerprint == whole.fingerprint
    if kind == "ldm-text":
        assert not torch.equal(drawn(one, prompt="a dog"), drawn(whole))


@pytest.mark.parametrize("kind", KINDS)
def test_back_and_forth_without_a_bit_changed(kind: str, made: Made, tmp_path: Path) -> None:
    """The map to logits, which nothing reads, too; half stays half."""
    _, folder, path = made[kind]
    logits = "cond_stage_model.transformer.to_logits.weight"
    assert (logits in tensors(path)) == (kind == "ldm-text")
    half = {name: value.half() for name, value in load_file(path).items()}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(half, tmp_path / "half.safetensors", metadata)
    for file in path.parent.glob("tokenizer"):
        shutil.copytree(file, tmp_path / "tokenizer")
    for source in (path, tmp_path / "half.safetensors"):
        out = tmp_path / source.stem
        report = converted(source, out / "folder", "diffusers")
        assert report.placed == len(half) and not report.ignored and not report.notes
        converted(out / "folder", out / "two.safetensors", "single-file")
        assert same(source, out / "two.safetensors")
    assert same(folder, tmp_path / "model" / "folder")
    found = tensors(tmp_path / "half" / "folder")
    assert {value.dtype for value in found.values()} == {torch.float16}
    # Opened to be run, nothing that is not read is held.
    encoders = fn.load(path).conditioning.encoders
    assert all(encoder.logits is None for encoder in encoders.values())


def bert_as_published(file: dict[str, Tensor], config: Any) -> LDMBertModel:
    """Weights put where the published conversion of such files puts them, layer by layer."""
    bert = LDMBertModel(config)
    start = "cond_stage_model.transformer."

    def put(module: torch.nn.Module, name: str) -> None:
        state = {kind: file[f"{start}{name}.{kind}"] for kind in module.state_dict()}
        module.load_state_dict(state)

    put(bert.model.embed_tokens, "token_emb")
    put(bert.model.embed_positions, "pos_emb.emb")
    put(bert.model.layer_norm, "norm")
    put(bert.to_logits, "to_logits")
    for i, layer in enumerate(bert.model.layers):
        attends, thinks = (f"attn_layers.layers.{2 * i + j}" for j in range(2))
        put(layer.self_attn_layer_norm, f"{attends}.0")
        for part, there in (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v")):
            put(getattr(layer.self_attn, part), f"{attends}.1.{there}")
        put(layer.self_attn.out_proj, f"{attends}.1.to_out")
        put(layer.final_layer_norm, f"{thinks}.0")
        put(layer.fc1, f"{thinks}.1.net.0.0")
        put(layer.fc2, f"{thinks}.1.net.2")
    return bert.eval()


def agree(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_conversion_of_diffusers_gives_the_same_text_model(made: Made) -> None:
    pipeline, _, path = made["ldm-text"]
    file = load_file(path)
    agree(convert_ldm_unet_checkpoint(file, pipeline.unet.config), pipeline.unet.state_dict())
    agree(convert_ldm_vae_checkpoint(file, pipeline.vqvae.config), pipeline.vqvae.state_dict())
    bert = bert_as_published(file, pipeline.bert.config)
    agree(dict(bert.state_dict()), pipeline.bert.state_dict())
    ids = torch.tensor([[2, 5, 7, 6, 3]])
    with torch.no_grad():
        assert torch.equal(bert(ids)[0], pipeline.bert(ids)[0])


def test_the_conversion_of_diffusers_gives_the_same_plain_model(made: Made) -> None:
    """It knows the U-Net's names but for bare attention, where the published code has query, key
    and value of each head in turn (QKVAttentionLegacy)."""
    pipeline, _, path = made["ldm"]
    file = load_file(path)
    found, inside = convert_ldm_unet_checkpoint(file, pipeline.unet.config), {}
    width = pipeline.unet.config.attention_head_dim
    for name in [one for one in found if ".attentions." in one]:
        value = found.pop(name)
        place, part, kind = name.rsplit(".", 2)
        # Convolutions of width 1 there, linear maps here.
        value = value.flatten(1) if part != "norm" and kind == "weight" else value
        if part == "qkv":
            heads = value.reshape(-1, 3, width, *value.shape[1:]).unbind(1)
            for letter, each in zip("qkv", heads, strict=True):
                inside[f"{place}.to_{letter}.{kind}"] = each.flatten(0, 1)
        else:
            inside[f"{place}.{BARE[part]}.{kind}"] = value
    agree(found | inside, pipeline.unet.state_dict())
    codec = convert_ldm_vae_checkpoint(file, dict(pipeline.vqvae.config))
    codec |= {"quantize.embedding.weight": file["first_stage_model.quantize.embedding.weight"]}
    agree(codec, pipeline.vqvae.state_dict())


@slow
def test_diffusers_opens_what_is_written(made: Made, tmp_path: Path) -> None:
    from diffusers import LDMPipeline, LDMTextToImagePipeline

    for kind, opens in (("ldm-text", LDMTextToImagePipeline), ("ldm", LDMPipeline)):
        pipeline, _, path = made[kind]
        converted(path, tmp_path / kind, "diffusers")
        read = opens.from_pretrained(tmp_path / kind)
        for part, module in pipeline.components.items():
            if isinstance(module, torch.nn.Module):
                agree(getattr(read, part).state_dict(), module.state_dict())
        asked = {k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")}
        assert dict(read.scheduler.config).items() >= asked.items()


PUBLISHED: dict[str, tuple[str, int | None, tuple[float, float]]] = {
    "ldm-celebahq": ("vq-f4", None, (0.0015, 0.0195)),
    "ldm-text2img-256": ("vq-f4", 640, (0.0015, 0.0195)),
    "ldm-text2img": ("kl-f8", 1280, (0.00085, 0.012)),
}
"""Networks → the codec, the width of the text encoder, the betas of what is opened."""


@pytest.mark.parametrize(
    "name", [one if one == "ldm-celebahq" else pytest.param(one, marks=slow) for one in PUBLISHED]
)
def test_published_sizes_are_told_by_shapes_alone(
    name: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole models in their own sizes: the header of a file, and no weights."""
    coded, width, betas = PUBLISHED[name]
    with without_memory():
        net, codec = nets.build(name, device="meta"), codec_named(coded, device="meta")
        bert = (
            None
            if width is None
            else ENCODERS.build({"kind": "ldm_bert", "width": width, "hidden": 4 * width})
        )
    assert isinstance(net, nets.UNet) and isinstance(codec, KL | VQ)
    state = compvis_unet.unet_to_compvis(net.state_dict(), net)
    state |= compvis_autoencoder.autoencoder_to_compvis(codec.state_dict(), codec)
    if bert is not None:
        state |= ldm_bert_keys.to_theirs(bert.state_dict(), bert, "compvis")
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    header = TensorHeader(shapes, dict.fromkeys(shapes, "F32"), {}, dict.fromkeys(shapes, 0))
    for module in (single_file, diffusers_folder):
        monkeypatch.setattr(module, "read_header", lambda path: header)
    with diffusers_folder.shapes_only():
        model = single_file.open_single(made["ldm-text"][2])
    assert model.shape == (3, 256, 256) and model.denoiser.net.config == net.config
    assert model.codec.config["scaling"] == (0.18215 if coded == "kl-f8" else 1.0)
    schedule = model.denoiser.process.config["schedule"]
    assert (schedule["beta_start"], schedule["beta_end"]) == betas
    if bert is not None:
        # Its 32 layers and 8 heads, as published.
        read = model.conditioning.encoders["prompt"]
        assert read.config == bert.config and read.config["depth"] == 32


def test_what_a_file_does_not_say_a_yaml_does(made: Made, tmp_path: Path) -> None:
    """Heads, without the metadata of files written here; betas; the scale of latents."""
    path = tmp_path / "bare.safetensors"
    save_file(load_file(made["ldm"][2]), path)
    with pytest.raises(FileError, match="how many heads .*num_head_channels: 32"):
        fn.load(path)
    whole, told = fn.load(made["ldm"][1]).denoiser.net, (tiny.noise(channels=3), torch.ones(1))
    said = "linear_end: 0.0205, scale_factor: 0.5, unet_config: {params: {%s}}"
    for heads, wanted in (("num_heads: -1, num_head_channels: 8", True), ("num_heads: 1", False)):
        path.with_suffix(".yaml").write_text(f"model: {{params: {{{said % heads}}}}}")
        model = fn.load(path)
        assert model.codec.config["scaling"] == 0.5
        assert model.denoiser.process.config["schedule"]["beta_end"] == 0.0205
        with torch.no_grad():
            assert torch.equal(model.denoiser.net(*told), whole(*told)) == wanted
    for fault in ("num_heads: 0", "num_head_channels: wide"):
        path.with_suffix(".yaml").write_text(f"model: {{params: {{{said % fault}}}}}")
        with pytest.raises(FileError, match=fault.partition(":")[0]):
            fn.load(path)


def test_what_cannot_be_said_is_noted(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made["ldm"][1], tmp_path / "folder")
    tiny.edit(folder / "vqvae" / "config.json", scaling_factor=0.25)
    tiny.edit(folder / "unet" / "config.json", norm_eps=1e-3)
    tiny.edit(folder / "scheduler" / "scheduler_config.json", beta_end=0.012)
    notes = converted(folder, tmp_path / "x.safetensors", "single-file").notes
    assert len(notes) == 3
    for start in ("its network has norms", "the scale of its latents is 0.25", "its schedule is"):
        assert any(note.startswith(start) for note in notes)


Spoil = Callable[[Path], list[str]]


def _cut(path: Path) -> list[str]:
    path.write_bytes(path.read_bytes()[:-1000])
    return []


def _without(*starts: str) -> Spoil:
    def spoil(path: Path) -> list[str]:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        kept = {k: v for k, v in load_file(path).items() if not k.startswith(starts)}
        save_file(kept, path, metadata)
        return []

    return spoil


def _other_reader(path: Path) -> list[str]:
    """A class as one token, as latent diffusion of ImageNet has it."""
    _without("cond_stage_model.")(path)
    save_file(load_file(path) | {"cond_stage_model.embedding.weight": torch.ones(9, 64)}, path)
    return []


def _other_words(path: Path) -> list[str]:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(60))]
    (path.parent / "tokenizer" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return []


def _no_words(path: Path) -> list[str]:
    shutil.rmtree(path.parent / "tokenizer")
    return []


def _inpaint(path: Path) -> list[str]:
    return ["--input", "inpaint=x.png"]


BAD: list[tuple[str, Spoil, str]] = [
    ("ldm", _cut, "model.safetensors is cut short"),
    ("ldm", _without("first_stage_model."), "holds a U-Net and no autoencoder"),
    ("ldm", _without("first_stage_model.decoder."), "holds no autoencoder: it lacks decoder"),
    ("ldm", _inpaint, "not told an inpaint"),
    ("ldm-text", _inpaint, "is not told an inpaint; it takes prompt"),
    ("ldm-text", _cut, "model.safetensors is cut short"),
    ("ldm-text", _without("cond_stage_model."), "holds a U-Net and no text encoder"),
    ("ldm-text", _without("cond_stage_model.transformer.attn"), "no BERT of latent diffusion"),
    ("ldm-text", _without("cond_stage_model.transformer.norm"), "lacks cond_stage_model.trans"),
    ("ldm-text", _other_reader, "told tokens of width 64 and no text encoder that is known"),
    ("ldm-text", _other_words, "model.safetensors: a vocabulary with ids up to 63 for a tower"),
    ("ldm-text", _no_words, "put vocab.txt, or tokenizer.json, beside it"),
]


QUICK = (0, 1, 4, 7, 11)


@pytest.mark.parametrize(
    ("kind", "spoil", "says"),
    [pytest.param(*bad, marks=() if i in QUICK else slow) for i, bad in enumerate(BAD)],
)
def test_bad_input_on_the_command_line(
    kind: str,
    spoil: Spoil,
    says: str,
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One line that says what is wrong, and nothing is left behind."""
    monkeypatch.setattr(hub, "held", lambda name: None)
    folder = shutil.copytree(made[kind][2].parent, tmp_path / "one")
    more = spoil(folder / "model.safetensors")
    prompt = ["a cat"] if kind == "ldm-text" else []
    line = ["sample", str(folder / "model.safetensors"), *prompt, "-n", "1", *more]
    assert run([*line, "--out", str(tmp_path / "out")]) == 2
    err = capfd.readouterr().err
    assert says in err and "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@slow
def test_a_pickle_is_not_opened(
    made: Made, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its weights are taken out as data, and then it draws as the file it was made of."""
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": load_file(made["ldm"][2]), "global_step": 3}, path)
    assert run(["sample", str(path), "-n", "1", "--out", str(tmp_path / "out")]) == 2
    assert "fromnoise convert --from-pickle" in capfd.readouterr().err
    taken = tmp_path / "model.safetensors"
    assert run(["convert", "--from-pickle", str(path), str(taken)]) == 0
    heads = "model: {params: {unet_config: {params: {num_head_channels: 8}}}}"
    taken.with_suffix(".yaml").write_text(heads)
    assert torch.equal(drawn(fn.load(taken)), drawn(fn.load(made["ldm"][2])))


@slow
def test_it_is_described_as_a_model(made: Made, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in KINDS:
        assert run(["models", "info", str(made[kind][2]), "--quick", "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["family"] == NAMES[kind]


def test_a_model_trained_here_is_written_with_what_it_does_not_say(tmp_path: Path) -> None:
    """Or not at all, where other programs have no number for the scale of its latents."""
    out = tmp_path / "own.safetensors"
    with pytest.raises(UsageError, match="have a scale measured for each channel"):
        export_single(_own("measured", "adm"), out, {})
    assert not out.exists()
    model = _own(0.18215, "adm")
    assert export_single(model, out, {}) == []
    assert torch.equal(drawn(fn.load(out)), drawn(model))
    notes = export_single(_own(0.18215, "ddpm"), tmp_path / "two.safetensors", {})
    assert notes == ["its network has norms or features of time that such a file does not say"]


def _own(scaling: float | str, time: str) -> fn.Model:
    """A U-Net over KL's latents, told nothing, on the published betas."""
    sizes = {"in_channels": 4, "channels": 32, "multipliers": [1, 2], "blocks": 1}
    net = nets.build({"kind": "unet", **sizes, "attention": {"at": [2]}, "time": time})
    codec = CODECS.build({"kind": "kl", "widths": [32, 64], "blocks": 1, "scaling": scaling})
    reading = PARAMETERIZATIONS.build({"kind": "eps", "clock": "index", "clock_scale": 1000.0})
    return fn.Model(
        NetworkDenoiser(net.eval(), fn.schedules.scaled_linear(), reading),
        (3, 16, 16),
        codec.eval(),
        fn.encoders.Conditioning({}),
        Defaults(sampler="ddim", grid="leading", grid_options={"end": 1 / 1000, "offset": 1}),
    )
