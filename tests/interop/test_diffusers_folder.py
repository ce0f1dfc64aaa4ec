"""Folders of diffusers, opened: the same pictures on the same noise, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from interop import foreign
from safetensors.torch import load_file, save_file

import fromnoise as fn
from fromnoise.core.errors import FileError
from fromnoise.core.randomness import FixedNoise
from fromnoise.interop.diffusers_export import export_diffusers
from fromnoise.interop.diffusers_folder import weights
from fromnoise.samplers import last

TOLERANCE = 2e-5
V = {"prediction_type": "v_prediction"}
X0 = {"prediction_type": "sample"}


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def ddim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small DDIM pipeline on disk."""
    folder = tmp_path_factory.mktemp("ddim")
    foreign.saved(folder, "DDIMPipeline", foreign.unet(), diffusers.DDIMScheduler(**V))
    return folder


@pytest.fixture
def folder(ddim: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(ddim, tmp_path / "model")


DDIM = [
    V,
    V | {"set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False},
    V | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    V | {"trained_betas": torch.linspace(1e-3, 0.3, 100).tolist(), "num_train_timesteps": 100},
]
MORE = [
    V | {"clip_sample": False},
    X0 | {"timestep_spacing": "trailing"},
    V | {"beta_schedule": "squaredcos_cap_v2"},
    V | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
]


@pytest.mark.parametrize(
    "options",
    [*DDIM, *(pytest.param(options, marks=pytest.mark.slow) for options in MORE)],
    ids=lambda o: "-".join(map(str, o))[:60],
)
def test_a_ddim_pipeline_draws_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(**options)
    pipeline = foreign.saved(tmp_path, "DDIMPipeline", foreign.unet(), scheduler)
    x = foreign.start()
    expected = foreign.walked(scheduler, pipeline.unet, x, 10)
    drawn = fn.load(tmp_path).sample(2, start=x, steps=10, dtype="float32").tensor
    assert expected.std() > 0.3
    assert (drawn - expected).abs().max() < TOLERANCE


def test_the_whole_of_a_ddim_pipeline(ddim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own call, with our start in the place of its first noise."""
    pipeline = diffusers.DDIMPipeline.from_pretrained(ddim)
    x = foreign.start(1)
    monkeypatch.setattr("diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *a, **k: x)
    pictures = pipeline(output_type="np").images
    drawn = fn.load(ddim).sample(1, start=x, dtype="float32")
    expected = torch.from_numpy(pictures[0]).permute(2, 0, 1) * 2 - 1
    assert (drawn.tensor[0] - expected).abs().max() < TOLERANCE
    assert drawn[0].size == (8, 8)


@pytest.mark.parametrize("options", [V, V | {"variance_type": "fixed_large"}, X0])
def test_a_ddpm_pipeline_draws_the_same(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = diffusers.DDPMScheduler(**options)
    network = foreign.unet()
    foreign.saved(tmp_path, "DDPMPipeline", network, scheduler)
    model = fn.load(tmp_path)
    assert model.defaults.steps == 1000 and model.defaults.clip == 1.0
    draws = list(torch.randn(11, 2, 3, 8, 8, generator=torch.Generator().manual_seed(2)))
    prepared = iter(draws[1:])
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: next(prepared)
    )
    expected = foreign.walked(scheduler, network, draws[0], 10)
    grid = fn.grids.leading(model.denoiser.process.schedule, 10)
    clipped = fn.guidance.Clipped(model.denoiser)
    sampler = fn.samplers.get(model.defaults.sampler)
    steps = fn.sample(clipped, sampler, grid, draws[0], noise=FixedNoise(draws[1:]))
    assert (last(steps).clamp(-1, 1) - expected).abs().max() < TOLERANCE


def test_clipping_is_what_makes_it_the_same(tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(**V)
    network = foreign.unet()
    foreign.saved(tmp_path, "DDIMPipeline", network, scheduler)
    edit(tmp_path / "scheduler" / "scheduler_config.json", clip_sample=False)
    x = foreign.start()
    drawn = fn.load(tmp_path).sample(2, start=x, steps=10, dtype="float32").tensor
    assert (drawn - foreign.walked(scheduler, network, x, 10)).abs().max() > 1e-2


def test_a_learned_variance_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", **V)
    network = foreign.unet(out_channels=6)
    # A random answer would be a variance far from between the two it chooses from.
    network.conv_out.weight.data[3:] *= 0.1
    network.conv_out.bias.data[3:] *= 0.1
    foreign.saved(tmp_path, "DDPMPipeline", network, scheduler)
    model = fn.load(tmp_path)
    assert model.denoiser.learned_variance and model.defaults.sampler == "ddpm_learned"
    draws = list(torch.randn(6, 2, 3, 8, 8, generator=torch.Generator().manual_seed(2)))
    prepared = iter(draws[1:])
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: next(prepared)
    )
    expected = foreign.walked(scheduler, network, draws[0], 5)
    grid = fn.grids.leading(model.denoiser.process.schedule, 5)
    sampler, clipped = fn.samplers.get("ddpm_learned"), fn.guidance.Clipped(model.denoiser)
    steps = fn.sample(clipped, sampler, grid, draws[0], noise=FixedNoise(draws[1:]))
    assert (last(steps).clamp(-1, 1) - expected).abs().max() < TOLERANCE


VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "sample_size": 8,
}


def test_a_dit_pipeline_draws_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own call, guidance, null class, learned variance and decoder included."""
    pipeline = diffusers.DiTPipeline(
        transformer=foreign.dit(),
        vae=foreign.filled(diffusers.AutoencoderKL(**VAE)),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    edit(
        tmp_path / "model_index.json", id2label={"0": "tench, Tinca tinca", "1": "tench", "2": "x"}
    )
    x = foreign.start(2, 4, 4)
    monkeypatch.setattr("diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda *a, **k: x)
    pictures = pipeline([3, 7], num_inference_steps=10, output_type="np").images
    expected = torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1
    model = fn.load(tmp_path)
    assert model.shape == (3, 8, 8) and model.defaults.guidance == 4.0
    assert model.card.classes[:4] == ["tench", "tench (1)", "x", "3"]
    drawn = model.sample(2, label=[3, 7], start=x, steps=10, dtype="float32").tensor
    assert expected.std() > 0.3
    assert (drawn - expected).abs().max() < TOLERANCE
    export_diffusers(model, tmp_path / "out")
    again = diffusers.DiTPipeline.from_pretrained(tmp_path / "out")
    again.set_progress_bar_config(disable=True)
    images = again([3, 7], num_inference_steps=10, output_type="np").images
    assert abs(images - pictures).max() < TOLERANCE
    for part in ("transformer", "vae"):
        written, first = (weights(place / part) for place in (tmp_path / "out", tmp_path))
        assert written.keys() == first.keys()
        assert all(torch.equal(written[name], first[name]) for name in first)


def test_an_autoencoder_that_is_not_read(tmp_path: Path) -> None:
    pipeline = diffusers.DiTPipeline(
        transformer=foreign.dit(),
        vae=diffusers.AutoencoderKL(**VAE),
        scheduler=diffusers.DDIMScheduler(),
    )
    pipeline.save_pretrained(tmp_path)
    config = tmp_path / "vae" / "config.json"
    for changes, message in (
        ({"latents_mean": [0.0] * 4}, "latents_mean"),
        ({"latent_channels": 8}, "shape"),
        ({"_class_name": "VQModel"}, "VQModel is not read; AutoencoderKL is"),
    ):
        before = config.read_text()
        edit(config, **changes)
        with pytest.raises(FileError, match=message):
            fn.load(tmp_path)
        config.write_text(before)


def test_one_network_alone_opens(tmp_path: Path) -> None:
    network = foreign.unet(sample_size=(8, 16), num_class_embeds=3)
    network.save_pretrained(tmp_path)
    model = fn.load(tmp_path)
    assert model.shape == (3, 8, 16) and model.card.classes == ["0", "1", "2"]
    assert model.defaults.sampler == "ddpm"
    assert model.sample(1, label=2, steps=2)[0].size == (16, 8)
    diffusers.DDIMScheduler(**V).save_pretrained(tmp_path)
    assert fn.load(tmp_path).defaults.sampler == "ddim"


def test_a_pipeline_all_in_one_folder(ddim: Path, tmp_path: Path) -> None:
    """As the first pipelines were published."""
    for path in ddim.rglob("*.*"):
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    x = foreign.start(1)
    drawn = [fn.load(place).sample(1, start=x, steps=2).tensor for place in (ddim, tmp_path)]
    assert torch.equal(*drawn)


def test_old_names_and_half_precision_are_read(folder: Path) -> None:
    """Files of before diffusers 0.15; a variant in half precision is taken where it is alone."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    old = {
        name.replace("to_out.0", "proj_attn")
        .replace("to_q", "query")
        .replace("to_k", "key")
        .replace("to_v", "value"): value.half()
        for name, value in state.items()
    }
    save_file(old, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    path.unlink()
    net = fn.load(folder).denoiser.net
    assert all(value.dtype == torch.float32 for value in net.parameters())
    assert torch.equal(net.enter.weight, state["conv_in.weight"].half().float())


def test_sharded_weights_are_read(ddim: Path, tmp_path: Path) -> None:
    network = diffusers.UNet2DModel.from_pretrained(ddim / "unet")
    network.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*-of-*.safetensors"))) > 2
    whole = weights(ddim / "unet")
    parts = weights(tmp_path)
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/x.safetensors", "a.bin", "a\\b"])
def test_a_shard_stays_beside_its_index(name: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "outside.safetensors")
    inside = tmp_path / "in"
    inside.mkdir()
    index = {"metadata": {}, "weight_map": {"a": name}}
    (inside / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileError, match="no safetensors file beside it"):
        weights(inside)


def test_pickles_are_refused_with_the_way_out(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(FileError, match="--from-pickle"):
        fn.load(folder)


NETWORK = [
    ({"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel is not read"),
    ({"act_fn": "mish"}, "act_fn.*'mish'"),
    ({"time_embedding_type": "fourier"}, "time_embedding_type.*'fourier'"),
    ({"flip_sin_to_cos": False}, "flip_sin_to_cos"),
    ({"mid_block_scale_factor": 1.41}, r"mid_block_scale_factor.*1\.41"),
    ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "SkipDownBlock2D"),
    ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, "different levels"),
    ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups"),
    ({"class_embed_type": "timestep"}, "class_embed_type.*'timestep'"),
    ({"out_channels": 4}, "out_channels 4"),
    ({"sample_size": None}, "sample_size"),
    ({"new_option": "on"}, "new_option"),
    ({"norm_num_groups": 3}, "3 norm groups"),
    ({"layers_per_block": 2}, "weights are of another|is missing"),
]


@pytest.mark.parametrize(("changes", "message"), NETWORK)
def test_an_option_that_is_not_ours_is_named(
    changes: dict[str, Any], message: str, folder: Path
) -> None:
    assert fn.load(folder)
    edit(folder / "unet" / "config.json", **changes)
    with pytest.raises(FileError, match=message):
        fn.load(folder)


def test_an_option_that_is_off_may_be_unknown(folder: Path) -> None:
    edit(folder / "unet" / "config.json", new_option=None, other_option=False, _note="x")
    assert fn.load(folder)


def test_a_pipeline_that_is_not_read_is_named(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="StableAudioPipeline")
    with pytest.raises(FileError, match="StableAudioPipeline is not read; these are: DDPMPipeline"):
        fn.load(folder)


def test_nothing_of_ours_or_theirs(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no model or run"):
        fn.load(tmp_path)


def test_what_was_opened_saves_as_ours(ddim: Path, tmp_path: Path) -> None:
    model = fn.load(ddim)
    model.save(tmp_path / "native")
    again = fn.load(tmp_path / "native")
    assert again.fingerprint == model.fingerprint and again.defaults == model.defaults
    x = foreign.start(1)
    drawn = [m.sample(1, start=x, steps=3).tensor for m in (model, again)]
    assert torch.equal(*drawn)
