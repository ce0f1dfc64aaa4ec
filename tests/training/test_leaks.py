"""A network that is told of its augmentations draws unchanged samples."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise import grids, samplers, schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.data import Dataset, Flip, Loader
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.nets import NETS
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.training import Draws, ObjectiveSettings
from fromnoise.training.denoising import denoising


class Arrows(Dataset):
    """Pictures of two pixels in a row, dark on the left, bright on the right: all point left."""

    def __init__(self) -> None:
        self.name, self.shape, self.levels, self.classes = "arrows", (2,), None, ()
        self.labels = None
        generator = torch.Generator().manual_seed(0)
        self.x = torch.tensor([-0.7, 0.7]) + 0.1 * torch.randn(256, 2, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self.x[torch.from_numpy(indices)]


def _share_that_points_left(told: bool) -> float:
    """Of samples of a network trained on arrows that are flipped half the time."""
    torch.manual_seed(0)
    accepts = {"vector": {"augment": 1}} if told else {}
    net = NETS.build({"kind": "mlp", "in_channels": 2, "width": 48, "depth": 2, "accepts": accepts})
    encoders = {"augment": {"kind": "augment", "width": 1}} if told else {}
    conditioning = Conditioning.build(encoders)
    denoiser = NetworkDenoiser(net, schedules.cosine(), PARAMETERIZATIONS.build({"kind": "v"}))
    objective = denoising(denoiser, conditioning, ObjectiveSettings(condition_dropout=0.1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    batches = Loader(Arrows(), 64, seed=0, augment=Flip(0.5)).start(0)
    for step in range(200):
        optimizer.zero_grad()
        objective.loss(next(batches), Draws.of_step(0, step, range(64), 64)).backward()
        optimizer.step()
    start = Noise(0, 100).normal(torch.empty(100, 2))
    grid = grids.get("uniform")(denoiser.process.clock, 12)
    walk = samplers.sample(
        denoiser, samplers.get("ddim"), grid, start,
        conditioning({}, 100) if told else None,
    )  # fmt: skip
    x = samplers.last(walk)
    assert x.abs().mean() == pytest.approx(0.7, abs=0.1)
    return float((x[:, 0] < x[:, 1]).float().mean())


@pytest.mark.slow
def test_a_network_that_is_told_draws_unflipped_pictures() -> None:
    assert _share_that_points_left(told=True) > 0.97


@pytest.mark.slow
def test_a_network_that_is_not_told_draws_flipped_ones() -> None:
    """The control: the augmentation leaks into half of the samples."""
    assert 0.3 < _share_that_points_left(told=False) < 0.7


def test_what_is_told_must_have_the_width_the_network_takes() -> None:
    from fromnoise import recipes
    from fromnoise.app.train import augmentation

    recipe = recipes.get("digits")
    assert augmentation(recipe) is None
    augment = [{"kind": "flip"}, {"kind": "geometric"}]
    for width, fits in ((8, True), (9, False)):
        encoders = {**recipe.encoders, "augment": {"kind": "augment", "width": width}}
        changed = recipe.model_copy(update={"augment": augment, "encoders": encoders})
        if fits:
            made = augmentation(changed)
            assert made is not None and made.width == 8
        else:
            with pytest.raises(UsageError, match="tell 8 numbers and its network is told 9"):
                augmentation(changed)
