"""The seam in whole networks: maps by place, head and token; nothing is left behind; t and rows."""

from typing import Any

import pytest
import torch
from nets.filling import filled, told
from torch import Tensor

from fromnoise import nets, schedules
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.guidance import ClassifierFree
from fromnoise.layers.attention import (
    Hook,
    Moment,
    Place,
    ReadMaps,
    ReplaceMaps,
    hooked,
    moment,
)
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.parameterizations import PARAMETERIZATIONS

ACCEPTS = {"vector": {"label": 3}, "tokens": 5}
NETS: dict[str, dict[str, Any]] = {
    "unet": {
        "kind": "unet", "in_channels": 1, "channels": 8, "multipliers": [1, 2], "blocks": 1,
        "attention": {"at": [1, 2], "heads": 2}, "style": {"groups": 4}, "accepts": ACCEPTS,
    },
    "dit": {
        "kind": "dit", "in_channels": 1, "size": 8, "patch": 2, "width": 16, "depth": 2,
        "heads": 2, "accepts": ACCEPTS,
    },
}  # fmt: skip


def asked(net: nets.Network) -> tuple[Tensor, Tensor, Condition]:
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([3.0, 500.0]), told(net, 2, (8, 8))


@pytest.mark.parametrize("kind", NETS)
def test_maps_are_read_by_place_and_the_net_is_as_it_was(kind: str) -> None:
    net = filled(NETS[kind])
    x, time, condition = asked(net)
    before, state = net(x, time, condition), {k: v.clone() for k, v in net.state_dict().items()}
    with hooked(read := ReadMaps()):
        watched = net(x, time, condition)
    torch.testing.assert_close(watched, before, atol=1e-5, rtol=1e-5)
    for name, (maps,) in read.maps_at.items():
        assert maps.shape[:2] == (2, 2), name
        torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))
    assert any(maps[0].shape[-1] == 4 for maps in read.maps_at.values())
    assert torch.equal(net(x, time, condition), before)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("kind", NETS)
def test_putting_a_map_in_place_changes_that_place_head_and_token_alone(kind: str) -> None:
    net = filled(NETS[kind])
    x, time, condition = asked(net)
    with hooked(before := ReadMaps()):
        plain = net(x, time, condition)
    last = [name for name in before.maps_at if before.maps_at[name][0].shape[-1] == 4][-1]

    def here(place: Place) -> bool:
        return place.name == last

    same = ReplaceMaps(lambda place, part: part, here)
    doubled = ReplaceMaps(lambda place, part: 2 * part, here, heads=[1], tokens=[0, 2])
    with hooked(same):
        torch.testing.assert_close(net(x, time, condition), plain, atol=1e-5, rtol=1e-5)
    with hooked(doubled, after := ReadMaps()):
        changed = net(x, time, condition)
    assert not torch.allclose(changed, plain, atol=1e-4)
    for name, (maps,) in before.maps_at.items():
        expected = maps.clone()
        if name == last:
            expected[:, 1, :, [0, 2]] *= 2
            torch.testing.assert_close(after.maps_at[name][0], expected)
        elif list(before.maps_at).index(name) < list(before.maps_at).index(last):
            torch.testing.assert_close(after.maps_at[name][0], expected)


class Moments(Hook):
    """Keeps the moment of every call, and answers with the map it is shown."""

    def __init__(self) -> None:
        self.seen: list[Moment] = []

    def wants(self, place: Place) -> bool:
        return place.kind == "cross"

    def maps(self, place: Place, probabilities: Tensor) -> Tensor:
        self.seen.append(moment())
        return probabilities


def guided(kind: str) -> tuple[NetworkDenoiser, Condition]:
    net = filled(NETS[kind])
    schedule, reading = schedules.linear(1000), PARAMETERIZATIONS.build({"kind": "eps"})
    one, other = told(net, 2, (8, 8)), told(net, 2, (8, 8), seed=1)
    condition = Condition(vector=one.vector, tokens=one.tokens, null=other)
    return NetworkDenoiser(net, schedule, reading), condition


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("bound", [False, True])
def test_hooks_know_the_time_and_the_rows_that_are_told(kind: str, bound: bool) -> None:
    denoiser, condition = guided(kind)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.9, 0.4], dtype=torch.float64)
    wrapped = ClassifierFree(denoiser, 3.0)
    with torch.no_grad(), hooked(seen := Moments()):
        if bound:
            wrapped.bind(condition, torch.tensor([0.9, 0.0]))(x, t)
        else:
            wrapped(x, t, condition)
        pairs = len(seen.seen)
        denoiser(x, t, condition)
    assert pairs and len(seen.seen) == 2 * pairs
    for now in seen.seen[:pairs]:
        assert now.t is not None and now.told is not None
        assert torch.equal(now.t, torch.cat([t, t]))
        assert now.told.tolist() == [True, True, False, False]
    for now in seen.seen[pairs:]:
        assert now.t is not None and torch.equal(now.t, t) and now.told is None
    assert moment() == Moment()


def test_a_hook_that_changes_only_rows_that_are_told_leaves_the_null_alone() -> None:
    """Tokens hidden from the told rows alone: the same as guiding with tokens that are masked."""
    denoiser, condition = guided("dit")
    assert condition.tokens is not None and condition.null is not None

    class Hide(Moments):
        def maps(self, place: Place, probabilities: Tensor) -> Tensor:
            told = moment().told
            assert told is not None
            return probabilities * ~told[:, None, None, None]

    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.9, 0.4], dtype=torch.float64)
    wrapped = ClassifierFree(denoiser, 3.0)
    with torch.no_grad():
        with hooked(Hide()):
            hidden = wrapped(x, t, condition).x0
        nobody = torch.zeros(2, 4, dtype=torch.bool)
        deaf = Condition(
            vector=condition.vector, tokens=Tokens(condition.tokens.values, nobody),
            null=condition.null,
        )  # fmt: skip
        torch.testing.assert_close(hidden, wrapped(x, t, deaf).x0, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(hidden, wrapped(x, t, condition).x0, atol=1e-3)


def test_computing_again_in_the_backward_pass_sees_the_same_hooks_and_moment() -> None:
    denoiser, condition = guided("dit")
    denoiser.net.train()
    denoiser.net.checkpointing = True
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.9, 0.4], dtype=torch.float64)
    with hooked(seen := Moments()):
        loss = denoiser(x, t, condition).x0.square().sum()
        # Another hook in the seam by then does not stand there the second time.
        with hooked(ReplaceMaps(lambda place, part: 0 * part)):
            loss.backward()
    assert len(seen.seen) == 4
    assert all(now.t is not None and torch.equal(now.t, t) for now in seen.seen)
