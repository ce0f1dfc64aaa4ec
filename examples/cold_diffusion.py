"""Diffusion without noise: digits are blurred away, and restored step by step in two ways.

The restorer is a crude one: of all training pictures, blurred as much, it takes the mean of the
nearest five. Algorithm 1 blurs its belief again and so keeps every error of it. Algorithm 2 only
changes what x already is, and the errors of the belief cancel as far as blur is smooth in time.
"""

import torch

import fromnoise as fn
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.samplers import last

digits = fn.data.load({"kind": "digits"})
pictures = digits.batch(range(len(digits))).x
known, unknown = pictures[100:], pictures[:100]


class Nearest(Denoiser):
    process = fn.processes.Cold(fn.operators.Blur(steps=20))

    def __call__(self, x, t, condition=None):
        blurred = self.process.corrupt(known, t[:1].expand(len(known)), torch.zeros(()))
        near = torch.cdist(x.flatten(1), blurred.flatten(1).to(x)).topk(5, largest=False).indices
        return Prediction(known[near].mean(1).to(x), x, t, self.process)


if __name__ == "__main__":
    restorer = Nearest()
    grid = fn.grids.uniform(restorer.process.clock, steps=20)[10:]
    when = grid[:1].expand(len(unknown))
    blurred = restorer.process.corrupt(unknown, when, torch.zeros(()))
    print(f"blurred: error {(blurred - unknown).square().mean():.4f}")
    for name in ("cold1", "cold2"):
        x = last(fn.sample(restorer, fn.samplers.get(name), grid, blurred))
        print(f"{name}: error {(x - unknown).square().mean():.4f}")
