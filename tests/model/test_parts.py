"""The recipe of a part of a call draws just that part, whatever was told, and however."""

import json
from typing import Any

import pytest
import torch

from fromnoise import codecs, encoders, nets, parameterizations, processes, schedules
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.model import Defaults, Model
from fromnoise.model.samples import cut, one_of

SIDE = 4
MAP = [[0, 1, 0, 1]] * SIDE
MAPS = [MAP, [[1] * SIDE] * SIDE, [[0] * SIDE] * SIDE, [[1, 0, 0, 1]] * SIDE]
DEPTH = [[-1.0, 0.0, 0.5, 1.0]] * SIDE
SMALL = [[[0.5, -0.5], [0.0, 1.0]]]

TOO = ("seeds", "start", "guide", "used")

TOLD: list[dict[str, Any]] = [
    {"inputs": {"embedding": [0.1, 0.2, 0.3, 0.4]}},
    {"inputs": {"embedding": [[0.1 * i, 0.2, 0.3, -0.4] for i in range(4)]}},
    {"inputs": {"size": {"height": [0.1, 0.5, 1.0, 2.0], "width": 0.5}}},
    {"inputs": {"size": {"height": [0.1], "width": [0.5, None, 0.7, 0.9]}}},
    {"inputs": {"size": [{"height": 0.1 * i} for i in range(4)]}},
    {"inputs": {"map": MAP}},
    {"inputs": {"map": MAPS}},
    {"inputs": {"depth": DEPTH}},
    {"inputs": {"low": SMALL}},
    {"inputs": {"low": {"picture": SMALL, "level": [0.0, 0.1, 0.2, 0.3]}}},
    {"label": [0, 1, 2, 3]},
    {"label": {2: 0.5, 3: 0.5}},
    {"label": [{0: 1.0}, 3, [0.1, 0.2, 0.3, 0.4], "b"]},
    {"inputs": {"label": [3, 2, 1, 0]}},
    {"label": 1, "guidance": 2.0, "negative": {"label": [3, 2, 1, 0]}},
    {"label": 1, "guidance": 2.0, "negative": [3, 2, 1, 0]},
    {"label": 1, "guidance": 2.0, "negative": {"embedding": [1.0, 2.0, 3.0, 4.0]}},
    {"label": 1, "guidance": torch.tensor([1.5, 2.0, 3.0, 4.0])},
]


@pytest.fixture(scope="module")
def model() -> Model:
    """Four of everything, so that a length tells nothing."""
    told = encoders.Conditioning(
        {
            "label": encoders.Label(["a", "b", "c", "d"]),
            "embedding": encoders.Vector(4),
            "size": encoders.Attributes({"height": (0.0, 2.0), "width": (0.0, 1.0)}),
            "map": encoders.LabelMap(2),
            "depth": encoders.Depth(),
            "low": encoders.LowResolution(2, channels=1),
        }
    )
    null = told.null(1)
    torch.manual_seed(0)
    net = nets.build(
        {
            "kind": "unet", "in_channels": 1, "channels": 8, "multipliers": [1], "blocks": 1,
            "style": {"groups": 4},
            "accepts": {
                "channels": {name: value.shape[1] for name, value in null.channels.items()},
                "vector": {name: value.shape[1] for name, value in null.vector.items()},
            },
        }
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    denoiser = NetworkDenoiser(net, processes.Gaussian(schedules.cosine()), parameterizations.V())
    return Model(denoiser, (1, SIDE, SIDE), codecs.Identity(), told, Defaults(steps=2))


def again(model: Model, recipe: dict[str, Any], count: int) -> torch.Tensor:
    """What a recipe draws once it has been written as JSON."""
    told = json.loads(json.dumps(recipe))
    given = {key: value for key, value in told.items() if key not in TOO}
    if isinstance(given["guidance"], list):
        given["guidance"] = torch.tensor(given["guidance"])
    return model.sample(count, seed=told["seeds"], **given).tensor


@pytest.mark.parametrize("told", TOLD)
def test_a_part_is_drawn_again_bit_for_bit(model: Model, told: dict[str, Any]) -> None:
    whole = model.sample(4, seed=5, batch_size=3, **told)
    for i in range(4):
        assert torch.equal(again(model, one_of(whole.recipe, i), 1)[0], whole.tensor[i])
    part = whole[1:3]
    assert torch.equal(again(model, part.recipe, 2), part.tensor)
    assert torch.equal(again(model, part[1:].recipe, 1), part.tensor[1:])
    # The control: it is told something.
    assert not torch.equal(model.sample(4, seed=5, batch_size=3).tensor, whole.tensor)


def test_tensors_and_arrays_are_cut_as_lists_are(model: Model) -> None:
    """As processes that share a call cut them."""
    raw = {
        "embedding": torch.arange(4.0),
        "map": torch.tensor(MAPS).numpy(),
        "depth": torch.tensor(DEPTH)[None],
        "low": {"picture": torch.tensor(SMALL), "level": torch.tensor(0.3)},
        "size": {"height": torch.tensor([0.1, 0.5, 1.0, 2.0]), "width": [0.5]},
    }
    each = model.conditioning.each(raw, 4)
    whole = model.sample(4, seed=5, batch_size=3, inputs=raw).tensor
    for rows in ([0, 1, 2], [3]):
        inputs, seeds = cut(each, rows), [5 + i for i in rows]
        drawn = model.sample(len(rows), seed=seeds, batch_size=3, inputs=inputs).tensor
        assert torch.equal(drawn, whole[rows])


def test_what_is_wrong_is_still_said(model: Model) -> None:
    with pytest.raises(UsageError, match="label 7"):
        model.stream(2, label=[7, [1, 2, 3, 4]])
