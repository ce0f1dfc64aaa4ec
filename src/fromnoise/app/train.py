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
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import TrainRequest
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
from fromnoise.training.objective import Denoising, denoising
from fromnoise.training.runner import read_config

_PREVIEWS = 40


def train(request: TrainRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise train`."""
    recipe, folder = _asked(request)
    check_folder(folder)
    run, _ = prepare(recipe, folder, reporter)
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


def prepare(recipe: Recipe, folder: Path, reporter: Reporter) -> tuple[Run, Model]:
    """The run of a recipe in a folder, begun or not, and the model it trains."""
    # The initial weights are part of the run: the same seed, the same start.
    torch.manual_seed(recipe.train.seed)
    train_set, held_out = split(recipe)
    model = build(recipe, train_set)
    objective = denoising(model.denoiser, model.conditioning, recipe.objective)
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
        write_model=lambda path: write_model(model, path),
        preview=preview,
    )
    run = Run(folder, recipe.model_dump(mode="json"), task, reporter.warn)
    return run, model


def _check(recipe: Recipe, dataset: Dataset, objective: Denoising) -> None:
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
        objective.loss(dataset.batch([0]), Draws.of_step(0, 0, range(1), 1))
    objective.train()


def split(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """The training data of a recipe, and the part of the data held out from training."""
    return data.load(recipe.data).split(recipe.held_out, seed=0)


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


def _asked(request: TrainRequest) -> tuple[Recipe, Path]:
    if request.resume is not None:
        if request.recipe is not None:
            raise UsageError("give a recipe or --resume, not both")
        folder = Path(request.resume)
        recipe = recipe_of(folder)
        return _changed(recipe, request, {}), folder
    if request.recipe is None:
        raise UsageError("name a recipe (`fromnoise recipes` lists them) or --resume RUN")
    recipe = _named(request.recipe)
    seed = {"seed": request.seed} if "seed" in request.model_fields_set else {}
    if seed and "seed" in request.train.model_fields_set and request.train.seed != request.seed:
        raise UsageError(
            f"--seed {request.seed} and --train.seed {request.train.seed} are the same setting; "
            "give one"
        )
    return _changed(recipe, request, seed), Path(request.out or f"runs/{recipe.name}")


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
