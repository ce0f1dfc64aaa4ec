"""The same network on the same noise as diffusers' schedulers, and where those are not followed.

diffusers keeps float32 tables and casts some states to float32; that sets the tolerance of 5e-6.
"""

import math
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise import grids, schedules
from fromnoise.core.randomness import FixedNoise
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.processes import Gaussian
from fromnoise.samplers import get, last, sample

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCHEDULE = schedules.scaled_linear()
STEPS = 20
FLOOR = 5e-6


class Net(torch.nn.Module):
    """A small network with random weights, smooth in x and in the time index."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.double()
        self.first, self.second = (
            torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3
            for shape in ((8, 3, 3, 3), (3, 8, 3, 3))
        )

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        told = torch.sin(index.double().reshape(-1, 1, 1, 1) / 300.0)
        inner = torch.tanh(torch.conv2d(x.double(), self.first, padding=1) + told)
        return x.double() * 0.7 + 0.5 * torch.conv2d(inner, self.second, padding=1)


class EpsDenoiser(Denoiser):
    """The network read as noise, told the index t·1000 − 1."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.process = Gaussian(SCHEDULE)

    def __call__(self, x: Tensor, t: Tensor, condition: object = None) -> Prediction:
        alpha, sigma = self.process.scales(t, x)
        eps = self.net(x, t * 1000.0 - 1.0)
        return Prediction((x - sigma * eps) / alpha, x, t, self.process)


NET = Net()
OURS = EpsDenoiser(NET)


def draws(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(count)]


def theirs(scheduler: Any, x: Tensor, steps: int = STEPS, **options: Any) -> list[Tensor]:
    """Each state of diffusers' own loop, from x at its first timestep in our scaling."""
    scheduler.set_timesteps(steps)
    spread = getattr(scheduler, "sigmas", None)
    if type(scheduler).__name__ in (
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "LMSDiscreteScheduler",
    ):
        x = x * math.sqrt(float(spread[0]) ** 2 + 1)
    states = []
    for t in scheduler.timesteps:
        inside = scheduler.scale_model_input(x, t)
        x = scheduler.step(NET(inside, t), t, x, **options).prev_sample
        states.append(x.double())
    return states


def close(ours: Tensor, other: Tensor, tolerance: float = FLOOR) -> None:
    gap = (ours - other).abs().max() / other.abs().max()
    assert gap < tolerance, f"relative difference {gap:.2e}"


def walk(
    name: str, grid: Tensor, x: Tensor, noise: list[Tensor] | None = None, **options: Any
) -> Any:
    source = FixedNoise(noise) if noise else None
    return sample(OURS, get(name, **options), grid, x, noise=source)


def on(scheduler: Any, steps: int = STEPS, end: float = 0.0) -> Tensor:
    """Our grid through the timesteps of theirs, each once."""
    scheduler.set_timesteps(steps)
    listed = [float(t) for t in scheduler.timesteps]
    return grids.explicit(SCHEDULE, sorted(set(listed), reverse=True), end=end)


def prepare(monkeypatch: pytest.MonkeyPatch, module: str, noise: list[Tensor]) -> None:
    prepared = iter(noise)
    monkeypatch.setattr(
        f"diffusers.schedulers.{module}.randn_tensor", lambda *_, **__: next(prepared)
    )


