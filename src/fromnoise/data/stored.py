"""Files of what a network made of each sample of a data set, and of how that data set is made."""

import json
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.core import strictjson
from fromnoise.core.errors import FileError
from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.data.base import DATA, Dataset

_CONFIG = "data"


def write_stored(path: Path, name: str, values: Tensor, whole: Dataset, by: dict[str, str]) -> None:
    """Write values (N, ...) of a data set, in its order. by: what made them, in words."""
    metadata = {_CONFIG: json.dumps(whole.config), **by}
    save_tensors(path, {name: values.contiguous()}, metadata)


def read_stored(
    path: Path, name: str, axes: int, verb: str, run: str
) -> tuple[Tensor, Dataset, dict[str, str]]:
    """The values of that name with so many axes, their data set, and what was told of them.

    verb: what writes such files; run: what it is given, in words. Raises FileError for a file that
    is missing, damaged, of another kind, or of other data than it was made of.
    """
    if not path.is_file():
        raise FileError(
            f"{path} does not exist; make it with `fromnoise {verb} RUN --out {path}`, RUN being "
            f"{run}"
        )
    tensors, metadata = load_tensors(path)
    if name not in tensors or _CONFIG not in metadata or tensors[name].ndim != axes:
        raise FileError(f"{path} holds no {name} of a data set; `fromnoise {verb}` makes them")
    values = tensors[name]
    if not bool(torch.isfinite(values).all()):
        raise FileError(f"{path} holds {name} that are not finite")
    config = strictjson.loads(metadata[_CONFIG].encode(), str(path))
    whole: Dataset = DATA.build(config)
    if len(whole) != len(values):
        raise FileError(
            f"{path} has {len(values)} {name}, and its data has {len(whole)} samples now; "
            f"make it anew with `fromnoise {verb}`"
        )
    return values, whole, metadata
