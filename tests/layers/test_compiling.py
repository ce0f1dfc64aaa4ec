"""A compiled network computes what the plain one does, and hooks still read it."""

import pytest
import torch

from fromnoise import nets
from fromnoise.core.errors import UsageError
from fromnoise.layers import compiling
from fromnoise.layers.attention import ReadMaps, hooked
from fromnoise.layers.compiling import compile_parts
from fromnoise.layers.fast import compiled
from fromnoise.nets import Network

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method`")

UNET = {
    "kind": "unet", "in_channels": 1, "channels": 8, "multipliers": [1, 2], "blocks": 1,
    "attention": {"at": [2], "heads": 2}, "style": {"groups": 4},
}  # fmt: skip


def filled(config: dict[str, object]) -> Network:
    torch.manual_seed(0)
    net = nets.build(config).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return net


def test_attention_and_single_layers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_check", lambda: None)  # it takes seconds
    net = filled(UNET)
    count = compile_parts(net)
    done = [part for part in net.modules() if part._compiled_call_impl is not None]
    assert len(done) == count > 4
    for part in done:
        names = {type(inner).__name__ for inner in part.modules()}
        assert len(list(part.modules())) > 1 and "Attention" not in names


def test_where_it_does_not_work_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no C++ compiler\nand a page of detail")

    monkeypatch.setattr(compiling.torch, "compile", broken)
    with pytest.raises(UsageError, match=r"not work here \(no C\+\+ compiler\); leave out"):
        compiled(filled(UNET), torch.float32)


@pytest.mark.slow
def test_it_computes_what_the_plain_network_does() -> None:
    dtype, bound = torch.float64, 1e-12
    net = filled({**UNET, "multipliers": [1], "attention": {"at": [1], "heads": 2}})
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.9])
    ready, report = compiled(net, dtype)
    assert report["compiled"] > 2
    with torch.inference_mode():
        truth = net.double()(x.double(), t.double())
        with hooked(maps := ReadMaps()):
            made = ready(x, t)
    assert maps.maps_at
    assert ((made - truth).norm() / truth.norm()).item() < bound
    assert ((made + 1e-9 - truth).norm() / truth.norm()).item() > bound
