"""Cold diffusion's two algorithms, on degradations and on noise."""

import pytest
import torch
from torch import Tensor
from walks import Believing, mixture

from fromnoise import grids, schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.operators.families import Blur, Masking
from fromnoise.processes import Cold, Process
from fromnoise.samplers import SAMPLERS, get, last, sample

PICTURES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GRID = grids.uniform(schedules.flow(), 20)
NOISELESS = ("cold1", "cold2")


class Linear(Process):
    """D(x, s) = x + s·e with e constant."""

    def __init__(self) -> None:
        super().__init__()
        self.e = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(1, 1, 8, 8)

    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return x0 + t.reshape(-1, 1, 1, 1) * self.e

    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        return x - self.corrupt(x0, t, x) + self.corrupt(x0, s, x)

    prior = reference = scales = levels = schedule = None  # type: ignore[assignment]


def test_algorithm_two_forgives_a_wrong_belief() -> None:
    """Where D is linear in s, it is exact for any restoration; algorithm 1 is not."""
    process = Linear()
    denoiser = Believing(process, lambda x, t: torch.sin(7 * x) + 3)
    x = process.corrupt(PICTURES, times(1.0, 3), PICTURES)
    exact = last(sample(denoiser, get("cold2"), GRID, x))
    assert (exact - PICTURES).abs().max() < 1e-12
    naive = last(sample(denoiser, get("cold1"), GRID, x))
    assert (naive - PICTURES).abs().max() > 0.5


@pytest.mark.parametrize("name", NOISELESS)
def test_a_true_belief_is_reached(name: str) -> None:
    process = Cold(Blur(steps=10, last=1.5))
    denoiser = Believing(process, lambda x, t: PICTURES)
    x = process.corrupt(PICTURES, times(1.0, 3), PICTURES)
    made = list(sample(denoiser, get(name), GRID, x))
    assert (made[-1].x - PICTURES).abs().max() < 1e-9
    middle = process.corrupt(PICTURES, times(made[9].t, 3), PICTURES)
    assert (made[9].x - middle).abs().max() < 1e-9


def test_what_is_random_is_drawn_once_a_run() -> None:
    """The hole stays where it is from step to step, and each seed has its own."""
    process = Cold(Masking(steps=10, spread=1.0))
    denoiser = Believing(process, lambda x, t: torch.ones_like(x))
    sampler = get("cold1")

    def run(seeds: list[int]) -> list[Tensor]:
        walk = sample(denoiser, sampler, GRID, PICTURES, noise=Noise(seeds))
        return [step.x for step in walk]

    made = run([4, 5, 6])
    for x in made[:-1]:
        # With a belief of 1 everywhere x is the mask itself: darkest at the hole's centre.
        assert torch.equal(x.flatten(1).argmin(1), made[0].flatten(1).argmin(1))
    assert len(set(made[0].flatten(1).argmin(1).tolist())) > 1
    assert all(torch.equal(a, b) for a, b in zip(made, run([4, 5, 6]), strict=True))
    swapped = run([6, 5, 4])
    assert all(torch.equal(a[0], b[2]) for a, b in zip(made, swapped, strict=True))
    assert process.draw is None


def test_samplers_of_noise_say_that_there_is_none() -> None:
    denoiser = Believing(Cold(Blur(steps=10)), lambda x, t: x)
    for name in SAMPLERS:
        if name not in (*NOISELESS, "ddim_inverse"):
            with pytest.raises(UsageError, match="cold"):
                last(sample(denoiser, get(name), GRID, PICTURES))


def test_on_noise_algorithm_one_forgets_the_noise() -> None:
    schedule = schedules.vp()
    x = torch.zeros(2, 1, dtype=torch.float64)
    grid = grids.log_snr(schedule, 5)
    runs = [
        last(sample(mixture(schedule), get("cold1"), grid[:-1], x, noise=Noise(s, 2)))
        for s in (0, 5)
    ]
    assert not torch.equal(*runs)
