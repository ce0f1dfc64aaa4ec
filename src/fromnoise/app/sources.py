"""Data by the name a person gives it, and a recipe brought onto other data than its own."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fromnoise import data
from fromnoise.core.errors import UsageError, unknown
from fromnoise.core.files import read_json
from fromnoise.data import Dataset
from fromnoise.recipes import Recipe

Config = dict[str, Any]

_SHOWN = 3


def config_of(source: str, **wanted: Any) -> Config:
    """The configuration of what is named: a kind, a folder, a tar, a NumPy file, a JSON file.

    wanted: arguments (size, mode, max_bad) that are passed on to the kinds that take them.
    Raises UsageError when it is none of these.
    """
    path = Path(source)
    if path.suffix == ".json":
        config = read_json(path)
        if not isinstance(config, dict):
            raise UsageError(f"{source} holds no configuration of a data set")
        return config
    if source in data.DATA:
        kind, own = source, {}
    elif path.suffix in (".npz", ".npy"):
        kind, own = "arrays", {"path": str(path.resolve())}
    else:
        shards = path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar")))
        if not shards and not path.exists():
            known = ", ".join(sorted(data.DATA))
            raise UsageError(
                f"{source} is no file or folder, and no data set by name; known: {known}"
            )
        # Whole, so that a run goes on from wherever it is asked to.
        kind, own = "shards" if shards else "folder", {"path": str(path.resolve())}
    takes = inspect.signature(data.DATA[kind]).parameters
    return {"kind": kind, **own, **{k: v for k, v in wanted.items() if k in takes}}


def onto(recipe: Recipe, source: str, max_bad: float) -> tuple[Recipe, Dataset]:
    """The recipe on other data, brought to the size and colours of its own, and that data.

    A network that is told a class is told those of the new data, or none where it has none.
    Raises UsageError when the data cannot be brought to what the network takes.
    """
    size = recipe.data.get("size")
    if size is None:
        height, width = data.load(recipe.data).shape[1:]
        size = height if height == width else [height, width]
    mode = "L" if recipe.net["in_channels"] == 1 else "RGB"
    config = config_of(source, size=size, mode=mode, max_bad=max_bad)
    dataset = data.load(config)
    if dataset.shape[0] != recipe.net["in_channels"]:
        raise UsageError(
            f"{source} has samples of shape {dataset.shape}, and the network of {recipe.name} "
            f"takes {recipe.net['in_channels']} channels; use another recipe"
        )
    net, encoders = _told(recipe, len(dataset.classes))
    # Its own figure was reached on its own data.
    changed = {"data": config, "net": net, "encoders": encoders, "figure": ""}
    return recipe.model_copy(update=changed), dataset


def _told(recipe: Recipe, classes: int) -> tuple[Config, dict[str, Config]]:
    accepts: Mapping[str, Any] = recipe.net.get("accepts", {})
    vector = dict(accepts.get("vector", {}))
    encoders = dict(recipe.encoders)
    if "label" in vector and "label" in encoders:
        if classes:
            vector["label"] = classes
            encoders["label"] = {**encoders["label"], "classes": classes}
        else:
            del vector["label"], encoders["label"]
    net = {**recipe.net, "accepts": {**accepts, "vector": vector}} if accepts else recipe.net
    return net, encoders


def changing(recipe: Recipe, names: str | None) -> Recipe:
    """The recipe with its training pictures changed as named (flip,shift); None leaves its own.

    A network that is told what was done to a picture knows only the recipe's own changes, and is
    left as it is. Raises UsageError for an unknown one.
    """
    if names is None:
        return recipe
    kinds = [] if names == "none" else [name.strip() for name in names.split(",")]
    for kind in kinds:
        if kind not in data.AUGMENTATIONS:
            raise unknown("augmentation", kind, data.AUGMENTATIONS)
    return recipe.model_copy(update={"augment": [{"kind": kind} for kind in kinds]})


def left_out(dataset: Dataset) -> str | None:
    """A line on the pictures that could not be read and are not trained on; None where all were."""
    skipped = dataset.skipped
    if not skipped:
        return None
    shown = "; ".join(reason for _, reason in skipped[:_SHOWN])
    if len(skipped) > _SHOWN:
        shown += f"; and {len(skipped) - _SHOWN} more"
    return f"{len(skipped)} pictures of {dataset.name} cannot be used and are left out: {shown}"
