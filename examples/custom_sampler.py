"""Your own sampler: a rule for one step from time t to time s, with no state of its own.

This is Heun's method. Along the walk y = x/α changes by dy = ε dr with r = σ/α: step with the ε
from here, look at the ε there, go back, and take the step with their mean.
"""

import torch

import fromnoise as fn
from fromnoise.samplers import Sampler, last


class MyHeun(Sampler):
    def step(self, bound, x, t, s, state, noise):
        here = bound(x, torch.full((len(x),), t, dtype=torch.float64))
        alpha, sigma = bound.process.levels(s)
        guess = alpha * here.x0 + sigma * here.eps
        if sigma == 0:
            return guess, state, here
        there = bound(guess, torch.full((len(x),), s, dtype=torch.float64))
        (alpha_t, sigma_t), eps = bound.process.levels(t), (here.eps + there.eps) / 2
        return alpha * (x / alpha_t + eps * (sigma / alpha - sigma_t / alpha_t)), state, here


if __name__ == "__main__":
    schedule = fn.schedules.edm()
    gaussian = fn.denoisers.GaussianDenoiser(0.0, 0.5, schedule)
    start = 80.0 * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    exact = start * 0.5 / (0.25 + 80.0**2) ** 0.5
    for steps in (20, 40, 80):
        grid = fn.grids.karras(schedule, steps)
        mine = last(fn.sample(gaussian, MyHeun(), grid, start))
        theirs = last(fn.sample(gaussian, fn.samplers.get("heun"), grid, start))
        error, apart = (mine - exact).abs().max(), (mine - theirs).abs().max()
        print(f"{steps} steps: error {error:.1e}, apart from the library's Heun {apart:.0e}")
