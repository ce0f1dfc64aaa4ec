"""Published models: recognised by names and shapes, read as their authors' code reads them."""

import math
import re

import pytest
import torch
from nets.filling import filled

from fromnoise import nets
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.interop.conversion import assembled
from fromnoise.interop.foreign import compare, recognise, shapes, stripped
from fromnoise.interop.published import MODELS, Published, from_command_line, published
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES

QUICK = ["adm-64", "adm-classifier-512", "ncsn++", "dit-s/8", "ldm-celebahq"]
TWINS = {
    "adm-256-uncond": "adm-lsun-256",
    "ddpm++": "ddpm++-sub-vp",
    "ddpm++-deep": "ddpm++-deep-sub-vp",
}


@pytest.mark.parametrize(
    "name",
    [
        n if n in QUICK else pytest.param(n, marks=pytest.mark.slow)
        for n in MODELS
        if n not in {*TWINS, *TWINS.values()}
    ],
)
def test_a_published_model_is_known_by_its_names_and_shapes(name: str) -> None:
    assert recognise(shapes(published(name))).name == name


@pytest.mark.parametrize("name", ["ddpm++", pytest.param("adm-256-uncond", marks=pytest.mark.slow)])
def test_models_that_differ_in_no_shape_are_not_guessed(name: str) -> None:
    said = re.escape(f"{name} and {TWINS[name]}, which differ elsewhere; say which with --preset")
    with pytest.raises(UsageError, match=said):
        recognise(shapes(published(name)))


def test_every_difference_is_named() -> None:
    model = published("dit-s/8")
    found = shapes(model)
    assert compare(found, model).whole and compare(found, model).placed == len(found)
    found["stranger"] = (3,)
    del found["x_embedder.proj.bias"]
    found["pos_embed"] = (1, 1, 1)
    placement = compare(found, model)
    assert (placement.missing, placement.unplaced) == (["x_embedder.proj.bias"], ["stranger"])
    assert placement.misshapen == {"pos_embed": "(1, 1, 1) where (1, 16, 384) is needed"}
    assert len(placement.faults()) == 3 and placement.placed == len(found) - 2
    with pytest.raises(UsageError, match="of no published model"):
        recognise(found)


