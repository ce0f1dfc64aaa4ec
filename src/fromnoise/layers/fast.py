"""The speed path: an inference copy of a network that does the same arithmetic faster on a CPU.

Everything here is optional. Where the processor or this build of torch lacks what it needs, the
copy is a plain one, and the report says why.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError
from fromnoise.core.tensorread import aligned
from fromnoise.layers.attention import Attention
from fromnoise.layers.blocks import ResBlock
from fromnoise.layers.compiling import compile_parts
from fromnoise.layers.fast_kernels import (
    FoldedUpsample,
    InPlaceResBlock,
    MixedGroupNorm,
    OneDNNLinear,
    PackedConvolution,
    WinogradConvolution,
    mapped_kernel,
)
from fromnoise.layers.resample import Upsample
from fromnoise.layers.spatial_transformer import SpatialTransformer

M = TypeVar("M", bound=nn.Module)
Report = dict[str, Any]
Replace = Callable[[Any], nn.Module]


def best_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, float32 elsewhere."""
    able = torch.cpu.get_capabilities()
    native = able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16")
    return torch.bfloat16 if native else torch.float32


def prepare(network: M, dtype: torch.dtype | None = None, exact: bool = False) -> tuple[M, Report]:
    """An inference copy of a network, and a report of what was done to it.

    By default it computes in `best_dtype()`, channels last. `exact` computes in float32: packed
    convolutions, Winograd's algorithm for the 3×3 ones, oneDNN linears; it differs from the plain
    network by rounding only (at most 5e-6 relative). The copy casts its input and answers in
    float32. It shares the weights it does not convert; prepare again after they change. Gradients
    with respect to the input pass, at plain speed.

    dtype: bfloat16, float32 or float64, in place of the default; float64 is never accelerated.
    Raises UsageError for another dtype, or for `exact` with another dtype than float32.
    Reference: Lavin & Gray 2016 (Winograd convolution, F(2×2, 3×3)).
    """
    if exact and dtype not in (None, torch.float32):
        raise UsageError(f"exact means float32; it cannot be {dtype}")
    device = next(network.parameters()).device
    chosen = torch.float32 if exact else dtype
    if chosen is None:
        chosen = best_dtype() if device.type == "cpu" else torch.bfloat16
    if chosen not in (torch.bfloat16, torch.float32, torch.float64):
        raise UsageError(f"a network is prepared in bfloat16, float32 or float64, not {chosen}")
    report: Report = {"dtype": str(chosen).removeprefix("torch."), "kernels": {}}
    obstacle = _obstacle(device, chosen)
    ready = _copy(network)
    if obstacle is None:
        _replace(ready, _table(chosen), report["kernels"])
        _convert(ready, chosen, keep=(nn.GroupNorm, MixedGroupNorm))
    else:
        _convert(ready, chosen)
        report["plain"] = obstacle
    return _casting(ready, chosen), report


def compiled(network: M, dtype: torch.dtype) -> tuple[M, Report]:
    """As `prepare` of that type, by `torch.compile` in place of the kernels of this room.

    The first call in each shape takes seconds to minutes; what is computed differs from the plain
    network by rounding. Raises UsageError where `torch.compile` does not work.
    """
    ready = _copy(network)
    _convert(ready, dtype)
    report: Report = {
        "dtype": str(dtype).removeprefix("torch."),
        "compiled": compile_parts(ready),
    }
    return _casting(ready, dtype), report


def _casting(network: M, dtype: torch.dtype) -> M:
    network.register_forward_pre_hook(_cast_input(dtype))
    network.register_forward_hook(_cast_output)
    return network


def _copy(network: M) -> M:
    """A copy in evaluation mode that shares all its tensors."""
    shared = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in shared}).eval()


def _convert(
    network: nn.Module, dtype: torch.dtype, keep: tuple[type[nn.Module], ...] = ()
) -> None:
    """Parameters of a type and without gradients, sharing those whose type stays.

    Where the same weights may stand at another address, as in a map of a file, they are copied:
    kernels round by it. keep: kinds of layers that keep the type of their parameters.
    """
    for part in network.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            target = parameter.dtype if type(part) in keep else dtype
            converted = aligned(parameter.detach().to(target))
            setattr(part, name, nn.Parameter(converted, requires_grad=False))


def _obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels of this room cannot be used, or None."""
    if device.type != "cpu":
        return f"the kernels are for the CPU, the network is on {device.type}"
    if dtype == torch.float64:
        return "float64 is computed as it stands"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "this build of torch has no oneDNN"
    try:
        with torch.inference_mode():
            trial = PackedConvolution(nn.Conv2d(16, 16, 3, padding=1), dtype)
            trial(torch.zeros(1, 16, 4, 4, dtype=dtype))
            OneDNNLinear(nn.Linear(16, 16), dtype)(torch.zeros(1, 16, dtype=dtype))
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        return f"this build of torch lacks the packed kernels ({str(error).splitlines()[0]})"
    return None


def _table(dtype: torch.dtype) -> dict[type, Replace]:
    """What takes the place of which layer. Winograd in bfloat16 would double its rounding error."""
    shared: dict[type, Replace] = {
        Upsample: partial(_folded, dtype=dtype),
        ResBlock: InPlaceResBlock,
        SpatialTransformer: partial(_linears, dtype=dtype),
    }
    if dtype == torch.float32:
        return {
            **shared,
            nn.Conv2d: partial(_exact_convolution, dtype=dtype),
            Attention: partial(_attention, dtype=dtype),
        }
    return {
        **shared,
        nn.Conv2d: partial(PackedConvolution, dtype=dtype),
        Attention: partial(_mapped_attention, dtype=dtype),
        nn.GroupNorm: MixedGroupNorm,
    }


def _exact_convolution(layer: nn.Conv2d, dtype: torch.dtype) -> nn.Module:
    packed = PackedConvolution(layer, dtype)
    return WinogradConvolution(layer, packed) if WinogradConvolution.suits(layer) else packed


def _folded(layer: Upsample, dtype: torch.dtype) -> nn.Module:
    return FoldedUpsample(layer.conv, dtype) if isinstance(layer.conv, nn.Conv2d) else layer


def _attention(layer: Attention, dtype: torch.dtype) -> nn.Module:
    for name in ("query", "key", "value", "out"):
        setattr(layer, name, OneDNNLinear(cast(nn.Linear, layer.get_submodule(name)), dtype))
    return layer


def _linears(layer: SpatialTransformer, dtype: torch.dtype) -> nn.Module:
    for part in list(layer.modules()):
        for name, child in list(part.named_children()):
            if type(child) is nn.Linear:
                setattr(part, name, OneDNNLinear(child, dtype))
    return layer


def _mapped_attention(layer: Attention, dtype: torch.dtype) -> nn.Module:
    layer.kernel = mapped_kernel
    return _attention(layer, dtype)


def _replace(module: nn.Module, table: dict[type, Replace], counts: dict[str, int]) -> None:
    for name, child in list(module.named_children()):
        if type(child) in table:
            child = table[type(child)](child)
            counts[type(child).__name__] = counts.get(type(child).__name__, 0) + 1
            setattr(module, name, child)
        _replace(child, table, counts)


def _cast_input(dtype: torch.dtype) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def cast(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        x = given[0].to(dtype)
        return (x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x, *given[1:])

    return cast


def _cast_output(_: nn.Module, __: tuple[Any, ...], answer: Tensor) -> Tensor:
    wide = torch.promote_types(answer.dtype, torch.float32)
    return answer.to(wide).contiguous()