@pytest.mark.parametrize("steps", [1, 5, STEPS])
@pytest.mark.parametrize(
    ("name", "variance", "spacing"),
    [
        ("ddpm", "fixed_small", "leading"),
        ("ddpm", "fixed_small", "trailing"),
        ("ddpm_large", "fixed_large", "leading"),
    ],
)
def test_ddpm(
    name: str, variance: str, spacing: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = diffusers.DDPMScheduler(
        clip_sample=False, variance_type=variance, timestep_spacing=spacing, **BETAS
    )
    x, *noise = draws(steps + 1)
    prepare(monkeypatch, "scheduling_ddpm", noise)
    states = theirs(scheduler, x, steps)
    close(last(walk(name, on(scheduler, steps), x, noise or draws(1))), states[-1])


def test_deviation_ddpm_large_adds_noise_in_the_step_to_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks whether the last index is 0 and not whether the step ends at data; ours adds none."""
    scheduler = diffusers.DDPMScheduler(
        clip_sample=False, variance_type="fixed_large", timestep_spacing="trailing", **BETAS
    )
    x, *noise = draws(STEPS + 1)
    prepare(monkeypatch, "scheduling_ddpm", noise)
    states = theirs(scheduler, x)
    grid = on(scheduler)
    sigma = SCHEDULE.at(float(grid[-2]))[1]
    close(last(walk("ddpm_large", grid, x, noise)) + sigma * noise[-1], states[-1])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim(spacing: str, eta: float) -> None:
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing=spacing, **BETAS)
    x, *noise = draws(STEPS + 1)
    grid = on(scheduler)
    prepared = iter(noise)
    state = x
    for t in scheduler.timesteps:
        options = {"eta": eta, "variance_noise": next(prepared)} if eta else {}
        state = scheduler.step(NET(state, t), t, state, **options).prev_sample
    close(last(walk("ddim", grid, x, noise, eta=eta)), state)


MULTISTEP = {
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "lms": (diffusers.LMSDiscreteScheduler, {}),
    "dpm++1": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 1}),
    "dpm++2m": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 2}),
    "dpm++3m_published": (diffusers.DPMSolverMultistepScheduler, {"solver_order": 3}),
    "unipc1": (diffusers.UniPCMultistepScheduler, {"solver_order": 1}),
    "unipc2": (diffusers.UniPCMultistepScheduler, {"solver_order": 2}),
}


@pytest.mark.parametrize("name", MULTISTEP)
def test_to_zero_noise(name: str) -> None:
    kind, options = MULTISTEP[name]
    scheduler = kind(**BETAS, **options)
    x = draws(1)[0]
    close(last(walk(name, on(scheduler), x)), theirs(scheduler, x)[-1])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_to_its_last_level(order: int) -> None:
    """diffusers' DEIS ends at index 0 and not at the data: its σ there is 0.029 (no option)."""
    scheduler = diffusers.DEISMultistepScheduler(solver_order=order, **BETAS)
    x = draws(1)[0]
    close(last(walk(f"deis{order}", on(scheduler, end=1e-3), x)), theirs(scheduler, x)[-1])


def test_unipc3_up_to_its_lower_final_orders() -> None:
    """diffusers lowers the last two orders whatever the grid; a step here knows only t and s."""
    scheduler = diffusers.UniPCMultistepScheduler(solver_order=3, **BETAS)
    x = draws(1)[0]
    pairs = list(zip(walk("unipc3", on(scheduler), x), theirs(scheduler, x), strict=True))
    for step, state in pairs[:-2]:
        close(step.x, state)


@pytest.mark.parametrize("name", ["unipc2_bh1", "unipc3_bh1"])
def test_unipc_bh1_before_its_last_step(name: str) -> None:
    """B₁ = h is infinite at σ = 0, and diffusers' last step is NaN; ours is first order."""
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=int(name[5]), solver_type="bh1", **BETAS
    )
    x = draws(1)[0]
    steps, states = list(walk(name, on(scheduler), x)), theirs(scheduler, x)
    for step, state in list(zip(steps, states, strict=True))[:-2]:
        close(step.x, state)
    assert torch.isnan(states[-1]).any() and torch.isfinite(steps[-1].x).all()


@pytest.mark.parametrize(("name", "skip"), [("pndm", False), ("plms", True)])
def test_pndm(name: str, skip: bool) -> None:
    scheduler = diffusers.PNDMScheduler(skip_prk_steps=skip, set_alpha_to_one=True, **BETAS)
    x = draws(1)[0]
    grid = grids.leading(SCHEDULE, STEPS)
    close(last(walk(name, grid, x)), theirs(scheduler, x)[-1])


