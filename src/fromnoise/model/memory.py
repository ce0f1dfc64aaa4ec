"""What sampling a model will need of memory, found without running it.

Weights are counted; what is alive at once in a network and in the decoder is followed over a copy
on the meta device, where tensors have sizes and take no memory.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fromnoise.layers.attention import Attention, TokenAttention
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.layers.fast_kernels import WinogradConvolution
from fromnoise.layers.spatial_transformer import GatedFeedForward
from fromnoise.model.draw import large
from fromnoise.model.meta import on_meta, zeros

if TYPE_CHECKING:
    from fromnoise.codecs import Codec
    from fromnoise.model.model import Model

RUNTIME = 300 * 2**20
"""Bytes that torch and the library take before a model is there."""

LAID_OUT = 1.3
"""By how much more is alive than what layers give each other: convolutions lay it out anew.

Measured over an autoencoder of 512×512 pictures, in float32 on a processor.
"""

TOKENS = 77
"""How many tokens a prompt is taken to have."""


@dataclass(frozen=True)
class Need:
    """Bytes a run will need. weights: all as they are held; copy: the network as it is run.

    network, decoder: the most that is alive at once in either, besides.
    """

    weights: int
    copy: int
    network: int
    decoder: int

    @property
    def total(self) -> int:
        """At the highest point."""
        return RUNTIME + self.weights + self.copy + max(self.network, self.decoder)


def needed(
    model: "Model",
    shape: tuple[int, ...] | None = None,
    batch: int = 1,
    guided: bool = True,
    dtype: torch.dtype = torch.float32,
    tile: int = 0,
) -> Need:
    """What drawing takes at a batch of the network, samples of a shape, and a type of its run.

    guided: whether guidance without a classifier doubles the batch. tile: latents along the side
    of the decoder's tiles, 0 for none. Nothing is computed.
    """
    net, codec = model.denoiser.net, model.codec
    held = (net, codec, model.conditioning, model.denoiser.process)
    latent = codec.latent_shape(model.shape if shape is None else shape)
    rows = batch * (2 if guided else 1)
    # Made out here: what is made within `peak` counts.
    bare = on_meta(net).to(dtype)
    told = nothing_told(net, rows, latent, zeros)
    inside = (zeros((rows, *latent), dtype), zeros((rows,), dtype), told)
    return Need(
        weights=sum(_bytes(part) for part in held),
        copy=copied(net, dtype),
        network=int(LAID_OUT * peak(lambda: bare(*inside))),
        decoder=decoding(codec, cut(latent, tile), dtype),
    )


def decoding(codec: "Codec", latent: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes that are alive at once while one sample's latents are decoded, at most.

    dtype: of the run; a small decoder is left in float32, and none is run in float64 that is not.
    """
    kind = decoded_in(codec, dtype)
    bare, z = on_meta(codec).to(kind), zeros((1, *latent), kind)
    return int(LAID_OUT * peak(lambda: bare.decode(z)))


def decoded_in(codec: "Codec", dtype: torch.dtype) -> torch.dtype:
    """What a decoder is run in where the network is run in a type."""
    return dtype if dtype == torch.bfloat16 and large(codec) else torch.float32


def cut(latent: tuple[int, ...], tile: int) -> tuple[int, ...]:
    """The shape of the largest tile of latents; all of them where tile is 0."""
    return (latent[0], *(min(side, tile or side) for side in latent[1:]))


def nothing_told(
    net: Any,
    rows: int,
    latent: tuple[int, ...],
    make: Callable[[tuple[int, ...]], Tensor],
    tokens: int = TOKENS,
) -> Condition:
    """A condition of so many samples with every slot a network takes filled by `make(shape)`."""
    accepts = net.accepts
    return Condition(
        {name: make((rows, count, *latent[1:])) for name, count in accepts.channels.items()},
        {name: make((rows, width)) for name, width in accepts.vector.items()},
        None if accepts.tokens is None else Tokens(make((rows, tokens, accepts.tokens))),
    )


def peak(run: Callable[[], Any]) -> int:
    """The most bytes of new tensors alive at once while `run` runs, on the meta device.

    What was alive until then, where it asks about values, which tensors on that device have not.
    """
    with (
        torch.no_grad(),
        contextlib.suppress(NotImplementedError, RuntimeError),
        _Fused(),
        _Alive() as alive,
    ):
        run()
    most: int = alive.most
    return most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the memory of what is made while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._outside: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            # What was there before, as the weights were, is counted by itself.
            if storage._cdata not in self._held:
                self._outside[storage._cdata] = _reference(storage)
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in self._outside:
                self._held[storage._cdata] = (_reference(storage), storage.nbytes())
        self._held = {key: (ref, n) for key, (ref, n) in self._held.items() if not _gone(ref)}
        self.most = max(self.most, sum(n for _, n in self._held.values()))
        return result


def _reference(storage: torch.UntypedStorage) -> StorageWeakRef:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _gone(reference: StorageWeakRef) -> bool:
    gone: bool = reference.expired()  # type: ignore[no-untyped-call]
    return gone


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [one.untyped_storage() for one in tree_leaves(tree) if isinstance(one, Tensor)]


class _Fused(TorchFunctionMode):
    """Attention as the fused kernels do it: without a map of queries by keys."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            query, _, value = args[:3]
            return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))


def _bytes(module: nn.Module) -> int:
    """Of parameters and buffers, the shared ones once."""
    held = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in held.values())


def copied(net: nn.Module, dtype: torch.dtype) -> int:
    """What `layers.fast.prepare` makes beside a network's weights: converted, and packed."""
    if dtype == torch.float64:
        return 2 * _bytes(net)
    if dtype != torch.float32:
        # Once packed, what was converted is let go of.
        return 2 * sum(p.numel() for p in net.parameters())
    total = 0
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            # Winograd's weights are 4×4 for every 3×3.
            factor = 16 / 9 if WinogradConvolution.suits(part) else 1
            total += 4 * int(factor * part.weight.numel())
        elif isinstance(part, Attention | TokenAttention | GatedFeedForward):
            total += 4 * sum(p.numel() for p in part.parameters())
    return total
