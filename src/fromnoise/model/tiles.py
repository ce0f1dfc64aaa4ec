"""Whether an autoencoder takes pictures whole or in tiles: what the free memory has room for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fromnoise.codecs import Codec
from fromnoise.codecs.tiling import Tiled
from fromnoise.core.errors import OutOfMemoryError, UsageError
from fromnoise.core.group import expected
from fromnoise.core.machine import is_out_of_memory
from fromnoise.core.texts import size
from fromnoise.layers.slices import free_on
from fromnoise.model.memory import LAID_OUT, cut, decoded_in, decoding

if TYPE_CHECKING:
    from fromnoise.model.model import Model

TILES = (128, 96, 64, 48, 32, 24, 16)
"""Sides of tiles in latents that are chosen from, the largest that fits."""

LEAST = 8
"""The smallest tile that may be asked for."""

ROOM = 0.9
"""The part of the free memory that decoding may take."""

_MAPS = 4
"""Maps of a decoder's widest layer at the size of the picture: more than it ever holds at once."""


@dataclass(frozen=True)
class Tiling:
    """tile: latents along a side of a tile, 0 for whole. note: what to say where it was chosen."""

    tile: int = 0
    note: str | None = None


def tiling(
    model: "Model", latent: tuple[int, ...], dtype: torch.dtype, asked: int | None = None
) -> Tiling:
    """The tiles for latents of a shape (C, h, w), as asked; None chooses.

    Chosen is whole where that fits in the memory that is free, shared by all processes started
    together, and else the largest of TILES that fits. dtype: the network is run in.
    Raises UsageError for tiles smaller than LEAST, and for a model without an autoencoder.
    """
    if asked is None:
        return _chosen(model, latent, dtype)
    if isinstance(asked, bool) or not isinstance(asked, int) or (asked and asked < LEAST):
        raise UsageError(
            f"tile {asked!r} is no number of latents from {LEAST}; 0 decodes in one piece"
        )
    if asked and next(model.codec.parameters(), None) is None:
        raise UsageError(
            f"{model.card.name} draws pixels, so there is nothing to decode in tiles; leave out "
            "the tile"
        )
    return Tiling(asked)


def fitting(codec: Codec, latent: tuple[int, ...], dtype: torch.dtype, room: int) -> int:
    """The largest of TILES whose decoding takes at most so many bytes, 0 where the whole does.

    The smallest one where none does.
    """
    smaller = [tile for tile in TILES if tile < max(latent[1:], default=0)]
    rough = _rough(codec, latent, dtype) if len(latent) == 3 and smaller else 0
    if not rough or rough <= room or decoding(codec, latent, dtype) <= room:
        return 0
    fits = (tile for tile in smaller if decoding(codec, cut(latent, tile), dtype) <= room)
    return next(fits, smaller[-1])


def _chosen(model: "Model", latent: tuple[int, ...], dtype: torch.dtype) -> Tiling:
    weights = next(model.codec.parameters(), None)
    free = None if weights is None else free_on(weights.device)
    if free is None:
        return Tiling()
    free //= expected()
    tile = fitting(model.codec, latent, dtype, int(ROOM * free) - model.ahead(dtype))
    if not tile:
        return Tiling()
    whole = decoding(model.codec, latent, dtype)
    return Tiling(
        tile,
        f"decoded in tiles of {tile} latents, which changes tones a little: in one piece it takes "
        f"about {size(whole)} of memory, and {size(free)} are free (tile 0 never cuts)",
    )


def _rough(codec: Codec, latent: tuple[int, ...], dtype: torch.dtype) -> int:
    """More bytes than decoding takes, at no cost; 0 where nothing in a codec says how wide it is.

    To follow what is alive takes tenths of a second, and seconds the first time in a process.
    """
    widest = max((max(p.shape[:2]) for p in codec.parameters() if p.ndim == 4), default=0)
    pixels = codec.factor**2 * latent[1] * latent[2]
    return int(LAID_OUT * _MAPS * widest * pixels) * decoded_in(codec, dtype).itemsize


@contextmanager
def within_memory(codec: Codec, side: int) -> Iterator[None]:
    """Turn memory that runs out in a codec into an error that names tiles, or smaller ones.

    side: the longest of the latents.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or next(codec.parameters(), None) is None:
            raise
        tile = codec.tile if isinstance(codec, Tiled) else 0
        how = f"in tiles of {tile} latents" if tile else "in one piece"
        smaller = next((one for one in (32, 16, LEAST) if one < min(tile or side, side)), None)
        advice = "ask for a smaller picture"
        if smaller is not None:
            advice = f"give it smaller pieces (--tile {smaller}; tile={smaller} in Python)"
        raise OutOfMemoryError(
            f"out of memory in the autoencoder, {how}; {advice}, or free some memory"
        ) from error
