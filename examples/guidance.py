"""What guidance does: two classes on a line, each drawn with a growing guidance scale.

At scale 1 the samples have their class's own mean and spread. Above 1 they move away from the
other class and huddle together; the price of being surely of a class is variety.
"""

import torch

import fromnoise as fn
from fromnoise.core.randomness import Noise
from fromnoise.samplers import last

COUNT = 2000
schedule = fn.schedules.cosine()
oracle = fn.denoisers.MixtureDenoiser(
    weights=torch.ones(2),
    means=torch.tensor([[-0.5], [0.5]]),
    stds=torch.tensor([0.5, 0.5]),
    process=schedule,
    labels=torch.tensor([0, 1]),
)
right = fn.Condition(
    vector={"label": torch.tensor([[0.0, 1.0]]).expand(COUNT, 2)},
    null=fn.Condition(vector={"label": torch.zeros(COUNT, 2)}),
)


def draw(scale):
    """Samples of the class on the right."""
    guided = fn.guidance.ClassifierFree(oracle, scale)
    grid = fn.grids.log_snr(schedule, steps=30)
    start = oracle.process.prior(Noise(seed=0, count=COUNT), torch.zeros(COUNT, 1))
    return last(fn.sample(guided, fn.samplers.get("dpm++2m"), grid, start, right))


if __name__ == "__main__":
    for scale in (0.0, 1.0, 2.0, 4.0):
        x = draw(scale)
        wrong = float((x < 0).float().mean())
        print(f"scale {scale:g}: mean {x.mean():+.2f}, spread {x.std():.2f}, below 0: {wrong:.1%}")
