"""From a request to the recipe that is trained: names, files, other data, a base, settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fromnoise import recipes
from fromnoise.app import behind, finetune
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import TrainRequest
from fromnoise.app.sources import changing, onto
from fromnoise.codecs import Codec
from fromnoise.core.config import validated
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import read_json
from fromnoise.data import Dataset
from fromnoise.model import Model
from fromnoise.recipes import Recipe
from fromnoise.training.optimizers import maker_of
from fromnoise.training.runner import read_config

_HELD = {
    "recipe": "give a recipe or --resume, not both",
    "data": "a run goes on with its own data; leave out --data",
    "max_bad": "a run goes on with its own data; leave out --max-bad",
    "base": "a run goes on from its own weights; leave out --from",
    "codec": "a run goes on behind its own autoencoder; leave out --codec",
    "augment": "a run goes on with its own changes of the pictures; leave out --augment",
    "seed": "a run goes on with its own seed; leave out --seed",
    "out": "a run goes on in its own folder; leave out --out",
}
"""What is not asked of a run that goes on, and what to say of it."""


@dataclass(frozen=True)
class Asked:
    """A recipe and its folder; its data, base and codec where they were read to know the recipe."""

    recipe: Recipe
    folder: Path
    whole: Dataset | None = None
    base: Model | None = None
    codec: Codec | None = None


def recipe_of(folder: Path) -> Recipe:
    """The recipe a run follows. FileError when the folder holds no run."""
    if not (folder / "config.json").is_file():
        state = "is not a run folder" if folder.is_dir() else "no such run"
        raise FileError(
            f"{folder}: {state}; train one with `fromnoise train RECIPE --out {folder}`"
        )
    return validated(Recipe, read_config(folder), str(folder))


def asked(request: TrainRequest, reporter: Reporter) -> Asked:
    """What a request asks for: its recipe with all that was changed, and the folder.

    Raises UsageError for a request that contradicts itself, FileError for a run, recipe, base or
    data that cannot be read.
    """
    given = {name for name in request.model_fields_set if getattr(request, name) is not None}
    if request.resume is not None:
        for name, reason in _HELD.items():
            if name in given:
                raise UsageError(reason)
        folder = Path(request.resume)
        recipe = recipe_of(folder)
        return Asked(_changed(recipe, request, {}), folder)
    if request.recipe is None:
        raise UsageError("name a recipe (`fromnoise recipes` lists them) or --resume RUN")
    if "max_bad" in given and request.data is None:
        raise UsageError("--max-bad is of the pictures in --data; give --data, or leave it out")
    recipe = _named(request.recipe)
    seed = {"seed": request.seed} if "seed" in given else {}
    if seed and "seed" in request.train.model_fields_set and request.train.seed != request.seed:
        raise UsageError(
            f"--seed {request.seed} and --train.seed {request.train.seed} are the same setting; "
            "give one"
        )
    name, slower = recipe.name, 1.0
    if request.base is not None:
        # A recipe that is for fine-tuning anyway has the rate for it.
        slower = finetune.SLOWER if recipe.base is None else 1.0
        name = f"{recipe.name}-from-{Path(request.base).name}"
    begun = Path(request.out or f"runs/{name}") if request.data is None or request.out else None
    recipe, base = finetune.based(recipe, request.base, _begun(begun), request.data is not None)
    if request.codec is not None:
        name = f"{name}-behind-{Path(request.codec).name}"
    begun = Path(request.out or f"runs/{name}") if request.data is None or request.out else None
    recipe, codec = behind.placed(recipe, request.codec, _begun(begun))
    whole = None
    if request.data is not None:
        recipe, whole = onto(recipe, request.data, request.max_bad)
        name = f"{name}-{whole.name}"
    recipe = changing(recipe, request.augment)
    more = {**seed, **_rate(recipe, request, slower, reporter)}
    folder = Path(request.out or f"runs/{name}")
    return Asked(_changed(recipe, request, more), folder, whole, base, codec)


def _begun(folder: Path | None) -> Recipe | None:
    """The recipe of the run in a folder, where there is one."""
    began = folder is not None and (folder / "config.json").is_file()
    return recipe_of(folder) if began and folder is not None else None


def _rate(
    recipe: Recipe, request: TrainRequest, slower: float, reporter: Reporter
) -> dict[str, float]:
    """The learning rate that suits what was asked, where it is not given and not the recipe's."""
    given = request.train.model_fields_set
    if "learning_rate" in given:
        return {}
    own = recipe.train.optimizer
    chosen = request.train.optimizer if "optimizer" in given else own
    share = maker_of(chosen).suits / maker_of(own).suits / slower
    if share == 1:
        return {}
    rate = float(f"{recipe.train.learning_rate * share:.6g}")
    reporter.say(
        f"learning rate {rate:g}: {share:g} of the recipe's, as suits what was asked "
        "(--train.learning-rate chooses another)"
    )
    return {"learning_rate": rate}


def _named(name: str) -> Recipe:
    path = Path(name)
    if path.suffix != ".json":
        return recipes.get(name)
    if not path.is_file():
        raise FileError(f"{path}: no such recipe file")
    return validated(Recipe, read_json(path), str(path))


def _changed(recipe: Recipe, request: TrainRequest, more: Mapping[str, Any]) -> Recipe:
    """The recipe with the training settings that were given in place of its own."""
    given = {key: getattr(request.train, key) for key in request.train.model_fields_set}
    given |= more
    if "epochs" in given and "steps" not in given:
        given["steps"] = None
    if "steps" in given and given["steps"] is not None and "epochs" not in given:
        given["epochs"] = None
    settings = {**recipe.train.model_dump(), **given}
    return recipe.model_copy(update={"train": type(recipe.train)(**settings)})
