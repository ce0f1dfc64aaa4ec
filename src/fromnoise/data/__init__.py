"""Data sets: one interface, a deterministic order, and a loader that starts at any step."""

from collections.abc import Mapping
from typing import Any, cast

from fromnoise.core.errors import UsageError
from fromnoise.data.arrays import Arrays
from fromnoise.data.augment import (
    AUGMENTATIONS,
    Augment,
    Both,
    Changed,
    Crop,
    Flip,
    Geometric,
    Shift,
    chain,
    generator,
)
from fromnoise.data.base import DATA, Batch, Dataset, Subset, split
from fromnoise.data.buckets import SIZES, Buckets, GroupedOrder
from fromnoise.data.digits import Digits
from fromnoise.data.embedded import Embedded
from fromnoise.data.emoji import Emoji
from fromnoise.data.encoded import Encoded
from fromnoise.data.folder import Folder
from fromnoise.data.glyphs import Glyphs
from fromnoise.data.hub import Hub
from fromnoise.data.loader import Loader
from fromnoise.data.maps import Maps
from fromnoise.data.mixed import MixedLabels
from fromnoise.data.order import Order, order
from fromnoise.data.photos import Photos
from fromnoise.data.points import Points
from fromnoise.data.shapes import Scene, Shapes
from fromnoise.data.shards import Shards

__all__ = [
    "AUGMENTATIONS",
    "DATA",
    "SIZES",
    "Arrays",
    "Augment",
    "Batch",
    "Both",
    "Buckets",
    "Changed",
    "Crop",
    "Dataset",
    "Digits",
    "Embedded",
    "Emoji",
    "Encoded",
    "Flip",
    "Folder",
    "Geometric",
    "Glyphs",
    "GroupedOrder",
    "Hub",
    "Loader",
    "Maps",
    "MixedLabels",
    "Order",
    "Photos",
    "Points",
    "Scene",
    "Shapes",
    "Shards",
    "Shift",
    "Subset",
    "chain",
    "generator",
    "load",
    "order",
    "split",
]


def load(source: str | Mapping[str, Any] | Dataset) -> Dataset:
    """A data set by name ("digits"), by configuration ({"kind": "points", …}), or as it is.

    Raises UsageError for an unknown name or argument, FileError for a file that cannot be read.
    """
    if isinstance(source, Dataset):
        return source
    if not isinstance(source, str | Mapping):
        raise UsageError(f"a data set is a name or a configuration, not {source!r}")
    config = {"kind": source} if isinstance(source, str) else source
    return cast(Dataset, DATA.build(config))
