"""Data by the name a person gives it, and a recipe brought onto other data than its own."""

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from fromnoise import data, nets
from fromnoise.core.errors import FileError, UsageError, unknown
from fromnoise.core.files import read_header, read_json
from fromnoise.data import Dataset
from fromnoise.nets import Network
from fromnoise.recipes import Recipe
from fromnoise.training.settings import ClassifierSettings, GanSettings

Config = dict[str, Any]

TELLING = "geometric"
"""The change that, asked for by name, brings it about that the network is told of all changes.

What it does to a picture can be seen in it, so samples would show it; mirrored, cropped and
shifted pictures are taken as data like any other.
"""

_ARGUMENTS = ("size", "mode", "max_bad")
_AUGMENT = "augment"
_CAN_BE_TOLD = ("unet", "mlp")
_SHOWN = 3


def config_of(source: str, **wanted: Any) -> Config:
    """The configuration of what is named: a kind, a folder, a tar, NumPy, JSON or vectors.

    wanted: arguments (size, mode, max_bad, part) that are passed on to the kinds that take them.
    Raises UsageError when it is none of these.
    """
    path = Path(source)
    named = _by_name(data.DATA, _ARGUMENTS)
    if path.suffix == ".json":
        config = read_json(path)
        if not isinstance(config, dict):
            raise UsageError(f"{source} holds no configuration of a data set")
        return config
    if source in named:
        kind, own = source, {}
    elif path.suffix in (".npz", ".npy"):
        kind, own = "arrays", {"path": str(path.resolve())}
    elif path.suffix == ".safetensors":
        kind = "encoded" if path.is_file() and "latents" in read_header(path).shapes else "embedded"
        own = {"path": str(path.resolve())}
    else:
        shards = path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar")))
        if not shards and not path.exists():
            raise UsageError(
                f"{source} is no file or folder, and no data set by name; known: {', '.join(named)}"
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
    net = nets.build(recipe.net, device="meta")
    config = _of_pictures(recipe, net, source, max_bad) if net.spatial_dims else config_of(source)
    if not net.spatial_dims and "size" in _arguments(config):
        raise UsageError(
            f"{source} is pictures, and {recipe.name} is for points of {net.in_channels} numbers; "
            "give points (a .npy of shape (N, D), or a JSON configuration), or another recipe"
        )
    try:
        dataset = data.load(config)
    except FileError:
        raise
    except UsageError as error:
        if "size" not in config or Path(source).suffix == ".json":
            raise
        told = f"the size comes from the recipe: {recipe.name} has {config['size']}"
        raise UsageError(f"{error} ({told})") from None
    _check_shape(recipe, net, source, (dataset.pictured or dataset).shape)
    # Its own figure was reached on its own data.
    changed = {"data": config, "figure": "", **_told(recipe, len(dataset.classes))}
    return recipe.model_copy(update=changed), dataset


def _of_pictures(recipe: Recipe, net: Network, source: str, max_bad: float) -> Config:
    """The configuration of pictures in the size and colours that a recipe's network takes."""
    if Path(source).suffix == ".safetensors":
        return config_of(source, part="pictures")
    size = recipe.data.get("size")
    if size is None:
        height, width = _whole(net) or data.load(recipe.data).shape[1:]
        size = height if height == width else [height, width]
    mode = "L" if _channels(recipe, net) == 1 else "RGB"
    return config_of(source, size=size, mode=mode, max_bad=max_bad)


def _whole(net: Network) -> tuple[int, ...]:
    """The size (height, width) of pictures a network makes whole; () where it takes any."""
    return tuple(net.config.get("shape", ()))[1:]


def _channels(recipe: Recipe, net: Network) -> int:
    """The channels of the pictures a recipe is for: its codec's, where the network has latents."""
    codec = recipe.codec.get("codec", recipe.codec)
    return int(codec.get("channels", net.in_channels))


def _check_shape(recipe: Recipe, net: Network, source: str, shape: tuple[int, ...]) -> None:
    told = f"{source} has samples of shape {tuple(shape)}, and the network of {recipe.name} takes"
    if not net.spatial_dims and shape != (net.in_channels,):
        raise UsageError(f"{told} points of {net.in_channels} numbers; use another recipe")
    if len(shape) != 1 + net.spatial_dims:
        raise UsageError(f"{told} pictures; use another recipe (points-ddpm is one for points)")
    if shape[0] != _channels(recipe, net):
        raise UsageError(f"{told} {_channels(recipe, net)} channels; use another recipe")
    if _whole(net) and shape[1:] != _whole(net):
        raise UsageError(
            f"{told} pictures of {_whole(net)} only; give them as files, which are brought to that "
            f"size, or a recipe file with {list(shape)} for each `shape`"
        )


def _told(recipe: Recipe, classes: int) -> Config:
    """What changes in a recipe whose networks are told of so many classes."""
    if isinstance(recipe.objective, ClassifierSettings):
        if classes < 2:
            raise UsageError(f"{recipe.name} tells classes apart, and this data has {classes}")
        return {"net": {**recipe.net, "classes": classes}}
    encoders = dict(recipe.encoders)
    if "label" not in encoders:
        return {}
    if classes:
        encoders["label"] = {**encoders["label"], "classes": classes}
    else:
        del encoders["label"]
    changed: Config = {"net": _with_slot(recipe.net, "label", classes), "encoders": encoders}
    if isinstance(recipe.objective, GanSettings):
        judge = _with_slot(recipe.objective.discriminator, "label", classes)
        changed["objective"] = recipe.objective.model_copy(update={"discriminator": judge})
    return changed


def _with_slot(net: Config, name: str, width: int) -> Config:
    """A network that accepts a vector of that width under a name; 0 for none."""
    accepts: Mapping[str, Any] = net.get("accepts", {})
    vector = dict(accepts.get("vector", {}))
    if vector.pop(name, 0) == width == 0:
        return net
    if width:
        vector[name] = width
    return {**net, "accepts": {**accepts, "vector": vector}}


def changing(recipe: Recipe, names: str | None) -> Recipe:
    """The recipe with its training pictures changed as named (flip,shift); None leaves its own.

    With `geometric` among them the network is told of all the changes, so that samples show none;
    without, it is told nothing. Raises UsageError for an unknown change, or one that a network
    has to be told of and cannot.
    """
    if names is None:
        return recipe
    kinds = [] if names == "none" else [name.strip() for name in names.split(",")]
    known = _by_name(data.AUGMENTATIONS)
    for kind in kinds:
        if kind not in known:
            raise unknown("augmentation", kind, known)
    parts: list[Config] = [{"kind": kind} for kind in kinds]
    made = data.chain([data.AUGMENTATIONS.build(part) for part in parts])
    width = made.width if made is not None and TELLING in kinds else 0
    if width and recipe.net["kind"] not in _CAN_BE_TOLD:
        raise UsageError(
            f"{TELLING} changes pictures visibly, so a network has to be told of it, and a "
            f"{recipe.net['kind']} is told of classes only; use flip, shift or crop, or a recipe "
            "with a unet"
        )
    encoders = {name: part for name, part in recipe.encoders.items() if name != _AUGMENT}
    if width:
        encoders[_AUGMENT] = {"kind": _AUGMENT, "width": width}
    net = _with_slot(recipe.net, _AUGMENT, width)
    return recipe.model_copy(update={_AUGMENT: parts, "net": net, "encoders": encoders})


def _by_name(table: Mapping[str, Callable[..., Any]], given: Collection[str] = ()) -> list[str]:
    """The kinds of a table that need no arguments but those given."""

    def needs(name: str) -> list[str]:
        parameters = inspect.signature(table[name]).parameters.values()
        return [p.name for p in parameters if p.default is p.empty and p.name not in given]

    return sorted(name for name in table if not needs(name))


def _arguments(config: Config) -> Collection[str]:
    """The names of the arguments that a configured data set takes; none for an unknown kind."""
    found = data.DATA.get(str(config.get("kind")))
    return () if found is None else inspect.signature(found).parameters


def left_out(dataset: Dataset) -> str | None:
    """A line on the pictures that could not be read and are not trained on; None where all were."""
    skipped = dataset.skipped
    if not skipped:
        return None
    shown = "; ".join(reason for _, reason in skipped[:_SHOWN])
    if len(skipped) > _SHOWN:
        shown += f"; and {len(skipped) - _SHOWN} more"
    return f"{len(skipped)} pictures of {dataset.name} cannot be used and are left out: {shown}"
