"""A film strip of denoising, with no training: the data set itself is the model.

`EmpiricalDenoiser` is the best denoiser there is for a finite data set. It answers every noise with
one of the pictures it holds, which is also why nobody wants it: it can only repeat. In each pair of
rows the upper one is x_t and the lower one is what the denoiser believes is under the noise.
"""

import torch

import fromnoise as fn
from fromnoise.core.randomness import Noise

digits = fn.data.load({"kind": "digits"})
pictures = digits.batch(range(len(digits))).x
schedule = fn.schedules.cosine()
memory = fn.denoisers.EmpiricalDenoiser(pictures, schedule)


def steps(count=5, seed=0):
    """The steps of a walk from noise to pictures."""
    start = memory.process.prior(Noise(seed, count), torch.zeros(count, 1, 8, 8))
    grid = fn.grids.trailing(schedule, steps=40)
    return fn.sample(memory, fn.samplers.get("ddim"), grid, start)


if __name__ == "__main__":
    strip = fn.explain.film(steps(), decode=lambda x: x, frames=10, rows=5)
    strip.save("film.png")
    *_, last = steps()
    gaps = fn.evaluate.nearest(pictures, last.x.float())
    print(f"film.png: {strip.width}×{strip.height}; farthest from the data set: {gaps.max():.1e}")