def test_prefixes_of_wrappers_are_taken_off_only_where_all_have_them() -> None:
    assert stripped({"module._orig_mod.a": 1, "module._orig_mod.b": 2}) == {"a": 1, "b": 2}
    assert stripped({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}
    assert stripped({}) == {}


def _denoiser(model: Published, net: nets.Network) -> NetworkDenoiser:
    assert model.diffusion is not None
    return NetworkDenoiser(
        net,
        PROCESSES.build(model.diffusion.process),
        PARAMETERIZATIONS.build(model.diffusion.parameterization),
        model.diffusion.learned_variance,
    )


@pytest.mark.parametrize(
    ("name", "count", "told"),
    [
        ("iddpm-64", 4000, 0.25),
        ("iddpm-cifar10", 4000, 0.25),
        ("iddpm-64-cond", 4000, 1.0),
        ("iddpm-lsun-256", 1000, 1.0),
        ("adm-64", 1000, 1.0),
        ("adm-256", 1000, 1.0),
    ],
)
def test_the_network_is_told_the_index_as_published(name: str, count: int, told: float) -> None:
    """k · 1000/T where time steps are rescaled (improved-diffusion's default), else k."""
    diffusion = published(name).diffusion
    assert diffusion is not None and diffusion.learned_variance
    schedule = PROCESSES.build(diffusion.process).schedule
    assert schedule.steps == count
    index = torch.tensor([0, 1, count // 2, count - 1])
    t = schedule.index_time(index)
    times = PARAMETERIZATIONS.build(diffusion.parameterization).time(t, schedule(t))
    torch.testing.assert_close(times, index.double() * told, rtol=0, atol=1e-9)


def test_latents_are_read_as_published() -> None:
    """Its "linear" is linear in √β, and the betas are those of the published configurations."""
    for name, ends in (("ldm-celebahq", (0.0015, 0.0195)), ("ldm-text2img", (0.00085, 0.012))):
        model = published(name)
        assert model.diffusion is not None and "autoencoder" in model.why_not
        schedule = PROCESSES.build(model.diffusion.process).schedule
        wanted = torch.linspace(ends[0] ** 0.5, ends[1] ** 0.5, 1000, dtype=torch.float64) ** 2
        torch.testing.assert_close(schedule.betas, wanted, rtol=1e-12, atol=0)
        index = torch.tensor([0, 500, 999])
        t = schedule.index_time(index)
        reading = PARAMETERIZATIONS.build(model.diffusion.parameterization)
        torch.testing.assert_close(reading.time(t, schedule(t)), index.double(), rtol=0, atol=1e-9)
    assert {name for name in nets.PRESETS if name.startswith("ldm-")} <= MODELS.keys()


def test_schedules_have_the_published_values() -> None:
    """ᾱ of the cosine and of the linear schedule at 4000 steps, β ends of the latter."""
    cosine = PROCESSES.build(published("iddpm-64").diffusion.process).schedule.alphas_cumprod
    torch.testing.assert_close(cosine[2000].item(), 0.4934539797, rtol=1e-9, atol=0)
    linear = PROCESSES.build(published("iddpm-64-256").diffusion.process).schedule
    torch.testing.assert_close(linear.alphas_cumprod[1000].item(), 0.5231160605, rtol=1e-9, atol=0)
    ends = linear.betas[[0, -1]]
    torch.testing.assert_close(ends, torch.tensor([2.5e-5, 5e-3]).double(), rtol=1e-6, atol=0)


SMALL = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": {"at": [2], "up": "last"}}


def _small(name: str) -> nets.Network:
    config = published(name).net | SMALL
    return filled(config | {"style": config["style"] | {"groups": 4}}).double()


def test_ncsnpp_is_read_as_its_code_reads_it() -> None:
    """On y in [0, 1] and σ there, the network has 2y − 1 and log σ, and F/σ is the score of y."""
    net, model = _small("ncsn++"), published("ncsn++")
    denoiser = _denoiser(model, net)
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    ours = denoiser.process.schedule(t).sigma
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64) * ours.reshape(-1, 1, 1, 1)
    y, sigma = (x + 1) / 2, ours / 2
    each = sigma.reshape(-1, 1, 1, 1)
    score = net(2 * y - 1, sigma.log()) / each
    clean = 2 * (y + each**2 * score) - 1
    torch.testing.assert_close(denoiser(x, t).x0, clean, rtol=1e-9, atol=1e-9)
    # σ on [0, 1] runs from 0.01 to 50, geometrically, and the first is at t = 0.001.
    top = denoiser.process.schedule(torch.ones(1, dtype=torch.float64)).sigma.item()
    assert math.isclose(top / 2, 50.0, rel_tol=1e-9)


@pytest.mark.parametrize("name", ["ddpm++", "ddpm++-sub-vp"])
def test_ddpmpp_is_read_as_its_code_reads_it(name: str) -> None:
    """The network has x and 999·t, and −F/σ is the score; σ is squared for sub-VP."""
    net, model = _small(name), published(name)
    denoiser = _denoiser(model, net)
    t = torch.tensor([0.1, 0.7], dtype=torch.float64)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    log_mean = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
    sigma = (1 - (2 * log_mean).exp()).reshape(-1, 1, 1, 1)
    sigma = sigma if name.endswith("sub-vp") else sigma.sqrt()
    score = -net(x, 999 * t) / sigma
    torch.testing.assert_close(denoiser(x, t).score, score, rtol=1e-8, atol=1e-8)


def test_a_command_line_gives_the_preset() -> None:
    text = (
        "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 "
        "--image_size 64 --learn_sigma True --noise_schedule cosine --num_channels 192 "
        "--num_head_channels 64 --num_res_blocks 3 --resblock_updown True "
        "--use_new_attention_order True --use_fp16 True --use_scale_shift_norm True"
    )
    ours, preset = from_command_line(text), published("adm-64")
    assert (ours.net, ours.order, ours.diffusion) == (preset.net, preset.order, preset.diffusion)
    text = "--image_size 32 --num_channels 128 --num_res_blocks 3 --learn_sigma True --dropout 0.3"
    ours = from_command_line(
        f"{text} --diffusion_steps 4000 --noise_schedule cosine --rescale_timesteps True"
    )
    preset = published("iddpm-cifar10")
    assert (ours.net, ours.diffusion) == (preset.net, preset.diffusion)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--image_size", "pairs"),
        ("image_size 64", "pairs"),
        ("--image_sise 64", "unknown key 'image_sise'"),
        ("--image_size 64 --image_size 64", "twice"),
        ("--noise_schedule sqrt", "noise schedule 'sqrt'"),
        ("--diffusion_steps many", "no number of steps"),
        ("--learn_sigma perhaps", "learn_sigma"),
        ("--predict_xstart perhaps", "neither True nor False"),
        ("--image_size 100", "no levels are published for size 100"),
    ],
)
def test_a_wrong_command_line_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_command_line(text)


def test_classes_and_ancestry_come_with_the_model() -> None:
    made = published("adm-64")
    net = nets.build(made.net, device="meta")
    ancestor = {"source": "64x64_diffusion.pt", "sha256": "00"}
    model = assembled(net, made, ancestor)
    assert model.shape == (3, 64, 64) and model.denoiser.learned_variance
    assert len(model.card.classes) == 1000 and model.conditioning.names == ("label",)
    assert model.card.ancestry == [ancestor]
    assert model.defaults.steps == 250 and model.defaults.clip == 1.0


# Names as the two programs register them; what they compute cannot be said in our U-Net.
OTHERS = {
    "denoising-diffusion-pytorch": [
        "init_conv.weight", "time_mlp.1.weight", "downs.0.0.block1.proj.weight",
        "downs.0.2.fn.fn.to_qkv.weight", "final_res_block.block1.proj.weight", "final_conv.bias",
    ],
    "image_v1": [
        "inner_model.timestep_embed.weight", "inner_model.mapping.0.weight",
        "inner_model.proj_in.weight", "inner_model.u_net.d_blocks.0.1.main.0.mapper.weight",
    ],
    "image_transformer": ["time_emb.weight", "time_in_proj.weight", "mapping.in_proj.weight"],
}  # fmt: skip


@pytest.mark.parametrize("program", OTHERS)
def test_networks_that_are_not_ours_are_refused_by_name(program: str) -> None:
    for prefix in ("", "model."):
        found = {prefix + name: (1,) for name in OTHERS[program]}
        with pytest.raises(UsageError, match=rf"{program}.*but not made a model"):
            recognise(found)
