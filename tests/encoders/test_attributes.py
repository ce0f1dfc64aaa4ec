"""Attributes by name become values in [−1, 1] and flags; what is not known is told as such."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.core.errors import FromNoiseError
from fromnoise.core.randomness import Noise
from fromnoise.encoders import ENCODERS, Attributes

RANGES = {"size": (0.0, 2.0), "angle": (-90.0, 90.0)}


def vector(raw: Any, batch: int = 2) -> torch.Tensor:
    return Attributes(RANGES).encode("it", raw, batch).vector["it"]


def test_values_are_scaled_and_flagged() -> None:
    assert vector({"size": 0.5, "angle": [90.0, 0.0]}).tolist() == [
        [-0.5, 1.0, 1.0, 1.0],
        [-0.5, 0.0, 1.0, 1.0],
    ]
    assert vector([{"angle": -90}, {"size": 2}]).tolist() == [[0, -1, 0, 1], [1, 0, 1, 0]]
    assert vector(torch.tensor([[0.0, math.nan], [2.0, 45.0]])).tolist() == [
        [-1, 0, 1, 0],
        [1, 0.5, 1, 1],
    ]
    assert vector({"size": [None, 1.0]}).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]


def test_nothing_known_is_the_null() -> None:
    null = Attributes(RANGES).null("it", 2).vector["it"]
    assert torch.equal(vector({}), null) and torch.equal(null, torch.zeros(2, 4))


@given(st.floats(0.0, 2.0), st.floats(-90.0, 90.0))
def test_what_is_told_can_be_read_back(size: float, angle: float) -> None:
    told = vector({"size": size, "angle": angle}, 1)[0].double()
    assert (told[0] + 1).item() == pytest.approx(size, abs=1e-6)
    assert (told[1] * 90).item() == pytest.approx(angle, abs=1e-4)


def test_training_hides_its_share_each_by_itself_and_sampling_none() -> None:
    encoder = Attributes(RANGES, hidden=0.3)
    raw, x = torch.ones(4000, 2), torch.zeros(4000, 1, 2, 2)
    told = encoder.encode("it", encoder.drawn(raw, Noise(0, 4000), x), 4000).vector["it"]
    flags = told[:, 2:]
    assert flags.mean(0).tolist() == pytest.approx([0.7, 0.7], abs=0.03)
    assert (flags.sum(1) == 2).float().mean().item() == pytest.approx(0.49, abs=0.03)
    assert torch.equal(told[:, 0], flags[:, 0] * 0.0) and not told[flags[:, 1] == 0, 1].any()
    assert torch.equal(encoder.drawn(raw, Noise(0, 4000)), raw)
    encoder.eval()
    assert torch.equal(encoder.drawn(raw, Noise(0, 4000), x), raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"sise": 1.0}, "unknown attribute 'sise'; did you mean size"),
        ({"size": 2.5}, "attribute 'size' is 2.5; this model knows 0 to 2"),
        ({"size": math.inf}, "attribute 'size' is inf"),
        ({"size": "big"}, "attribute 'size' is 'big'; give numbers"),
        ({"size": [1.0, 1.0, 1.0]}, "3 values of 'size' given for 2 samples"),
        ([{"size": 1.0}], "1 attributes given for 2 samples"),
        (torch.zeros(2, 3), r"shape \(2, 3\); this model takes \(2, 2\): size, angle"),
        (1.0, "attributes are numbers by name"),
    ],
)
def test_wrong_attributes_are_refused(raw: Any, message: str) -> None:
    with pytest.raises(FromNoiseError, match=message):
        vector(raw)


@pytest.mark.parametrize(
    "config",
    [
        {"ranges": {}},
        {"ranges": {"size": [1.0, 1.0]}},
        {"ranges": {"size": [0.0, math.inf]}},
        {"ranges": {"size": [0.0, 1.0]}, "hidden": 1.0},
    ],
)
def test_what_they_cannot_be(config: dict[str, Any]) -> None:
    with pytest.raises(FromNoiseError):
        ENCODERS.build({"kind": "attributes", **config})


def test_it_is_rebuilt_from_its_configuration() -> None:
    made = Attributes(RANGES, 0.1)
    assert ENCODERS.build(made.config).config == made.config
