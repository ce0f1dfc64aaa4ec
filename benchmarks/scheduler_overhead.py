"""Microseconds a sampler spends on one step beside the network: ours and diffusers' schedulers.

Both walk the same steps of the same schedule on a tensor of the same shape, with a denoiser that
only hands back a prepared tensor, in turn in one process. `--size` is the side of a 4-channel
latent, `--batch` its batch.
"""

import argparse
import statistics
import time
from collections.abc import Callable
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
    "dpm++2m": diffusers.DPMSolverMultistepScheduler,
    "dpm++2m_sde": diffusers.DPMSolverMultistepScheduler,
    "deis2": diffusers.DEISMultistepScheduler,
    "unipc2": diffusers.UniPCMultistepScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "plms": diffusers.PNDMScheduler,
}
EXTRA = {"dpm++2m_sde": {"algorithm_type": "sde-dpmsolver++"}, "plms": {"skip_prk_steps": True}}


class Prepared(Bound):
    """A denoiser whose belief is a tensor made beforehand."""

    def __init__(self, process: Process, belief: Tensor) -> None:
        self.process = process
        self.belief = belief

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        return Prediction(self.belief, x, t, self.process)


def ours(name: str, x: Tensor, steps: int) -> Callable[[], float]:
    """A function that walks the grid once and returns the seconds a step took."""
    schedule = schedules.scaled_linear()
    times = [float(t) for t in grids.trailing(schedule, steps)]
    bound = Prepared(Gaussian(schedule), torch.zeros_like(x))
    sampler = get(name).plan(times)

    def walk() -> float:
        noise = Noise(0, x.shape[0])
        state, current = sampler.init(x, times[0]), x
        started = time.perf_counter()
        for t, s in pairwise(times):
            current, state, _ = sampler.step(bound, current, t, s, state, noise)
        return (time.perf_counter() - started) / steps

    return walk


def theirs(name: str, x: Tensor, steps: int) -> Callable[[], float]:
    """The same walk with diffusers' scheduler, made anew outside the clock."""
    options = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    output = torch.zeros_like(x)

    def walk() -> float:
        scheduler = PAIRS[name](num_train_timesteps=1000, **options, **EXTRA.get(name, {}))
        scheduler.set_timesteps(steps)
        current = x
        started = time.perf_counter()
        for t in scheduler.timesteps:
            scheduler.scale_model_input(current, t)
            current = scheduler.step(output, t, current, return_dict=False)[0]
        return (time.perf_counter() - started) / len(scheduler.timesteps)

    return walk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    x = torch.randn(options.batch, 4, options.size, options.size)
    print(
        f"{'sampler':12s} {'first':>8s} {'ours':>8s} {'diffusers':>10s} {'ratio':>7s}   (µs a step)"
    )
    with torch.no_grad():
        for name in PAIRS:
            walks = (ours(name, x, options.steps), theirs(name, x, options.steps))
            first = walks[0]()
            taken = [[walk() for walk in walks] for _ in range(options.repeats)]
            mine, other = (1e6 * statistics.median(column) for column in zip(*taken, strict=True))
            print(f"{name:12s} {1e6 * first:8.1f} {mine:8.1f} {other:10.1f} {other / mine:7.1f}")


if __name__ == "__main__":
    main()
