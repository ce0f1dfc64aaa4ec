"""What we write, diffusers opens and draws the same with; what comes back is what was written."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from interop import foreign
from nets.filling import filled

import fromnoise as fn
from fromnoise import codecs, encoders
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.interop.diffusers_export import export_diffusers
from fromnoise.model import Card, Defaults, Model
from fromnoise.recipes.digits import net as digits_net

DIT = {
    "kind": "dit",
    "in_channels": 1,
    "out_channels": 1,
    "size": 8,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "time": "closed",
    "accepts": {"vector": {"label": 10}},
}


def model(net: dict[str, Any], defaults: Defaults | None = None, **parts: Any) -> Model:
    """A model of 8×8 digits, every parameter of its network noise."""
    network = filled(net)
    if net["kind"] == "dit":
        network.position.data.copy_(fn.nets.build(net).position)
    label = {"label": encoders.Label(10)} if network.accepts.vector else {}
    denoiser = NetworkDenoiser(
        network,
        parts.get("schedule", fn.schedules.cosine()),
        parts.get("parameterization", fn.parameterizations.V()),
        network.out_channels == 2,
    )
    return Model(
        denoiser,
        (1, 8, 8),
        codecs.Identity(),
        encoders.Conditioning(label),
        defaults or Defaults("ddim", "trailing", 10),
        Card(name="digits"),
    )


@torch.no_grad()
def theirs(pipeline: Any, x: torch.Tensor, labels: list[int], steps: int) -> torch.Tensor:
    pipeline.scheduler.set_timesteps(steps)
    for t in pipeline.scheduler.timesteps:
        answer = pipeline.unet(x, t, class_labels=torch.tensor(labels)).sample
        x = pipeline.scheduler.step(answer, t, x).prev_sample
    return x.clamp(-1, 1)


@pytest.mark.parametrize(
    ("defaults", "pipeline", "scheduler"),
    [
        (Defaults("ddim", "leading", 10, clip=1.0), "DDIMPipeline", "DDIMScheduler"),
        (Defaults("dpm++2m", "uniform", 20), "DDPMPipeline", "DPMSolverMultistepScheduler"),
        pytest.param(
            *(Defaults("unipc2", "trailing", 20), "DDPMPipeline", "UniPCMultistepScheduler"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: value.sampler if isinstance(value, Defaults) else "",
)
def test_the_digits_network_draws_the_same(
    defaults: Defaults, pipeline: str, scheduler: str, tmp_path: Path
) -> None:
    ours = model(digits_net(), defaults)
    export_diffusers(ours, tmp_path / "out")
    opened = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
    assert (type(opened).__name__, type(opened.scheduler).__name__) == (pipeline, scheduler)
    x = foreign.start(2, 1)
    expected = theirs(opened, x, [3, 4], defaults.steps)
    drawn = ours.sample(2, label=[3, 4], start=x, dtype="float32").tensor
    assert (drawn - expected).abs().max() < 2e-5
    again = fn.load(tmp_path / "out")
    drawn_again = again.sample(
        2, label=[3, 4], start=x, steps=defaults.steps, dtype="float32"
    ).tensor
    assert torch.equal(drawn_again, drawn)


def test_the_pipeline_itself_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unconditional network needs nothing but the pipeline's own call."""
    ours = model(digits_net(accepts={}))
    notes = export_diffusers(ours, tmp_path / "out")
    assert not any("label" in note for note in notes)
    pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path / "out")
    x = foreign.start(1, 1)
    monkeypatch.setattr("diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *a, **k: x)
    picture = pipeline(num_inference_steps=10, output_type="np").images[0]
    drawn = ours.sample(1, start=x, dtype="float32").tensor[0, 0]
    assert (torch.from_numpy(picture[..., 0]) * 2 - 1 - drawn).abs().max() < 2e-5


STYLES: list[dict[str, Any]] = [
    {"attention": {"at": [1, 2], "head_channels": 8}, "time": "adm"},
    {"attention": {"at": [], "middle": False}, "style": {"groups": 8, "down": "asymmetric"}},
    {
        "style": {"groups": 8, "scale_shift": True, "resample": "block"},
        "multipliers": [1, 1, 2],
        "attention": {"at": [2], "head_channels": 16},
    },
    {"time": "closed", "blocks": 2, "out_channels": 2},
]


@pytest.mark.parametrize("changes", STYLES)
def test_weights_come_back_bit_for_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    ours = model(digits_net(**changes))
    export_diffusers(ours, tmp_path / "out")
    back = fn.load(tmp_path / "out")
    state, again = ours.denoiser.net.state_dict(), back.denoiser.net.state_dict()
    assert list(state) == list(again)
    assert all(torch.equal(state[name], again[name]) for name in state)
    x, t = foreign.start(2, 1), torch.tensor([0.2, 0.9], dtype=torch.float64)
    label = ours.condition(2, label=[3, 4])
    assert torch.equal(ours.denoiser.output(x, t, label), back.denoiser.output(x, t, label))
    opened = diffusers.UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval()
    told = opened(x, t * 1000 - 1, class_labels=torch.tensor([3, 4])).sample
    assert (told - ours.denoiser.output(x, t, label)).abs().max() < 2e-5 * told.abs().max()


def test_a_transformer_is_written_and_read(tmp_path: Path) -> None:
    ours = model(DIT, Defaults("ddim", "trailing", 10))
    notes = export_diffusers(ours, tmp_path / "out")
    assert any("DiTTransformer2DModel.from_pretrained" in note for note in notes)
    opened = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "out" / "transformer")
    x, t = foreign.start(2, 1), torch.tensor([499, 20])
    with torch.no_grad():
        expected = opened(x, t, torch.tensor([3, 4])).sample
        label = ours.condition(2, label=[3, 4])
        answer = ours.denoiser.output(x, (t + 1.0) / 1000, label)
    assert (answer - expected).abs().max() < 2e-5 * expected.abs().max()
    back = fn.load(tmp_path / "out").denoiser.net.state_dict()
    assert all(
        torch.equal(value, back[name]) for name, value in ours.denoiser.net.state_dict().items()
    )


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (digits_net(attention={"at": [2], "up": "last"}), {}, "attention.up='every'"),
    (digits_net(style={"groups": 8, "up": "shuffle"}), {}, "use 'nearest'"),
    (digits_net(attention={"at": [1, 2], "heads": 4}), {}, "head_channels"),
    (digits_net(time="fourier"), {}, "'fourier'"),
    (digits_net(accepts={"channels": {"mask": 1}}), {}, "told mask"),
    (digits_net(style={"groups": 8, "residual_scale": 0.5}), {}, "residual_scale"),
    (DIT | {"time": "adm"}, {}, "use time='closed'"),
    (DIT | {"hidden": 2.0}, {}, "hidden=4"),
    (digits_net(), {"schedule": fn.schedules.edm()}, "discrete schedule"),
    (digits_net(), {"parameterization": fn.parameterizations.Score()}, "index from 0"),
]


@pytest.mark.parametrize(("net", "parts", "message"), REFUSED)
def test_what_diffusers_cannot_express_is_refused(
    net: dict[str, Any], parts: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export_diffusers(model(net, **parts), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_quite_the_same_is_said(tmp_path: Path) -> None:
    ours = model(digits_net(), Defaults("dpm++3s", "karras", 7))
    notes = "\n".join(export_diffusers(ours, tmp_path / "out"))
    assert "no dpm++3s; dpm++2m" in notes and "a grid like karras" in notes
    assert "in 7 steps" in notes and "class_labels" in notes
