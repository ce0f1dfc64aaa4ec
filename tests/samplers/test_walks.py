"""Any sampler on any schedule and grid: finite, exact at its ends, and without hidden state."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from walks import Believing, mixture

from fromnoise import grids, schedules
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Denoiser, GaussianDenoiser, Prediction
from fromnoise.layers.condition import Condition
from fromnoise.samplers import SAMPLERS, get, last, sample

# Those of masked tokens walk in test_masked.
NOISY = [name for name in SAMPLERS if name not in ("unmask", "unmask_even", "maskgit")]
WALKING = [name for name in NOISY if name not in ("ddim_inverse", "ddpm_learned")]
SCHEDULES = {
    "flow": schedules.flow(),
    "zero_terminal": schedules.zero_terminal_snr(schedules.linear()),
    "zero_terminal_vp": schedules.zero_terminal_snr(schedules.vp()),
    "linear": schedules.linear(10),
    "edm": schedules.edm(),
    "sub_vp": schedules.sub_vp(),
}


def start(schedule: schedules.Schedule, grid: Tensor) -> Tensor:
    alpha, sigma = schedule.at(float(grid[0]))
    return Noise(0, 3).normal(torch.zeros(3, 1, 2, 2, dtype=torch.float64)) * (alpha + sigma)


def check_finite(name: str, label: str, counts: dict[str, tuple[int, ...]]) -> None:
    schedule = SCHEDULES[label]
    denoiser = GaussianDenoiser(0.1, 0.5, schedule)
    for kind, grid in grids.GRIDS.items():
        for steps in counts.get(kind, (3,)):
            times = grid(schedule, steps)
            made = list(sample(denoiser, get(name), times, start(schedule, times)))
            assert len(made) == len(times) - 1 and made[-1].t == 0.0
            shown = torch.stack([each for step in made for each in (step.x, step.x0)])
            assert torch.isfinite(shown).all(), (label, kind, steps)


@pytest.mark.parametrize("name", WALKING)
def test_every_schedule_and_grid_is_finite(name: str) -> None:
    """Starts at α = 0 and ends at σ = 0 included; 17 steps are more than the 10 of `linear`."""
    for label in SCHEDULES:
        check_finite(name, label, {"trailing": (1, 2, 17) if label == "linear" else (1, 2)})


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKING)
def test_every_schedule_grid_and_number_of_steps_is_finite(name: str) -> None:
    for label in SCHEDULES:
        check_finite(name, label, dict.fromkeys(grids.GRIDS, (1, 2, 3, 17, 60)))


CAREFUL = [n for n in WALKING if n not in ("ddpm_optimal", "cold2")]


@pytest.mark.parametrize("name", CAREFUL)
def test_the_last_step_ends_on_the_belief(name: str) -> None:
    """σ = 0 exactly: a denoiser that always believes 0.7 is taken at its word, to the last bit."""
    for schedule in (schedules.flow(), schedules.linear(), schedules.ve()):
        denoiser = Believing(schedule, lambda x, t: 0 * x + 0.7)
        for steps in (1, 2, 5):
            grid = grids.trailing(schedule, steps)
            final = last(sample(denoiser, get(name), grid, start(schedule, grid)))
            # Sums over r end there up to rounding; all other steps to σ = 0 are the belief itself.
            over_ratio = name in ("lms", "pndm", "plms", "gradient_estimation")
            wanted = torch.full_like(final, 0.7)
            assert torch.allclose(final, wanted, rtol=1e-9) if over_ratio else final.equal(wanted)


@pytest.mark.parametrize("name", NOISY)
def test_two_interleaved_runs_equal_two_separate_ones(name: str) -> None:
    schedule = schedules.linear()
    denoiser, sampler = GaussianDenoiser(0.1, 0.5, schedule), get(name)
    before = copy.deepcopy(sampler)
    up = name == "ddim_inverse"
    if name == "ddpm_learned":
        denoiser = Believing(schedule, lambda x, t: 0.5 * x)
        denoiser.var_fraction = 0.5
    first, second = grids.trailing(schedule, 5), grids.log_snr(schedule, 5)
    pair = [(grid.flip(0) if up else grid, seed) for seed, grid in enumerate((first, second))]

    def run(grid: Tensor, seed: int) -> list[Tensor]:
        return [step.x for step in begin(grid, seed)]

    def begin(grid: Tensor, seed: int):  # type: ignore[no-untyped-def]
        noise = Noise(10 * seed, 3)
        return sample(denoiser, sampler, grid, start(schedule, grid), noise=noise)

    separate = [run(*one) for one in pair]
    together = list(zip(*(begin(*one) for one in pair), strict=True))
    for index, steps in enumerate(together):
        for which, step in enumerate(steps):
            assert torch.equal(step.x, separate[which][index])
    assert sampler == before


@pytest.mark.parametrize("name", WALKING)
def test_states_are_values(name: str) -> None:
    """A step made twice from the same state gives the same, and changes nothing it was given."""
    schedule = schedules.linear()
    denoiser: Denoiser = GaussianDenoiser(0.1, 0.5, schedule)
    times = grids.log_snr(schedule, 6).tolist()
    sampler = get(name).plan(times)
    bound = denoiser.bind(None, torch.tensor(times))
    x = start(schedule, torch.tensor(times))
    state = sampler.init(x, times[0])
    for t, s in pairwise(times):
        kept, remembered = x.clone(), copy.deepcopy(state)
        first, after, _ = sampler.step(bound, x, t, s, state, Noise(1, 3))
        again, _, _ = sampler.step(bound, x, t, s, remembered, Noise(1, 3))
        assert torch.equal(first, again) and torch.equal(x, kept)
        x, state = first, after


@pytest.mark.parametrize("name", WALKING)
def test_neighbours_change_no_bit(name: str) -> None:
    """At one batch shape: other samples beside it, and another place in the batch."""
    schedule = schedules.vp()
    denoiser = mixture(schedule)
    grid = grids.log_snr(schedule, 6)
    x = torch.randn(4, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    others = 5.0 * x.flip(0)
    others[2] = x[0]
    one = last(sample(denoiser, get(name), grid, x, noise=Noise([7, 1, 2, 3])))
    two = last(sample(denoiser, get(name), grid, others, noise=Noise([9, 8, 7, 5])))
    assert torch.equal(one[0], two[2])


def test_the_belief_is_shown_at_every_step() -> None:
    schedule = schedules.linear()
    denoiser = Believing(schedule, lambda x, t: 0 * x + t.reshape(-1, 1))
    grid = grids.trailing(schedule, 8)
    x = torch.zeros(1, 1, dtype=torch.float64)
    for name in ("ddim", "dpm++2m", "heun", "unipc2", "pndm", "dpm2", "lms", "euler"):
        shown = [step.x0.item() for step in sample(denoiser, get(name), grid, x)]
        assert shown == grid[:-1].tolist(), name


class Narrow(Denoiser):
    """A network that answers in bfloat16."""

    def __init__(self) -> None:
        self.inner = mixture(schedules.flow())
        self.process = self.inner.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        believed = self.inner(x.to(torch.bfloat16), t)
        return Prediction(believed.x0, x, t, self.process)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm++2m", "unipc3", "heun", "lms", "ode", "pc"])
def test_arithmetic_is_never_below_float32(name: str) -> None:
    x = torch.randn(3, 1, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    grid = grids.uniform(schedules.flow(), 5)
    for step in sample(Narrow(), get(name, tolerance=1e-2 if name == "ode" else None), grid, x):
        assert step.x.dtype == torch.float32


@pytest.mark.parametrize("name", ["ddim", "dpm++3m", "unipc3", "lms", "heun", "ddpm"])
def test_float32_follows_float64(name: str) -> None:
    schedule = schedules.linear()
    denoiser = mixture(schedule)
    grid = grids.log_snr(schedule, 30)
    x = torch.randn(8, 1, generator=torch.Generator().manual_seed(0))
    narrow = last(sample(denoiser, get(name), grid, x))
    wide = last(sample(denoiser, get(name), grid, x.double()))
    assert (narrow.double() - wide).abs().max() < 1e-4


def test_evaluations_are_as_declared() -> None:
    """How often the denoiser is asked in a step that ends above σ = 0."""

    class Counted(Denoiser):
        calls = 0

        def __init__(self) -> None:
            self.inner = GaussianDenoiser(0.0, 0.5, schedules.vp())
            self.process = self.inner.process

        def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
            self.calls += 1
            return self.inner(x, t)

        def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
            return super().bind(condition, grid)

    for name in WALKING:
        if name == "ode":
            continue
        denoiser = Counted()
        grid = grids.log_snr(schedules.vp(), 9)[:-1]
        walk = sample(denoiser, get(name), grid, torch.zeros(2, 1, 2, 2, dtype=torch.float64))
        before = 0
        for step in walk:
            asked, before = denoiser.calls - before, denoiser.calls
            starting = step.index < 3 and name in ("dpm++3m", "pndm", "plms")
            assert starting or asked == get(name).evaluations, name


def test_noise_and_grid_are_checked() -> None:
    denoiser = mixture(schedules.flow())
    x = torch.zeros(2, 1)
    with pytest.raises(ShapeError, match="noise for 3"):
        last(
            sample(denoiser, get("ddim"), grids.uniform(schedules.flow(), 3), x, noise=Noise(0, 3))
        )
    for bad in ([1.0], [1.0, 1.0], [0.5, 0.7, 0.6], [1.2, 0.0]):
        with pytest.raises(UsageError, match="a grid is"):
            last(sample(denoiser, get("ddim"), torch.tensor(bad), x))
