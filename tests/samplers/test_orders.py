"""Deterministic samplers follow the probability-flow ODE with the order they declare."""

import math

import pytest
import torch
from walks import flow_problem, mixture

from fromnoise import grids, schedules
from fromnoise.denoisers import GaussianDenoiser
from fromnoise.samplers import SAMPLERS, DDIMInverse, get, last, sample

DETERMINISTIC = [
    name
    for name, sampler in SAMPLERS.items()
    if not sampler.stochastic and name not in ("ddpm_no_noise", "ddim_inverse", "ode")
]

DECLARED = {
    "ddim": 1.0,
    "euler": 1.0,
    "dpm++1": 1.0,
    "deis1": 1.0,
    "cold2": 1.0,
    "gradient_estimation": 1.0,
    "heun": 2.0,
    "dpm2": 2.0,
    "dpm++2s": 2.0,
    "dpm++2m": 2.0,
    "dpm++3m_published": 2.0,
    "deis2": 2.0,
    "unipc1": 2.0,
    "unipc1_bh1": 2.0,
    "pndm": 2.0,
    "plms": 2.0,
    "dpm++3s": 2.8,
    "dpm-solver-3": 3.0,
    "dpm++3m": 3.0,
    "deis3": 3.0,
    "unipc2": 3.0,
    "unipc2_bh1": 3.0,
    "unipc3": 3.4,
    "unipc3_bh1": 3.4,
    "lms": 3.5,
}


def errors(name: str, counts: tuple[int, ...]) -> list[float]:
    denoiser, grid, start, truth = flow_problem()
    finals = (last(sample(denoiser, get(name), grid(n), start)) for n in counts)
    return [(x - truth).abs().mean().item() for x in finals]


def slope(name: str) -> float:
    coarse, fine = errors(name, (32, 128))
    return math.log2(coarse / fine) / 2


def test_every_deterministic_sampler_is_measured() -> None:
    assert set(DECLARED) == set(DETERMINISTIC)


@pytest.mark.parametrize("name", DECLARED)
def test_measured_order(name: str) -> None:
    """From 32 to 128 steps even in log σ, to σ = 0.02, at least the declared order − 0.15."""
    assert SAMPLERS[name].order == DECLARED[name]
    assert slope(name) >= DECLARED[name] - 0.15


def test_published_third_order_measures_two() -> None:
    """Half the second derivative: better than order 2 by its constant, not by its slope."""
    assert slope("dpm++3m_published") < 2.2
    (third,), (second,), (whole,) = (
        errors(name, (64,)) for name in ("dpm++3m_published", "dpm++2m", "dpm++3m")
    )
    assert whole < third < second


def test_first_order_methods_are_one_step() -> None:
    """DDIM = Euler in σ/α = DPM-Solver++(1) = DEIS-1 bit for bit, = cold diffusion's update."""
    for schedule in (schedules.linear(), schedules.flow(), schedules.ve()):
        x = torch.randn(5, 1, generator=torch.Generator().manual_seed(0)).double()
        grid = grids.trailing(schedule, 10) if schedule.steps else grids.log_snr(schedule, 10)
        walks = {
            name: list(sample(mixture(schedule), get(name), grid, x))
            for name in ("ddim", "euler", "dpm++1", "deis1", "cold2")
        }
        for step, *others in zip(*walks.values(), strict=True):
            for other in others[:-1]:
                assert torch.equal(step.x, other.x)
            torch.testing.assert_close(step.x, others[-1].x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("steps", "std"),
    [(5, 0.7780932), (10, 0.8834852), (20, 0.9401193), (50, 0.9756239), (100, 0.9877383)],
)
def test_ddim_gain_on_standard_normal_data(steps: int, std: float) -> None:
    """A step over the angle Δθ, α = cos θ, multiplies by cos Δθ: even angles leave Π cos Δθ."""
    schedule = schedules.zero_terminal_snr(schedules.vp())
    angles = torch.linspace(math.pi / 2, 0.0, steps + 1, dtype=torch.float64)
    inner = schedule.time(-2.0 * torch.log(torch.tan(angles[1:-1])))
    grid = torch.cat([torch.ones(1), inner, torch.zeros(1)])
    denoiser = GaussianDenoiser(0.0, 1.0, schedule)
    x = last(sample(denoiser, get("ddim"), grid, torch.ones(1, 1, 1, 1, dtype=torch.float64)))
    wanted = math.cos(math.pi / 2 / steps) ** steps
    assert abs(x.item() - wanted) < 1e-12
    assert abs(wanted - std) < 1e-7


@pytest.mark.parametrize("name", ["heun", "dpm++3m", "unipc3", "lms", "dpm-solver-3", "ode"])
def test_gaussian_flow_is_closed(name: str) -> None:
    """x(s) = μ + (x − μ)·√((s0² + σ_s²)/(s0² + σ_t²)) with α = 1."""
    schedule = schedules.ve(0.02, 20.0)
    mean, std = 0.3, 0.5
    x = torch.linspace(-30, 30, 7, dtype=torch.float64).reshape(1, 1, 1, 7)
    ratios = torch.linspace(math.log(20.0), math.log(0.02), 201, dtype=torch.float64)
    grid = schedule.time(-2.0 * ratios)
    grid = grid[[0, -1]] if name == "ode" else grid
    final = last(sample(GaussianDenoiser(mean, std, schedule), get(name), grid, x))
    truth = mean + (x - mean) * math.sqrt((std**2 + 0.02**2) / (std**2 + 20.0**2))
    assert (final - truth).abs().max() < (2e-4 if name == "heun" else 1e-5)


def test_inversion_round_trip_halves_with_the_step() -> None:
    """To noise and back by DDIM: first order, so twice the steps leave half the error."""
    denoiser, grid, _, truth = flow_problem()
    gaps = []
    for steps in (50, 100, 200):
        up = last(sample(denoiser, get("ddim_inverse"), grid(steps).flip(0), truth))
        back = last(sample(denoiser, get("ddim"), grid(steps), up))
        gaps.append((back - truth).abs().mean().item())
    assert 1.7 < gaps[0] / gaps[1] < 2.1 and 1.7 < gaps[1] / gaps[2] < 2.1


def test_inversion_with_fixed_point_is_exact() -> None:
    denoiser, grid, _, truth = flow_problem()
    up = last(sample(denoiser, DDIMInverse(iterations=40), grid(20).flip(0), truth))
    back = last(sample(denoiser, get("ddim"), grid(20), up))
    assert (back - truth).abs().max() < 1e-9


def test_inversion_leaves_pure_data() -> None:
    """From t = 0, where no noise can be read from x, the inverse ends where DDIM starts."""
    schedule = schedules.linear()
    denoiser = mixture(schedule)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    grid = grids.uniform(schedule, 150)
    data = last(sample(denoiser, get("ddim"), grid, start))
    for name in ("ddim_inverse", "ddim", "dpm++2m", "heun", "unipc2", "lms"):
        again = last(sample(denoiser, get(name), grid.flip(0), data))
        assert (again - start).abs().max() < 0.15, name
