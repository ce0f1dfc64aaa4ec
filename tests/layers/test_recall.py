"""Keys and values of tokens are made once in a run, and nothing else about the run changes."""

import gc
import weakref

import pytest
import torch
from torch import nn

from fromnoise import grids, guidance, nets, samplers, schedules
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.denoisers.base import Denoiser
from fromnoise.layers.attention import ReadMaps, TokenAttention, hooked
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.layers.fast import prepare
from fromnoise.layers.recall import Recall, recalling
from fromnoise.parameterizations import Eps

SCHEDULE = schedules.linear()
DIT = {"kind": "dit", "in_channels": 3, "size": 8, "patch": 2, "width": 32, "depth": 2, "heads": 2}
UNET = {"kind": "unet", "channels": 32, "multipliers": [1, 2], "blocks": 1}


def network(transformer: bool, dtype: torch.dtype = torch.float32) -> nets.Network:
    torch.manual_seed(0)
    attention = {"at": [2], "heads": 2, "transformer": {} if transformer else None}
    net = nets.build({**UNET, "attention": attention, "accepts": {"tokens": 24}})
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net.eval() if dtype == torch.float32 else prepare(net, dtype)[0]


def told(count: int = 2) -> Condition:
    generator = torch.Generator().manual_seed(3)
    tokens, null = (Tokens(torch.randn(count, 5, 24, generator=generator)) for _ in range(2))
    return Condition(tokens=tokens, null=Condition(tokens=null))


class Forgetful(Denoiser):
    """The same denoiser, whose runs remember nothing."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.process = denoiser, denoiser.process

    def __call__(self, x, t, condition=None):
        return self.denoiser(x, t, condition)


def counted(net: nn.Module) -> list[str]:
    """The names of the layers that made keys of tokens, as they are called."""
    calls: list[str] = []
    for name, part in net.named_modules():
        if isinstance(part, nn.Module) and name.endswith(("cross.key", "cross.value")):
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    return calls


def walk(denoiser: Denoiser, scale: float = 3.0, steps: int = 4) -> torch.Tensor:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    guided = guidance.ClassifierFree(denoiser, scale) if scale != 1 else denoiser
    grid = grids.log_snr(SCHEDULE, steps)
    return samplers.last(samplers.sample(guided, samplers.get("ddim"), grid, x, told()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transformer", [True, False])
@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_the_same_bits_and_each_key_made_once(transformer, scale, dtype):
    net = network(transformer, dtype)
    denoiser = NetworkDenoiser(net, SCHEDULE, Eps())
    calls = counted(net)
    assert torch.equal(walk(denoiser, scale), (walk(denoiser, scale)))
    once = len(set(calls))
    assert once >= 2
    assert len(calls) == 2 * once, "two runs, each of which makes them once"
    calls.clear()
    remembered = walk(denoiser, scale)
    forgotten = walk(Forgetful(denoiser), scale)
    assert len(calls) == once + 4 * once
    assert torch.equal(remembered, forgotten)


def test_hooks_see_the_same():
    seen = []
    denoiser = NetworkDenoiser(network(True), SCHEDULE, Eps())
    for one in (denoiser, Forgetful(denoiser)):
        maps = ReadMaps()
        with hooked(maps):
            walk(one)
        seen.append(maps.maps_at)
    assert seen[0].keys() == seen[1].keys()
    for name, maps in seen[0].items():
        assert all(torch.equal(a, b) for a, b in zip(maps, seen[1][name], strict=True))


def test_other_tokens_are_not_taken_for_the_same():
    layer = TokenAttention(8, 2, "cross", context=6)
    x = torch.randn(1, 4, 8)
    first, second = torch.randn(1, 3, 6), torch.randn(1, 3, 6)
    with torch.no_grad(), recalling(Recall()):
        together = [layer(x, tokens) for tokens in (first, second, first)]
    with torch.no_grad():
        alone = [layer(x, tokens) for tokens in (first, second, first)]
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    assert not torch.equal(alone[0], alone[1])


def test_what_has_a_gradient_is_not_remembered():
    layer = TokenAttention(8, 2, "cross", context=6)
    x, tokens = torch.randn(1, 4, 8), torch.randn(1, 3, 6)
    memory = Recall()
    for _ in range(2):
        with recalling(memory):
            layer(x, tokens).sum().backward()
    assert len(memory) == 0
    # What inference mode made is no use where a gradient is asked for, so it is made anew.
    layer.requires_grad_(False)
    with torch.inference_mode(), recalling(memory):
        layer(x, tokens)
    given = x.clone().requires_grad_()
    with recalling(memory):
        layer(given, tokens).sum().backward()
    assert given.grad is not None
    assert len(memory) == 2


def test_a_run_lets_go_of_what_it_remembered():
    net = network(True)
    denoiser = NetworkDenoiser(net, SCHEDULE, Eps())
    bound = denoiser.bind(told(), grids.log_snr(SCHEDULE, 2))
    with torch.no_grad():
        bound(torch.randn(2, 3, 8, 8), torch.tensor([0.5, 0.5], dtype=torch.float64))
    memory = bound._memory
    assert len(memory) == sum(n.endswith("cross") for n, _ in net.named_modules())
    gone = weakref.ref(memory)
    del bound, memory
    gc.collect()
    assert gone() is None
