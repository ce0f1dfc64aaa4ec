"""Plain Langevin dynamics fails between modes; annealed dynamics finds their weights.

    python -m benchmarks.langevin

Data are two Gaussians far apart, one in five points in the first, and the score is exact. Both
samplers begin at the same points and ask for the score equally often.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.output import PICTURES
from fromnoise import grids, schedules
from fromnoise.core.files import write_bytes
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import MixtureDenoiser
from fromnoise.evaluate import Estimate, wilson
from fromnoise.samplers import AnnealedLangevin, Langevin, Sampler, last, sample

POINTS, LEVELS, REPEATS = 1000, 100, 10
SPREAD = 4.0
"""Of the starting points, and the greatest noise level."""

WEIGHTS = torch.tensor([0.2, 0.8], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
STDS = torch.tensor([0.2, 0.2], dtype=torch.float64)

PLAIN = Langevin(ratio=0.05, repeats=REPEATS)
ANNEALED = AnnealedLangevin(repeats=REPEATS)


def mixture() -> MixtureDenoiser:
    """The two Gaussians with noise levels from 0.05 to the starting spread."""
    return MixtureDenoiser(WEIGHTS, MEANS, STDS, schedules.ve(sigma_min=0.05, sigma_max=SPREAD))


def draw(sampler: Sampler, seed: int = 0, points: int = POINTS) -> Tensor:
    """Points (N, 2) that a sampler ends at from N(0, spread²), seed by seed."""
    denoiser = mixture()
    noise = Noise(seed, points)
    start = SPREAD * noise.normal(torch.zeros(points, 2, dtype=torch.float64))
    grid = grids.log_snr(denoiser.process.schedule, LEVELS)
    return last(sample(denoiser, sampler, grid, start, noise=noise))


def share(x: Tensor) -> Estimate:
    """The share of points nearer to the second mode, with its interval."""
    second = torch.cdist(x.double(), MEANS).argmin(1) == 1
    return wilson(int(second.sum()), len(x))


def picture(clouds: dict[str, Tensor]) -> bytes:
    """The clouds beside each other on the same axes, as a PNG."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(clouds), sharex=True, sharey=True)
    for ax, (name, x) in zip(axes, clouds.items(), strict=True):
        ax.scatter(x[:, 0], x[:, 1], s=4, alpha=0.5, linewidths=0)
        ax.set_title(f"{name}\n{100 * share(x).value:.0f} % in the upper mode", fontsize=10)
        ax.set_aspect("equal")
        ax.grid(alpha=0.25, linewidth=0.6)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shares and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    options = parser.parse_args(arguments)
    clouds = {
        "data": mixture().draw(POINTS, options.seed),
        "plain Langevin": draw(PLAIN, options.seed),
        "annealed Langevin": draw(ANNEALED, options.seed),
    }
    print(f"share of {POINTS} points in the heavier mode (0.8 of the data is there)")
    for name, x in clouds.items():
        found = share(x)
        print(f"  {name:18s} {found.value:.3f}  ({found.low:.3f} to {found.high:.3f})")
    write_bytes(options.pictures / "langevin.png", picture(clouds))
    print("picture langevin.png")


if __name__ == "__main__":
    main()
