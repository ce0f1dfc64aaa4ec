"""Memory found on the meta device: against arithmetic, and against a process that really runs."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from fromnoise import nets
from fromnoise.model.memory import peak
from fromnoise.model.meta import on_meta, zeros


def test_a_chain_holds_what_goes_in_and_out_of_its_widest_layer() -> None:
    layers = nn.Sequential(nn.Linear(10, 100), nn.Linear(100, 1000), nn.Linear(1000, 10))
    bare, x = on_meta(layers), zeros((8, 10))
    assert peak(lambda: bare(x)) == 8 * 4 * (100 + 1000)


def test_what_is_kept_counts_until_it_is_let_go() -> None:
    x = zeros((100,))

    def kept() -> None:
        held = [x + 1 for _ in range(5)]
        del held
        _ = x + 1

    def dropped() -> None:
        for _ in range(5):
            made = x + 1
        del made

    assert peak(kept) == 5 * 400
    # The name holds the last one while the next is made.
    assert peak(dropped) == 2 * 400


def test_attention_makes_no_map() -> None:
    q = zeros((1, 2, 5000, 16))
    assert peak(lambda: scaled_dot_product_attention(q, q, q)) < 5000**2


def test_the_original_keeps_its_weights_and_sharing() -> None:
    first = nn.Linear(3, 3)
    both = nn.ModuleList([first, first])
    first.register_buffer("words", torch.zeros(4, dtype=torch.uint8))
    bare = on_meta(both)
    assert bare[0] is bare[1] and bare[0] is not first
    assert bare[0].weight.is_meta and not first.weight.is_meta
    assert bare[0].words is first.words
    bare[0].register_forward_hook(lambda *_: None)
    assert not first._forward_hooks


def test_activations_grow_with_the_picture_and_halve_with_the_type() -> None:
    net = nets.build("ddpm-cifar10", device="meta")

    def of(side: int, dtype: torch.dtype) -> int:
        bare = on_meta(net).to(dtype)
        x, t = zeros((1, 3, side, side), dtype), zeros((1,), dtype)
        return peak(lambda: bare(x, t))

    sizes = [of(side, torch.float32) for side in (32, 64, 128)]
    for smaller, larger in pairwise(sizes):
        assert 3.8 < larger / smaller <= 4.0
    assert 0.49 < of(64, torch.bfloat16) / sizes[1] < 0.55


_RUN = """
import json, resource, sys, torch
import fromnoise as fn
from fromnoise import codecs, encoders, processes, schedules, parameterizations
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.model import Model
net = fn.nets.build({"kind": "unet", "in_channels": 4, "channels": 128, "multipliers": [1, 2, 4],
                     "blocks": 2, "attention": {"at": [2, 4], "heads": 4},
                     "accepts": {"tokens": 256}}).eval()
codec = codecs.KL(widths=(64, 128, 256, 256)).eval()
model = Model(NetworkDenoiser(net, processes.Gaussian(schedules.linear(1000)),
                              parameterizations.Eps()),
              (3, 512, 512), codec, encoders.Conditioning({"prompt": encoders.Text(width=256)}))
dtype = getattr(torch, sys.argv[1])
if sys.argv[2] == "found":
    from fromnoise.model.memory import needed
    print(json.dumps(needed(model, dtype=dtype).total))
else:
    told = Condition(tokens=Tokens(torch.zeros(2, 77, 256)))
    with torch.no_grad():
        model.prepared(dtype).net(torch.randn(2, 4, 64, 64), torch.full((2,), 500.0), told)
    model.decode(torch.randn(1, 4, 64, 64))
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_real_run_needs_about_as_much(dtype: str) -> None:
    """A network of 70 million weights and a decoder over 512 pixels, each in its own process."""
    found, real = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _RUN, dtype, what], capture_output=True, check=True
            ).stdout
        )
        for what in ("found", "real")
    )
    assert 0.8 < found / real < 1.25
