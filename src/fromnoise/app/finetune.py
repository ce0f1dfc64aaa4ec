"""Start a training from the weights of a model that is there already."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from fromnoise import nets
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import read_json
from fromnoise.core.tensors import fingerprint
from fromnoise.encoders import Conditioning
from fromnoise.interop.loading import load
from fromnoise.model import Model, describe
from fromnoise.model.files import modules
from fromnoise.nets.generator import Generator
from fromnoise.recipes import RECIPES, Recipe, SamplingSettings
from fromnoise.training import checkpoint

SLOWER = 10.0
"""How much lower the learning rate is than in training from nothing, unless it is given."""

_TABLE = "embedding.vector."
_LABEL = "label"
_DENOISING = ("denoising", "vdm")
_KEPT = ("net", "process", "parameterization", "learned_variance", "codec", "encoders", "sampling")


def opened(source: str) -> Model:
    """The model to start from. FileError, saying what a base may be, when it cannot be opened."""
    try:
        return load(source)
    except FileError as error:
        place = Path(source)
        makes = place.parent == Path("runs") and place.name in RECIPES and not place.exists()
        advice = f"; `fromnoise train {place.name}` makes it" if makes else ""
        raise FileError(f"the model to start from cannot be opened: {error}{advice}") from None


def based(
    recipe: Recipe, source: str | None, begun: Recipe | None, other_data: bool
) -> tuple[Recipe, Model | None]:
    """The recipe brought onto what it starts from, and that model where it had to be opened.

    source: the model asked for, whose network is taken; else the recipe's own base, whose weights
    must fit the recipe's network. begun: the recipe of the run as it began, if it has: then the
    base is not opened. other_data: whether data are yet to be brought to the size of the base.
    """
    name = source or recipe.base
    if name is None:
        return recipe, None
    if begun is not None and begun.base == name:
        recipe = kept(recipe, begun)
        return (_sized(recipe, begun.data.get("size")) if other_data else recipe), None
    base = opened(name)
    if source is not None:
        recipe = onto(recipe, base, name)
        height, width = base.shape[1:] if len(base.shape) == 3 else (None, None)
        if other_data and height:
            recipe = _sized(recipe, height if height == width else [height, width])
    return recipe.model_copy(update={"ancestry": ancestry(base, name)}), base


def _sized(recipe: Recipe, size: Any) -> Recipe:
    """The recipe whose data, which others will take the place of, are of that size."""
    return recipe.model_copy(update={"data": {**recipe.data, "size": size}})


def onto(recipe: Recipe, base: Model, source: str) -> Recipe:
    """The recipe with the network of a base, told what the recipe tells.

    Network, process, prediction, codec and sampling defaults are the base's; data, loss, training
    and conditions stay the recipe's. The class labels are those of the recipe's data.
    Raises UsageError for a base that the recipe's loss cannot train.
    """
    described = describe(base)
    if isinstance(base.denoiser.net, Generator) and recipe.objective.kind in _DENOISING:
        raise UsageError(
            f"{source} ({base.card.name}) is a generator, which makes samples in one step, and "
            f"{recipe.name} trains a network to take noise away: it cannot go on from it. Use the "
            "recipe it was trained by, or a base that denoises"
        )
    if base.denoiser.net.draws != nets.build(recipe.net, device="meta").draws:
        does = "draws samples" if base.denoiser.net.draws else "reads samples and draws none"
        raise UsageError(
            f"{source} ({base.card.name}) {does}, and {recipe.name} trains a network for the "
            "other; start from a base of its own kind"
        )
    encoders = {
        name: config if name == _LABEL else described.encoders.get(name, config)
        for name, config in recipe.encoders.items()
    }
    told = Conditioning.build(encoders).null(1)
    vector = {name: value.shape[1] for name, value in told.vector.items()}
    net = dict(described.net)
    # A classifier takes no condition, and has no such argument.
    if vector or "accepts" in net:
        net["accepts"] = {**net.get("accepts", {}), "vector": vector}
    changed = {
        "net": net,
        "process": described.process,
        "parameterization": described.parameterization,
        "learned_variance": described.learned_variance,
        "codec": described.codec,
        "codec_from": None,
        "encoders": encoders,
        "sampling": SamplingSettings(**asdict(base.defaults)),
        "figure": "",
        "base": source,
    }
    return recipe.model_copy(update=changed)


def kept(recipe: Recipe, begun: Recipe) -> Recipe:
    """The recipe with what a run that has begun took from its base: that is not read again."""
    changed = {name: getattr(begun, name) for name in (*_KEPT, "figure", "base", "ancestry")}
    return recipe.model_copy(update=changed)


def ancestry(base: Model, source: str) -> list[dict[str, Any]]:
    """The base and, after it, what it was made from: name, source, fingerprint, data, steps."""
    parent = {
        "name": base.card.name,
        "source": source,
        "fingerprint": _fingerprint(base),
        "data": base.card.data,
        "steps": _steps(Path(source)),
    }
    return [parent, *base.card.ancestry]


def begin(model: Model, recipe: Recipe, folder: Path, base: Model | None = None) -> list[str]:
    """Give a new model the weights of its recipe's base; return what there is to say of it.

    A run that has a checkpoint has its weights there: the base is not looked at.
    base: where it is open already. Raises FileError when it is missing or no longer the one the
    run began with, UsageError when its weights do not fit.
    """
    if recipe.base is None or checkpoint.steps(folder):
        return []
    base = base or opened(recipe.base)
    if recipe.ancestry and recipe.ancestry[0].get("fingerprint") != _fingerprint(base):
        raise FileError(
            f"{recipe.base} has changed since {folder} began with it; train into another folder"
        )
    notes = take_over(model, base)
    steps = recipe.ancestry[0].get("steps") if recipe.ancestry else None
    trained = f", {steps} steps" if steps else ""
    return [f"starting from {recipe.base} ({base.card.name}{trained})", *notes]


def take_over(model: Model, base: Model) -> list[str]:
    """Copy the weights of a base; return a line for each table that is not simply copied.

    In the table of labels, a class that both know by name keeps its row and others start as new
    ones do. Raises UsageError naming the first weight that does not fit.
    """
    parts = modules(model)
    wanted, have = dict(parts.state_dict()), dict(modules(base).state_dict())
    notes = []
    for name, own in wanted.items():
        given = have.get(name)
        if name.startswith(f"net.{_TABLE}{_LABEL}."):
            wanted[name], note = _labels(own, given, model.card.classes, base.card.classes)
            notes.append(note)
        elif given is not None and given.shape == own.shape:
            wanted[name] = given
        elif name.startswith(f"net.{_TABLE}"):
            notes.append(f"{name} is new")
        elif not name.startswith(("process.", "encoders.")):
            state = "nothing of that name" if given is None else f"shape {tuple(given.shape)}"
            raise UsageError(
                f"the base does not fit: {name} has shape {tuple(own.shape)} and the base has "
                f"{state}; use --from, which takes the network of the base"
            )
    parts.load_state_dict(wanted)
    return notes


def _labels(
    own: Tensor, given: Tensor | None, classes: list[str], known: list[str]
) -> tuple[Tensor, str]:
    """A table (out, classes) or, with a learned null last, (out, classes + 1)."""
    if given is None or given.shape[0] != own.shape[0]:
        return own, f"the table of {len(classes)} labels is new"
    made = own.clone()
    nulls = own.shape[1] - len(classes)
    if nulls and given.shape[1] - len(known) == nulls:
        made[:, -nulls:] = given[:, -nulls:]
    shared = [name for name in classes if name in known]
    for name in shared:
        made[:, classes.index(name)] = given[:, known.index(name)]
    if len(shared) == len(classes):
        return made, f"the table of labels keeps all {len(classes)} classes"
    new = len(classes) - len(shared)
    return made, f"the table of labels starts anew for {new} of {len(classes)} classes"


def trained_parts(names: list[str], parameters: Mapping[str, Tensor]) -> str:
    """A line on what is trained, where that is not everything."""
    free = sum(p.numel() for p in parameters.values() if p.requires_grad)
    every = sum(p.numel() for p in parameters.values())
    return f"training {free:,} of {every:,} weights, in {len(names)} of {len(parameters)} tensors"


def _fingerprint(base: Model) -> str:
    return base.fingerprint or fingerprint(modules(base).state_dict())


def _steps(source: Path) -> int | None:
    """The steps a base was trained for, where it is a run or lies in a checkpoint."""
    if (source / checkpoint.FOLDER).is_dir():
        source = checkpoint.latest_model(source)
    told = source.parent / "state.json"
    return int(read_json(told)["step"]) if told.is_file() else None
