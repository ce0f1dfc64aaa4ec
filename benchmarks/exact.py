"""Quality against the number of steps where the denoiser is exact: no training, no chance in it.

    python -m benchmarks.exact

Data is a mixture of two Gaussians on a line, so the denoiser is known in closed form, and so is
the distance of samples to the data: in one dimension the Wasserstein distance is the mean
distance of sorted samples to the quantiles. All samplers start from the same evenly spread
quantiles of the noise, so what is left is the sampler's own error.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.output import NAMES, PICTURES, RESULTS, STEPS, header, row, title
from fromnoise import grids, schedules
from fromnoise.core.files import write_bytes, write_json
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import MixtureDenoiser
from fromnoise.evaluate import quality_curve
from fromnoise.samplers import get, last, sample

SAMPLES = 10_000
WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 0.6], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.2], dtype=torch.float64)


class OneGenerator(Noise):
    """Noise of many points from one generator: thousands of generators would only cost time."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.seeds = tuple(range(count))
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator, dtype=like.dtype)


def levels(count: int) -> Tensor:
    """The middles of `count` equal parts of [0, 1]."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def quantiles(count: int) -> Tensor:
    """The data's quantiles at `levels`, by bisection of its distribution function."""
    wanted = levels(count)
    low, high = torch.full_like(wanted, -4.0), torch.full_like(wanted, 4.0)
    for _ in range(60):
        middle = (low + high) / 2
        z = (middle[:, None] - MEANS) / (STDS * math.sqrt(2.0))
        below = (WEIGHTS * 0.5 * (1.0 + torch.erf(z))).sum(1) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def distance(name: str, steps: int, grid: str = "log_snr", samples: int = SAMPLES) -> float:
    """The Wasserstein-1 distance between the data and what a sampler makes in so many steps."""
    schedule = schedules.linear()
    denoiser = MixtureDenoiser(WEIGHTS, MEANS[:, None], STDS, schedule)
    start = torch.special.ndtri(levels(samples))[:, None]
    times = grids.get(grid)(schedule, steps)
    x = last(sample(denoiser, get(name), times, start, noise=OneGenerator(samples)))
    return (x[:, 0].sort().values - quantiles(samples)).abs().mean().item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, write the figures and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--grid", default="log_snr")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    options = parser.parse_args(arguments)
    print(f"Wasserstein distance to a mixture whose denoiser is exact; {options.grid} grid")
    print(header(STEPS))
    found = {}
    for name in NAMES:
        found[name] = {n: distance(name, n, options.grid, options.samples) for n in STEPS}
        print(row(name, found[name], ".4f"), flush=True)
    write_json(
        options.results / "exact.json",
        {
            "format": 1,
            "quality": "wasserstein_1",
            "grid": options.grid,
            "samples": options.samples,
            "samplers": {name: list(values.values()) for name, values in found.items()},
            "steps": list(STEPS),
        },
    )
    curves = {title(k): [(n, v, v, v) for n, v in values.items()] for k, values in found.items()}
    picture = options.pictures / "steps-exact.png"
    write_bytes(picture, quality_curve(curves, "Wasserstein distance to the data"))
    print(f"plot {picture.name}, figures exact.json")


if __name__ == "__main__":
    main()
