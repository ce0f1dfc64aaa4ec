import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fromnoise.core.errors import UsageError
from fromnoise.layers import fast, fast_kernels
from fromnoise.layers.attention import Attention, ReadMaps, hooked
from fromnoise.layers.blocks import AttentionBlock, ResBlock, Style
from fromnoise.layers.fast import prepare
from fromnoise.layers.resample import Upsample


class Small(nn.Module):
    """Every kind of layer the speed path replaces."""

    def __init__(self, scale_shift: bool = False) -> None:
        super().__init__()
        style = Style(scale_shift=scale_shift, dropout=0.3)
        self.enter = nn.Conv2d(3, 128, 3, padding=1)
        self.block = ResBlock(2, 128, 256, 16, style)
        self.attention = AttentionBlock(256, 2, style, "attention")
        self.up = Upsample(2, 256)
        self.same = ResBlock(2, 256, 256, 16, style)
        self.leave = nn.Conv2d(256, 3, 3, stride=2, padding=1, bias=False)

    def forward(self, x: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        h = self.attention(self.block(self.enter(x), embedded.to(self.block.time.weight.dtype)))
        h = self.same(self.up(h), embedded.to(self.block.time.weight.dtype))
        return self.leave(F.silu(h))


def filled(scale_shift: bool = False) -> Small:
    torch.manual_seed(0)
    network = Small(scale_shift)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return network.eval()


def ask(batch: int = 4, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, size, size, generator=generator)
    return x, torch.randn(batch, 16, generator=generator)


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


def ready_or_skip(network: nn.Module, **given) -> nn.Module:
    ready, report = prepare(network, **given)
    if "plain" in report:
        pytest.skip(report["plain"])
    return ready


@pytest.mark.parametrize("scale_shift", [False, True])
@torch.inference_mode()
def test_exact_is_as_close_to_the_truth_as_the_plain_network(scale_shift):
    network = filled(scale_shift)
    x, embedded = ask()
    truth = copy.deepcopy(network).double()(x.double(), embedded.double())
    ready = ready_or_skip(network, exact=True)
    kinds = {type(module).__name__ for module in ready.modules()}
    assert {"WinogradConvolution", "FoldedUpsample", "OneDNNLinear", "InPlaceResBlock"} <= kinds
    assert distance(ready(x, embedded), network(x, embedded)) < 5e-6
    assert distance(ready(x, embedded), truth) < 2 * distance(network(x, embedded), truth) + 1e-7


@torch.inference_mode()
def test_bfloat16_is_close_and_answers_in_float32():
    network = filled()
    x, embedded = ask()
    ready = ready_or_skip(network, dtype=torch.bfloat16)
    got = ready(x, embedded)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    assert 1e-4 < distance(got, network(x, embedded)) < 2e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_place_and_neighbours_change_no_bit(dtype):
    ready = ready_or_skip(filled(), dtype=dtype)
    x, embedded = ask(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.equal(ready(x[order], embedded[order]), ready(x, embedded)[order])
    assert torch.equal(ready(x, embedded), ready(x, embedded))


@torch.inference_mode()
def test_other_sizes_follow_the_first():
    network = filled()
    ready = ready_or_skip(network, exact=True)
    for batch, size in ((4, 16), (1, 8), (2, 10), (5, 16), (1, 7)):
        given = ask(batch, size)
        assert distance(ready(*given), network(*given)) < 5e-6


@torch.inference_mode()
def test_winograd_in_chunks_is_the_same(monkeypatch):
    layer = nn.Conv2d(128, 160, 3, padding=1)
    if "plain" in prepare(layer)[1]:
        pytest.skip("no packed kernels")
    ready = fast_kernels.WinogradConvolution(
        layer, fast_kernels.PackedConvolution(layer, torch.float32)
    )
    x = torch.randn(6, 128, 16, 20).to(memory_format=torch.channels_last)
    expected = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
    assert distance(ready(x), expected) < 1e-6
    for chunk in (2, 1):
        monkeypatch.setattr(fast_kernels, "_SCRATCH_BYTES", chunk * 4 * 4 * x[0].numel())
        assert ready._chunk(x) == chunk
        assert distance(ready(x), expected) < 1e-6


def test_the_original_is_untouched_and_its_weights_are_shared():
    network = filled().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    ready = ready_or_skip(network, exact=True)
    assert not ready.training
    assert network.training
    assert type(network.enter) is nn.Conv2d
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(p.requires_grad for p in network.parameters())
    assert ready.enter.weight.data_ptr() == network.enter.weight.data_ptr()


def test_gradients_of_the_input_pass():
    network = filled()
    ready = ready_or_skip(network, exact=True)
    x, embedded = ask()
    gradients = []
    for function in (network, ready):
        given = x.clone().requires_grad_()
        function(given, embedded).square().sum().backward()
        gradients.append(given.grad)
    assert distance(gradients[1], gradients[0]) < 5e-6


def test_the_seam_works_in_the_copy():
    ready = ready_or_skip(filled(), exact=True)
    read = ReadMaps()
    with torch.inference_mode(), hooked(read):
        ready(*ask())
    assert list(read.maps_at) == ["attention.own"]
    assert isinstance(ready.attention.own, Attention)


def test_without_the_kernels_it_falls_back_and_says_so(monkeypatch):
    network = filled()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    ready, report = prepare(network, exact=True)
    assert report == {
        "dtype": "float32",
        "kernels": {},
        "plain": "this build of torch has no oneDNN",
    }
    assert torch.equal(ready(*ask()), network.to(memory_format=torch.channels_last)(*ask()))


def test_a_build_that_lacks_an_operation_falls_back(monkeypatch):
    def missing(*_):
        raise NotImplementedError("no such operation\nmore")

    monkeypatch.setattr(fast_kernels.PackedConvolution, "forward", missing)
    _, report = prepare(filled(), exact=True)
    assert report["plain"].endswith("(no such operation)")


def test_float64_is_never_accelerated():
    network = filled().double()
    ready, report = prepare(network, dtype=torch.float64)
    x, embedded = ask()
    assert report["plain"]
    assert distance(
        ready(x.double(), embedded.double()), network(x.double(), embedded.double())
    ) < (1e-13)


def test_the_default_follows_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert fast.best_dtype() == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert prepare(filled())[1]["dtype"] == "bfloat16"


def test_what_cannot_be():
    with pytest.raises(UsageError, match="exact means float32"):
        prepare(filled(), dtype=torch.bfloat16, exact=True)
    with pytest.raises(UsageError, match="float16"):
        prepare(filled(), dtype=torch.float16)


@torch.inference_mode()
def test_bfloat16_attention_holds_on_peaked_logits():
    """Logits of deviation 20: rounding them to bfloat16 would move the softmax visibly."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 1, 64, 128, generator=generator).bfloat16() for _ in range(3)
    )
    query = query * 20
    mask = (torch.rand(2, 1, 1, 64, generator=generator) > 0.2) | (torch.arange(64) == 0)
    wide = [part.double() for part in (query, key, value)]
    logits = wide[0] @ wide[1].transpose(-1, -2) * 128**-0.5
    assert logits.std() > 15
    expected = F.scaled_dot_product_attention(*wide, attn_mask=mask)
    got = fast_kernels.mapped_kernel(query, key, value, mask)
    assert distance(got, expected) < 4e-3
    rough = logits.bfloat16().masked_fill(~mask, -torch.inf).softmax(-1) @ value
    assert distance(rough, expected) > 1e-2


@pytest.mark.parametrize(("channels", "size"), [(64, 8), (64, 32), (512, 8)])
@torch.inference_mode()
def test_the_mixed_group_norm_is_a_group_norm(channels, size):
    layer = nn.GroupNorm(32, channels)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, channels, size, size).bfloat16().to(memory_format=torch.channels_last)
    expected = copy.deepcopy(layer).double()(x.double())
    got = fast_kernels.MixedGroupNorm(layer)(x)
    assert got.dtype == torch.bfloat16
    assert distance(got, expected) < 3e-3


def test_a_converted_weight_is_held_once_and_gradients_pass_all_the_same():
    network = filled().requires_grad_(False)
    ready = ready_or_skip(network, dtype=torch.bfloat16)
    x, embedded = ask()
    given = x.clone().requires_grad_()
    before = torch.autograd.grad(ready(given, embedded).square().sum(), given)[0]
    with torch.inference_mode():
        ready(x, embedded)
    packed = [m for m in ready.modules() if isinstance(m, fast_kernels.PackedConvolution)]
    own = {parameter.data_ptr() for parameter in network.parameters()}
    # Packed, and no copy beside it but the network's own; a folded up-sampling has new weights.
    assert sum(m._packed is not None and m.weight.data_ptr() in own for m in packed) >= 5
    after = torch.autograd.grad(ready(given, embedded).square().sum(), given)[0]
    assert torch.equal(after, before)
