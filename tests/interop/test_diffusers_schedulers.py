"""Schedulers of diffusers: each, opened from its folder, takes the same steps."""

import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from interop import foreign

import fromnoise as fn
from fromnoise.core.errors import FileError, UsageError
from fromnoise.interop import diffusers_schedulers
from fromnoise.interop.diffusers_schedulers import KINDS, read

V = {"prediction_type": "v_prediction", "beta_start": 1e-4, "beta_end": 0.02}
SPACINGS = ("leading", "trailing", "linspace")
# With fewer, some of theirs lower the order of the last step.
STEPS = 15
# Between two indices their σ is linear, ours log-linear; their σ of the first index has 4 digits.
LOOSE = 1e-4
CASES: list[tuple[str, dict[str, Any], float]] = [
    *(("DPMSolverMultistepScheduler", {"timestep_spacing": s}, 2e-5) for s in SPACINGS),
    ("UniPCMultistepScheduler", {}, 2e-5),
    ("DEISMultistepScheduler", {}, 2e-5),
    *(("EulerDiscreteScheduler", {"timestep_spacing": s}, 2e-5) for s in SPACINGS[1:]),
    ("LMSDiscreteScheduler", {"timestep_spacing": "leading"}, 2e-5),
    # It adds up four past values of ε, and so their rounding too.
    ("PNDMScheduler", {"prediction_type": "epsilon", "skip_prk_steps": True}, 5e-5),
]
MORE: list[tuple[str, dict[str, Any], float]] = [
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, 2e-5),
    ("DPMSolverMultistepScheduler", {"timestep_spacing": "leading", "steps_offset": 1}, 2e-5),
    ("UniPCMultistepScheduler", {"solver_order": 1, "timestep_spacing": "leading"}, 2e-5),
    ("DEISMultistepScheduler", {"solver_order": 3, "timestep_spacing": "trailing"}, 2e-5),
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}, 2e-5),
    ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}, LOOSE),
    ("HeunDiscreteScheduler", {"timestep_spacing": "trailing"}, 2e-5),
    ("LMSDiscreteScheduler", {}, LOOSE),
    ("PNDMScheduler", {"prediction_type": "epsilon"}, 2e-5),
    (
        "PNDMScheduler",
        {"prediction_type": "epsilon", "skip_prk_steps": True, "steps_offset": 1},
        2e-5,
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose scheduler is written anew by each test."""
    made = tmp_path_factory.mktemp("network")
    foreign.unet().save_pretrained(made)
    return made


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)],
)
def test_takes_the_same_steps(
    name: str, options: dict[str, Any], tolerance: float, folder: Path
) -> None:
    scheduler = getattr(diffusers, name)(**V | options)
    scheduler.save_pretrained(folder)
    network = diffusers.UNet2DModel.from_pretrained(folder)
    x = foreign.start()
    expected = foreign.walked(scheduler, network, x, STEPS)
    drawn = fn.load(folder).sample(2, start=x, steps=STEPS, dtype="float32").tensor
    assert expected.std() > 0.3
    assert (drawn - expected).abs().max() < tolerance


def test_a_least_level_below_all_of_a_schedule_leaves_nothing_out() -> None:
    raw = {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "scaled_linear"}
    assert read({**raw, "lambda_min_clipped": -5.1}, "x") == read(raw, "x")


def test_spacings_are_told_apart(folder: Path) -> None:
    x = foreign.start()
    drawn = []
    for spacing in SPACINGS:
        scheduler = diffusers.DPMSolverMultistepScheduler(timestep_spacing=spacing, **V)
        scheduler.save_pretrained(folder)
        drawn.append(fn.load(folder).sample(2, start=x, steps=5).tensor)
    assert (drawn[0] - drawn[1]).abs().max() > 1e-4
    assert (drawn[1] - drawn[2]).abs().max() > 1e-4


@pytest.mark.parametrize("name", KINDS)
def test_the_defaults_are_those_of_the_class(name: str) -> None:
    """A file that leaves a key out means the default of its class."""
    theirs = getattr(diffusers, name)()
    written = read(dict(theirs.config) | {"_class_name": name}, "written")
    assert read({"_class_name": name}, "bare") == written
    schedule = fn.processes.PROCESSES.build(written.process).schedule
    torch.testing.assert_close(
        schedule.alphas_cumprod, theirs.alphas_cumprod.double(), rtol=2e-5, atol=1e-7
    )


def test_the_network_is_told_whole_indices() -> None:
    for steps in (1000, 4000, 37):
        raw = {"_class_name": "DDPMScheduler", "num_train_timesteps": steps}
        reading = read(raw, "config")
        parameterization = fn.parameterizations.PARAMETERIZATIONS.build(reading.parameterization)
        schedule = fn.processes.PROCESSES.build(reading.process).schedule
        t = schedule.index_time(torch.arange(steps))
        told = parameterization.time(t, schedule(t)).float()
        assert torch.equal(told, torch.arange(steps).float())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "ScoreSdeVeScheduler is not read; these are: D"),
        ({"_class_name": "DDPMScheduler", "beta_schedule": "laplace"}, "beta_schedule.*laplace"),
        ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type 'learned'"),
        ({"_class_name": "DDPMScheduler", "thresholding": True}, "thresholding"),
        ({"_class_name": "DDPMScheduler", "trained_betas": [0.1]}, "trained_betas has 1 values"),
        ({"_class_name": "DDPMScheduler", "prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"_class_name": "DDPMScheduler", "beta_start": -1}, "beta_start"),
        ({"_class_name": "DDPMScheduler", "beta_start": math.nan}, "beta_start"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"},
            "algorithm_type 'dpmsolver'",
        ),
        ({"_class_name": "UniPCMultistepScheduler", "use_beta_sigmas": True}, "use_beta_sigmas"),
        ({"_class_name": "DDIMScheduler", "surprise": 3}, "surprise"),
        (
            {
                "_class_name": "DPMSolverMultistepScheduler",
                "beta_schedule": "squaredcos_cap_v2",
                "lambda_min_clipped": -5.1,
            },
            "lambda_min_clipped -5.1 leaves out times",
        ),
    ],
)
def test_what_is_not_here_is_refused_by_name(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(FileError, match=message):
        read(raw, "scheduler_config.json")


@pytest.mark.parametrize("name", sorted(diffusers_schedulers._CLASSES))
def test_what_is_written_is_read_again(name: str) -> None:
    """The process, the reading and the sampler come back; the grid is laid as theirs is."""
    denoiser = fn.denoisers.NetworkDenoiser(
        fn.nets.build({"kind": "mlp", "in_channels": 2}),
        fn.schedules.scaled_linear(500),
        fn.parameterizations.V(clock_scale=500.0),
    )
    raw, notes = diffusers_schedulers.write(
        denoiser, fn.model.Defaults(sampler=name, grid="trailing", steps=9)
    )
    assert not notes
    reading = read(raw, "written")
    assert reading.process == denoiser.process.config
    table = fn.parameterizations.PARAMETERIZATIONS
    assert table.build(reading.parameterization) == denoiser.parameterization
    assert reading.defaults.sampler == name and reading.defaults.grid == "trailing"
    assert reading.defaults.grid_options == {} and reading.defaults.clip is None


def test_a_schedule_without_a_name_is_written_out() -> None:
    """Betas come back bit for bit."""
    for schedule in (
        fn.schedules.zero_terminal_snr(fn.schedules.linear(50)),
        fn.schedules.cosine(50, offset=0.1),
        fn.schedules.from_betas(torch.linspace(0.01, 0.2, 50)),
    ):
        denoiser = fn.denoisers.NetworkDenoiser(
            fn.nets.build({"kind": "mlp", "in_channels": 2}),
            schedule,
            fn.parameterizations.V(clock_scale=50.0),
        )
        raw, _ = diffusers_schedulers.write(denoiser, fn.model.Defaults("ddim", "trailing"))
        back = fn.processes.PROCESSES.build(read(raw, "x").process).schedule
        torch.testing.assert_close(back.alphas_cumprod, schedule.alphas_cumprod, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("schedule", "parameterization", "message"),
    [
        (fn.schedules.vp(), fn.parameterizations.V(), "discrete schedule"),
        (fn.schedules.linear(500), fn.parameterizations.V(), "index from 0 to 499"),
        (fn.schedules.linear(), fn.parameterizations.V(clock="log_ratio"), "log_ratio"),
        (fn.schedules.linear(), fn.parameterizations.Flow(clock="index"), "predicts flow"),
    ],
)
def test_what_no_scheduler_has_is_refused(
    schedule: Any, parameterization: Any, message: str
) -> None:
    net = fn.nets.build({"kind": "mlp", "in_channels": 2})
    denoiser = fn.denoisers.NetworkDenoiser(net, schedule, parameterization)
    with pytest.raises(UsageError, match=message):
        diffusers_schedulers.write(denoiser, fn.model.Defaults("ddim", "trailing"))