def test_dpmpp_2m_sde(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **BETAS)
    x, *noise = draws(STEPS + 1)
    prepare(monkeypatch, "scheduling_dpmsolver_multistep", noise)
    states = theirs(scheduler, x)
    close(last(walk("dpm++2m_sde", on(scheduler), x, noise)), states[-1])


def test_euler_ancestral(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**BETAS)
    x, *noise = draws(STEPS + 1)
    prepare(monkeypatch, "scheduling_euler_ancestral_discrete", noise)
    grid = on(scheduler)
    state = x * math.sqrt(float(scheduler.sigmas[0]) ** 2 + 1)
    for t in scheduler.timesteps:
        inside = scheduler.scale_model_input(state, t)
        state = scheduler.step(NET(inside, t), t, state).prev_sample.double()
    close(last(walk("euler_a", grid, x, noise)), state)


class FlowDenoiser(Denoiser):
    """The network read as u = ε − x0 on straight lines."""

    process = Gaussian(schedules.flow())

    def __call__(self, x: Tensor, t: Tensor, condition: object = None) -> Prediction:
        return Prediction(x - t.reshape(-1, 1, 1, 1) * NET(x, t * 1000), x, t, self.process)


def test_flow_euler_without_shift() -> None:
    """x ← x + (σ_s − σ_t)·u."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    x = state = draws(1)[0]
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        state = scheduler.step(NET(state, t), t, state).prev_sample
    grid = torch.as_tensor(scheduler.sigmas, dtype=torch.float64)
    close(last(sample(FlowDenoiser(), get("euler"), grid, x)), state)


def gap(ours: Tensor, other: Tensor) -> float:
    return float((ours - other).abs().max() / other.abs().max())


def test_deviation_ddim_linspace_takes_another_stride() -> None:
    """Its step goes T//N back (999 → 949 at N = 20) while its list goes 999 → 946 (issue 12633)."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False, timestep_spacing="linspace", **BETAS)
    x = draws(1)[0]
    assert gap(last(walk("ddim", on(scheduler), x)), theirs(scheduler, x)[-1]) > 1e-3


def test_deviation_ddim_offset_runs_past_its_table() -> None:
    """With an offset of 1 and as many steps as training had, index 1000 is asked for (10003)."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1, **BETAS)
    x = draws(1)[0]
    with pytest.raises((IndexError, ValueError)):
        theirs(scheduler, x, steps=1000)
    grid = grids.leading(SCHEDULE, 1000, offset=1)
    assert torch.isfinite(last(sample(OURS, get("ddim"), grid, x))).all()


def test_deviation_karras_rounds_the_time_but_not_sigma() -> None:
    """The network is told a rounded index of a level that is not there."""
    scheduler = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True, **BETAS)
    x = draws(1)[0]
    states = theirs(scheduler, x)
    sigmas = [float(s) for s in scheduler.sigmas[:-1]]
    grid = grids.karras(SCHEDULE, STEPS, sigma_min=sigmas[-1], sigma_max=sigmas[0])
    np.testing.assert_allclose(
        [SCHEDULE.at(float(t))[1] / SCHEDULE.at(float(t))[0] for t in grid[:-1]], sigmas, rtol=1e-4
    )
    difference = gap(last(walk("dpm++2m", grid, x)), states[-1])
    assert 1e-5 < difference < 0.05


def test_deviation_third_order_dpmpp_is_half_its_term() -> None:
    """`dpm++3m` takes the whole second derivative; see its measured order in test_orders."""
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=3, **BETAS)
    x = draws(1)[0]
    assert gap(last(walk("dpm++3m", on(scheduler), x)), theirs(scheduler, x)[-1]) > 1e-4


def test_deviation_flow_shift_is_applied_twice() -> None:
    """Its last σ of 1000 at shift 3 is 0.00892857; the paper's formula gives 0.00299401 (13243)."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(1000)
    assert float(scheduler.sigmas[-2]) == pytest.approx(0.00892857, rel=1e-5)
    assert schedules.flow(3.0).at(0.001)[1] == pytest.approx(0.00299401, rel=1e-5)
