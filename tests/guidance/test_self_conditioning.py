"""A network that is shown its last belief: its memory belongs to one run."""

import pytest
import torch
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.guidance import ClassifierFree
from fromnoise.guidance.self_conditioning import SelfConditioning
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts, Network
from fromnoise.parameterizations import PARAMETERIZATIONS

GRID = torch.tensor([0.9, 0.6, 0.3, 0.1], dtype=torch.float64)


class Echo(Network):
    """x0 = 0.1·x + 0.5·(what it is shown) + its label."""

    def __init__(self) -> None:
        super().__init__()
        self.in_channels = self.out_channels = 2
        self.spatial_dims, self.divisor = 0, 1
        self.accepts = Accepts(channels={"self": 2}, vector={"label": 2})

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return 0.1 * x[:, :2] + 0.5 * x[:, 2:] + condition.vector["label"]


def _denoiser() -> NetworkDenoiser:
    return NetworkDenoiser(Echo(), schedules.vp(), PARAMETERIZATIONS.build({"kind": "x0"}))


def _condition(count: int = 3) -> Condition:
    told = torch.eye(2)[torch.arange(count) % 2]
    null = Condition(vector={"label": torch.zeros(count, 2)})
    return Condition(vector={"label": told}, null=null)


def _points(seed: int, count: int = 3) -> Tensor:
    return Noise(seed, count).normal(torch.empty(count, 2))


def _times(count: int = 3) -> Tensor:
    return torch.full((count,), 0.5, dtype=torch.float64)


def test_the_first_belief_is_formed_without_and_the_next_with_the_last() -> None:
    bound = SelfConditioning(_denoiser()).bind(_condition(), GRID)
    x, label = _points(0), _condition().vector["label"]
    first = bound(x, _times()).x0
    torch.testing.assert_close(first, 0.1 * x + label)
    second = bound(2 * x, _times()).x0
    torch.testing.assert_close(second, 0.2 * x + 0.5 * first + label)


def test_unbound_it_is_the_denoiser_itself() -> None:
    denoiser = _denoiser()
    x, condition = _points(0), _condition()
    wrapped = SelfConditioning(denoiser)
    for _ in range(2):
        assert torch.equal(wrapped(x, _times(), condition).x0, denoiser(x, _times(), condition).x0)


def test_two_interleaved_runs_equal_two_separate_ones() -> None:
    wrapped = SelfConditioning(_denoiser())

    def separate(seed: int) -> list[Tensor]:
        bound = wrapped.bind(_condition(), GRID)
        return [bound(_points(seed + i), _times()).x0 for i in range(4)]

    expected = [separate(0), separate(100)]
    runs = [wrapped.bind(_condition(), GRID) for _ in range(2)]
    for i in range(4):
        for run, bound in enumerate(runs):
            found = bound(_points(100 * run + i), _times()).x0
            assert torch.equal(found, expected[run][i])


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_under_guidance_each_belief_is_shown_its_own(scale: float) -> None:
    condition = _condition()
    assert condition.null is not None
    guided = ClassifierFree(SelfConditioning(_denoiser()), scale).bind(condition, GRID)
    told, null = (
        SelfConditioning(_denoiser()).bind(part, GRID) for part in (condition, condition.null)
    )
    for step in range(3):
        x = _points(step)
        a, b = told(x, _times()).x0, null(x, _times()).x0
        torch.testing.assert_close(guided(x, _times()).x0, b + scale * (a - b))


def test_another_number_of_samples_begins_anew() -> None:
    condition = Condition(vector={"label": torch.zeros(3, 2)})
    bound = SelfConditioning(_denoiser()).bind(condition, GRID)
    bound(_points(0), _times())
    narrow = SelfConditioning(_denoiser()).bind(condition.rows(slice(2)), GRID)
    assert torch.equal(narrow(_points(0)[:2], _times(2)).x0, 0.1 * _points(0)[:2])
