"""Train by a recipe, or go on with a run."""

from dataclasses import replace
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
    samplers,
)
from fromnoise.app import behind, finetune
from fromnoise.app.asked import asked
from fromnoise.app.reconstructions import sheet
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import TrainRequest
from fromnoise.app.sources import left_out
from fromnoise.app.told import examples, fitted
from fromnoise.core.config import validated
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.files import check_folder
from fromnoise.core.images import png_bytes
from fromnoise.data import Dataset
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.model import Card, Defaults, Model
from fromnoise.model.files import write_model
from fromnoise.recipes import Recipe
from fromnoise.training import Run, Task
from fromnoise.training.autoencoder import Reconstruction
from fromnoise.training.draws import Draws
from fromnoise.training.objective import Objective
from fromnoise.training.objectives import objective_of
from fromnoise.training.ranks import join

_PREVIEWS = 40


def train(request: TrainRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise train`."""
    # What is wrong for one of several processes is known to all before they train.
    with join().together():
        it = asked(request, reporter)
        check_folder(it.folder)
        run, _ = prepare(it.recipe, it.folder, reporter, it.whole, it.base, it.codec)
    done = 0
    with reporter.progress(f"training {it.recipe.name}", run.steps) as progress:
        for event in run.train():
            done = event.step
            note = f"loss {event.loss:.4f}"
            if event.validation is not None:
                note += f"  held-out {event.validation:.4f}"
            progress.advance(event.step, note)
    if done == 0:
        reporter.say(f"{it.folder} is trained already ({run.steps} steps)")
    else:
        reporter.say(f"trained {run.steps} steps: {it.folder}")
    return 0


def prepare(
    recipe: Recipe,
    folder: Path,
    reporter: Reporter,
    whole: Dataset | None = None,
    base: Model | None = None,
    codec: codecs.Codec | None = None,
) -> tuple[Run, Model]:
    """The run of a recipe in a folder, begun or not, and the model it trains.

    whole, base and codec: the recipe's data, the model it starts from and the codec it works
    behind, where they are open already.
    """
    # The initial weights are part of the run: the same seed, the same start.
    torch.manual_seed(recipe.train.seed)
    whole = data.load(recipe.data) if whole is None else whole
    train_set, held_out = split(recipe, whole)
    lacking = left_out(train_set)
    if lacking is not None:
        reporter.warn(lacking)
    model = build(recipe, train_set)
    for note in finetune.begin(model, recipe, folder, base):
        reporter.say(note)
    for note in behind.begin(model, recipe, folder, whole, codec):
        reporter.say(note)
    encoded = train_set.pictured is not None
    objective = objective_of(
        recipe.objective,
        model.denoiser,
        model.conditioning,
        train_set.levels,
        model.codec,
        encoded,
    )
    augment = augmentation(recipe)
    _check(recipe, train_set, objective, augment)
    task = _task(model, objective, train_set, held_out, augment)

    def complete(config: dict[str, Any]) -> dict[str, Any]:
        return validated(Recipe, config, str(folder)).model_dump(mode="json")

    run = Run(folder, recipe.model_dump(mode="json"), task, reporter.warn, complete)
    if recipe.train.parts != "*":
        reporter.say(finetune.trained_parts(run.trained, dict(objective.named_parameters())))
    return run, model


def _task(
    model: Model,
    objective: Objective,
    train_set: Dataset,
    held_out: Dataset,
    augment: data.Augment | None,
) -> Task:
    """What a run trains on, writes and shows."""
    autoencoder = isinstance(objective, Reconstruction)
    told = examples(model.conditioning.names, held_out, _PREVIEWS)

    def preview() -> bytes:
        if autoencoder:
            return png_bytes(sheet(model, held_out, _PREVIEWS // 2))
        model.refresh()
        # Not `sample`, which would warn of a long run: nobody asked for this one.
        drawn = model.stream(_PREVIEWS, **told, dtype="float32").samples()
        return png_bytes(drawn.sheet(columns=10))

    def write(path: Path) -> None:
        if autoencoder:
            behind.measure(model, train_set)
        write_model(model, path)

    return Task(
        objective=objective,
        data=train_set,
        held_out=held_out,
        augment=augment,
        write_model=write,
        preview=preview if model.denoiser.net.draws or autoencoder else None,
    )


def _check(
    recipe: Recipe, dataset: Dataset, objective: Objective, augment: data.Augment | None
) -> None:
    """Find what cannot work before anything is written: one sample through the whole loss."""
    samplers.get(recipe.sampling.sampler)
    grids.get(recipe.sampling.grid)
    if recipe.train.batch_size > len(dataset):
        raise UsageError(
            f"a batch of {recipe.train.batch_size} is more than the {len(dataset)} training "
            "samples; lower --train.batch-size"
        )
    if not objective.splits and (recipe.train.accumulation > 1 or join().count > 1):
        raise UsageError(
            f"the loss of {recipe.name} is of a whole batch, not of each sample, so a batch cannot "
            "be split; leave --train.accumulation and --processes at 1"
        )
    if augment is not None and dataset.pictured is not None:
        raise UsageError(
            "latents cannot be changed as pictures can; leave out the changes (--augment none), or "
            "train on the pictures"
        )
    batch = dataset.batch([0])
    if augment is not None:
        changed = augment(batch.x[0].clone(), data.generator(0, 0, 0))
        batch = replace(batch, x=changed.x[None], augment=changed.told[None])
    objective.eval()
    try:
        with torch.no_grad():
            objective.rehearse(batch, Draws.of_step(0, 0, range(1), 1))
    except ShapeError as error:
        if recipe.base is None:
            raise
        raise ShapeError(
            f"{error}. The network is that of {recipe.base}: give --data, or another recipe"
        ) from None
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

    whole: the recipe's data, where it has been read already. Without, latents in a file count as
    the pictures they are of: nothing but training is about latents.
    """
    if whole is None:
        read = data.load(recipe.data)
        whole = read.pictured or read
    return whole.split(recipe.held_out, seed=0)


def build(recipe: Recipe, dataset: Dataset) -> Model:
    """The untrained model of a recipe, for data of that shape."""
    seen = dataset.pictured or dataset
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
        levels=seen.levels,
        ancestry=recipe.ancestry,
    )
    return Model(
        denoiser,
        seen.shape,
        codecs.CODECS.build(recipe.codec),
        encoders.Conditioning.build(fitted(recipe.encoders, dataset)),
        Defaults(**recipe.sampling.model_dump()),
        card,
    )
