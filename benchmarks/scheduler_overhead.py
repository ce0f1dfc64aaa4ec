"""Microseconds a sampler spends on one step beside the network: ours and diffusers' schedulers.

    python -m benchmarks.scheduler_overhead [--size N --batch N --channels N --steps N]

Both walk the same number of steps of the same schedule on a tensor of the same shape, with a
denoiser that only hands back a prepared tensor, in turn in one process. The clock runs over the
whole walk, choosing the steps included, and the time is divided by the network evaluations in it.
The first walk of a sampler is stated by itself: ours computes its coefficients in it and keeps
them, so later walks on the same grid are cheaper. diffusers computes them in every walk.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import diffusers
import torch
from torch import Tensor

from fromnoise import grids, schedules
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Prediction
from fromnoise.processes import Gaussian, Process
from fromnoise.samplers import get

PAIRS = {
    "ddpm": diffusers.DDPMScheduler,
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "dpm++2m": diffusers.DPMSolverMultistepScheduler,
    "dpm++2m_sde": diffusers.DPMSolverMultistepScheduler,
    "deis2": diffusers.DEISMultistepScheduler,
    "unipc2": diffusers.UniPCMultistepScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "plms": diffusers.PNDMScheduler,
}
EXTRA = {"dpm++2m_sde": {"algorithm_type": "sde-dpmsolver++"}, "plms": {"skip_prk_steps": True}}


class Prepared(Bound):
    """A denoiser whose belief is a tensor made beforehand. It counts how often it is asked."""

    def __init__(self, process: Process, belief: Tensor) -> None:
        self.process = process
        self.belief = belief
        self.asked = 0

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        self.asked += 1
        return Prediction(self.belief, x, t, self.process)


def ours(name: str, x: Tensor, steps: int) -> Callable[[], float]:
    """A function that walks the grid once and returns the seconds an evaluation took."""
    schedule = schedules.scaled_linear()
    process = Gaussian(schedule)

    def walk() -> float:
        noise = Noise(0, x.shape[0])
        bound = Prepared(process, torch.zeros_like(x))
        started = time.perf_counter()
        times = [float(t) for t in grids.trailing(schedule, steps)]
        sampler = get(name).plan(times)
        state, current = sampler.init(x, times[0]), x
        for t, s in pairwise(times):
            current, state, _ = sampler.step(bound, current, t, s, state, noise)
        return (time.perf_counter() - started) / bound.asked

    return walk


def theirs(name: str, x: Tensor, steps: int) -> Callable[[], float]:
    """The same walk with diffusers' scheduler, constructed anew outside the clock."""
    options = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    output = torch.zeros_like(x)

    def walk() -> float:
        scheduler = PAIRS[name](num_train_timesteps=1000, **options, **EXTRA.get(name, {}))
        current = x
        started = time.perf_counter()
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            scheduler.scale_model_input(current, t)
            current = scheduler.step(output, t, current, return_dict=False)[0]
        return (time.perf_counter() - started) / len(scheduler.timesteps)

    return walk


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=32, help="side of the tensor")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    x = torch.randn(options.batch, options.channels, options.size, options.size)
    print(f"µs beside the network, per evaluation; {tuple(x.shape)}, {options.steps} steps;")
    print(f"the first walk, and the median of {options.repeats} more in turn")
    print(f"{'':12s}{'ours':>18s}{'diffusers':>18s}{'ratio':>16s}")
    print(f"{'sampler':12s}" + f"{'first':>9s}{'again':>9s}" * 2 + f"{'first':>8s}{'again':>8s}")
    with torch.no_grad():
        for name in PAIRS:
            walks = (ours(name, x, options.steps), theirs(name, x, options.steps))
            first = [1e6 * walk() for walk in walks]
            taken = [[1e6 * walk() for walk in walks] for _ in range(options.repeats)]
            again = [statistics.median(column) for column in zip(*taken, strict=True)]
            print(
                f"{name:12s}{first[0]:9.1f}{again[0]:9.1f}{first[1]:9.1f}{again[1]:9.1f}"
                f"{first[1] / first[0]:8.1f}{again[1] / again[0]:8.1f}"
            )


if __name__ == "__main__":
    main()
