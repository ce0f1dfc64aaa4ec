"""Decoding that cannot end in a black picture: numbers that overflow are found, not shown."""

import copy

import torch
from torch import Tensor

from fromnoise.codecs.base import Codec
from fromnoise.core.errors import NumberError

_EXACT = (torch.float32, torch.float64)


@torch.no_grad()
def decode_finite(codec: Codec, z: Tensor, quick: Codec | None = None) -> Tensor:
    """codec.decode(z) in the type of the codec's weights, as float32 or float64, all finite.

    A decoder in half precision can overflow on latents that are sound; it is then asked once more
    in float32. quick: a copy of the codec that is asked first.
    Raises NumberError for latents that are not finite themselves, and where float32 overflows as
    well.
    """
    if not bool(torch.isfinite(z).all()):
        raise NumberError(
            "the latents are not finite, so there is no picture to decode; sample with less "
            "guidance or another sampler, or run the network in float32 (--exact)"
        )
    if quick is not None:
        made = quick.decode(z)
        if bool(torch.isfinite(made).all()):
            return made
    weights = next(codec.parameters(), None)
    dtype = z.dtype if weights is None else weights.dtype
    made = codec.decode(z.to(dtype))
    if bool(torch.isfinite(made).all()):
        return made if dtype in _EXACT else made.float()
    if dtype not in _EXACT:
        made = copy.deepcopy(codec).float().decode(z.float())
        if bool(torch.isfinite(made).all()):
            return made
    raise NumberError(
        "the decoder's numbers overflow even in float32; its weights or these latents (up to "
        f"{z.abs().max().item():.3g}) are not what it was trained for"
    )
