"""Train by a recipe, or go on with a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fromnoise import (
    codecs,
    data,
    encoders,
    grids,
    nets,
    parameterizations,
    processes,
    recipes,
    samplers,
)
from fromnoise.app import finetune
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import TrainRequest
from fromnoise.app.sources import changing, left_out, onto
from fromnoise.core.config import validated
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import check_folder, read_json
from fromnoise.core.images import png_bytes
from fromnoise.data import Dataset
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.model import Card, Defaults, Model
from fromnoise.model.files import write_model
from fromnoise.recipes import Recipe
from fromnoise.training import Run, Task
from fromnoise.training.draws import Draws
from fromnoise.training.objective import Objective
from fromnoise.training.objectives import objective_of
from fromnoise.training.optimizers import maker_of
from fromnoise.training.ranks import join
from fromnoise.training.runner import read_config

_PREVIEWS = 40


def train(request: TrainRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise train`."""
    # What is wrong for one of several processes is known to all before they train.
    with join().together():
        recipe, folder, whole, base = _asked(request, reporter)
        check_folder(folder)
        run, _ = prepare(recipe, folder, reporter, whole, base)
    done = 0
    with reporter.progress(f"training {recipe.name}", run.steps) as progress:
        for event in run.train():
            done = event.step
            note = f"loss {event.loss:.4f}"
            if event.validation is not None:
                note += f"  held-out {event.validation:.4f}"
            progress.advance(event.step, note)
    if done == 0:
        reporter.say(f"{folder} is trained already ({run.steps} steps)")
    else:
        reporter.say(f"trained {run.steps} steps: {folder}")
    return 0


def prepare(
    recipe: Recipe,
    folder: Path,
    reporter: Reporter,
    whole: Dataset | None = None,
    base: Model | None = None,
) -> tuple[Run, Model]:
    """The run of a recipe in a folder, begun or not, and the model it trains.

    whole and base: the recipe's data and the model it starts from, where they are open already.
    """
    # The initial weights are part of the run: the same seed, the same start.
    torch.manual_seed(recipe.train.seed)
    train_set, held_out = split(recipe, whole)
    lacking = left_out(train_set)
    if lacking is not None:
        reporter.warn(lacking)
    model = build(recipe, train_set)
    for note in finetune.begin(model, recipe, folder, base):
        reporter.say(note)
    objective = objective_of(recipe.objective, model.denoiser, model.conditioning, train_set.levels)
    _check(recipe, train_set, objective)

    def preview() -> bytes:
        classes = len(model.card.classes)
        label = [i % classes for i in range(_PREVIEWS)] if classes and "label" in told else None
        model.refresh()
        drawn = model.sample(_PREVIEWS, label=label, dtype="float32")
        return png_bytes(drawn.sheet(columns=10))

    told = model.conditioning.names
    task = Task(
        objective=objective,
        data=train_set,
        held_out=held_out,
        augment=augmentation(recipe),
        write_model=lambda path: write_model(model, path),
        preview=preview,
    )

    def complete(config: dict[str, Any]) -> dict[str, Any]:
        return validated(Recipe, config, str(folder)).model_dump(mode="json")

    run = Run(folder, recipe.model_dump(mode="json"), task, reporter.warn, complete)
    if recipe.train.parts != "*":
        reporter.say(finetune.trained_parts(run.trained, dict(objective.named_parameters())))
    return run, model


def _check(recipe: Recipe, dataset: Dataset, objective: Objective) -> None:
    """Find what cannot work before anything is written: one sample through the whole loss."""
    samplers.get(recipe.sampling.sampler)
    grids.get(recipe.sampling.grid)
    if recipe.train.batch_size > len(dataset):
        raise UsageError(
            f"a batch of {recipe.train.batch_size} is more than the {len(dataset)} training "
            "samples; lower --train.batch-size"
        )
    objective.eval()
    with torch.no_grad():
        list(objective.phases(dataset.batch([0]), Draws.of_step(0, 0, range(1), 1)))
    objective.train()


def augmentation(recipe: Recipe) -> data.Augment | None:
    """The changes of a recipe's training samples; None where it has none.

    Raises UsageError when the network is told another number of numbers than they tell.
    """
    made = data.chain([data.AUGMENTATIONS.build(part) for part in recipe.augment])
    width = recipe.encoders.get("augment", {}).get("width")
    if made is not None and width not in (None, made.width):
        raise UsageError(
            f"the augmentations of {recipe.name} tell {made.width} numbers and its network is "
            f"told {width}; set the width of the encoder and of accepts.vector to {made.width}"
        )
    return made


def split(recipe: Recipe, whole: Dataset | None = None) -> tuple[Dataset, Dataset]:
    """The training data of a recipe, and the part of the data held out from training.

    whole: the recipe's data, where it has been read already.
    """
    every = data.load(recipe.data) if whole is None else whole
    return every.split(recipe.held_out, seed=0)


def build(recipe: Recipe, dataset: Dataset) -> Model:
    """The untrained model of a recipe, for data of that shape."""
    denoiser = NetworkDenoiser(
        nets.build(recipe.net),
        processes.PROCESSES.build(recipe.process),
        parameterizations.PARAMETERIZATIONS.build(recipe.parameterization),
        recipe.learned_variance,
    )
    card = Card(
        name=recipe.name,
        data=dataset.name,
        summary=recipe.summary,
        classes=list(dataset.classes),
        levels=dataset.levels,
        ancestry=recipe.ancestry,
    )
    return Model(
        denoiser,
        dataset.shape,
        codecs.CODECS.build(recipe.codec),
        encoders.Conditioning.build(recipe.encoders),
        Defaults(**recipe.sampling.model_dump()),
        card,
    )


def recipe_of(folder: Path) -> Recipe:
    """The recipe a run follows. FileError when the folder holds no run."""
    if not (folder / "config.json").is_file():
        state = "is not a run folder" if folder.is_dir() else "no such run"
        raise FileError(
            f"{folder}: {state}; train one with `fromnoise train RECIPE --out {folder}`"
        )
    return validated(Recipe, read_config(folder), str(folder))


def _asked(
    request: TrainRequest, reporter: Reporter
) -> tuple[Recipe, Path, Dataset | None, Model | None]:
    """The recipe and its folder; its data and its base where they were read to know the recipe."""
    if request.resume is not None:
        if request.recipe is not None:
            raise UsageError("give a recipe or --resume, not both")
        if request.data is not None:
            raise UsageError("a run goes on with its own data; leave out --data")
        if request.base is not None:
            raise UsageError("a run goes on from its own weights; leave out --from")
        folder = Path(request.resume)
        recipe = recipe_of(folder)
        return _changed(recipe, request, {}), folder, None, None
    if request.recipe is None:
        raise UsageError("name a recipe (`fromnoise recipes` lists them) or --resume RUN")
    recipe = _named(request.recipe)
    seed = {"seed": request.seed} if "seed" in request.model_fields_set else {}
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
    whole = None
    if request.data is not None:
        recipe, whole = onto(recipe, request.data, request.max_bad)
        name = f"{name}-{whole.name}"
    recipe = changing(recipe, request.augment)
    more = {**seed, **_rate(recipe, request, slower, reporter)}
    return _changed(recipe, request, more), Path(request.out or f"runs/{name}"), whole, base


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
