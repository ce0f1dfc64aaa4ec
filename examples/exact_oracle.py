"""How good is a sampler? On a mixture of Gaussians the denoiser is exact, so only it can err.

Prints the mean error of the end point against the number of steps: for a method of order p, four
times the steps divide it by about 4^p.
"""

import math

import torch

import fromnoise as fn
from fromnoise.samplers import last

schedule = fn.schedules.ve(sigma_min=0.02, sigma_max=20.0)
oracle = fn.denoisers.MixtureDenoiser(
    weights=torch.tensor([0.3, 0.5, 0.2]),
    means=torch.tensor([[-1.0], [0.2], [1.1]]),
    stds=torch.tensor([0.3, 0.2, 0.25]),
    process=schedule,
)
start = 20.0 * torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]


def walk(name, steps):
    """From σ = 20 to σ = 0.02, evenly in log σ."""
    sigmas = torch.linspace(math.log(20.0), math.log(0.02), steps + 1, dtype=torch.float64)
    grid = schedule.time(-2 * sigmas)
    return last(fn.sample(oracle, fn.samplers.get(name), grid, start))


if __name__ == "__main__":
    truth = walk("dpm++3m", 1024)
    print(f"{'sampler':10s} {'16 steps':>9s} {'64':>9s} {'256':>9s}  order")
    for name in ("euler", "heun", "dpm++2m", "dpm++3m"):
        errors = [float((walk(name, n) - truth).abs().mean()) for n in (16, 64, 256)]
        order = math.log(errors[1] / errors[2], 4)
        print(f"{name:10s} {errors[0]:9.1e} {errors[1]:9.1e} {errors[2]:9.1e}  {order:.1f}")
