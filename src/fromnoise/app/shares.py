"""Sampling split over processes: each draws whole batches, and the first one has them all.

A network's arithmetic depends a little on the shape of its batch, so a batch is never cut: one
process and many run the same batches, and the samples are the same bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fromnoise.app.reporting import Reporter
from fromnoise.model import Model
from fromnoise.model.estimate import watched
from fromnoise.model.samples import cut
from fromnoise.samplers import Step
from fromnoise.training.ranks import Ranks


def share(count: int, batch: int, ranks: Ranks) -> range:
    """The samples that this process draws: as many whole batches as the others, or one more."""
    batches = -(-count // batch)
    # Rounded up, so that where there is only one it is the first process that draws.
    first, last = (-(-batches * index // ranks.count) for index in (ranks.index, ranks.index + 1))
    return range(min(first * batch, count), min(last * batch, count))


def draw(
    model: Model,
    arguments: Mapping[str, Any],
    film: bool,
    ranks: Ranks,
    reporter: Reporter,
    seen: Callable[[Step], None] | None = None,
) -> tuple[Tensor, dict[str, Any], list[Step]]:
    """The samples as data and their recipe, the same in every process; steps for a film.

    arguments: of `model.stream`. film: whether the steps are wanted. seen: told of this process's
    own steps as they are made.
    """
    with ranks.together():
        # Checked as a whole, so that what is wrong is told as one process would tell it.
        whole = model.stream(**arguments)
    tile = _agreed(whole.recipe["tile"], ranks)
    with ranks.together():
        for note in whole.notes:
            reporter.warn(note)
        if tile != whole.recipe["tile"]:
            whole = model.stream(**{**arguments, "tile": tile})
        recipe = whole.recipe
        count, batch = len(recipe["seeds"]), recipe["batch_size"]
        rows = share(count, batch, ranks)
        if ranks.first and -(-count // batch) < ranks.count:
            reporter.warn(
                f"{count} samples are {-(-count // batch)} batches of {batch}, too few for "
                f"{ranks.count} processes; give --batch-size {-(-count // ranks.count)} or less"
            )
        stream: Iterator[Step] = iter(())
        if rows:
            part = (
                whole
                if len(rows) == count
                else model.stream(**_part(model, arguments, recipe, rows))
            )
            noisy = model.denoiser.process.noisy
            stream = watched(part, reporter.warn, "flags", noisy)
        steps, x = _taken(_looked_at(stream, seen), film, whole.count, reporter)
        if x is None:
            dtype = torch.float64 if recipe["dtype"] == "float64" else torch.float32
            none = [torch.zeros((0, *shape), dtype=dtype) for shape in whole.shapes]
            x = none[-1]
            steps = [Step(i, whole.count, 0.0, no, no) for i, no in enumerate(none) if film]
        made = model.decode(x, recipe["dtype"], tile)
    steps = [replace(step, x=ranks.rows(step.x), x0=ranks.rows(step.x0)) for step in steps]
    return ranks.rows(made), recipe, steps


def _agreed(tile: int, ranks: Ranks) -> int:
    """The smallest tile of any process: what is free may change from one's look to the next's."""
    tiles = ranks.gather(torch.tensor([tile])).flatten().tolist()
    return min((one for one in tiles if one), default=0)


def _part(
    model: Model, arguments: Mapping[str, Any], recipe: Mapping[str, Any], rows: range
) -> dict[str, Any]:
    """What to ask of `model.stream` for some of the samples."""
    inputs = model.conditioning.each(arguments.get("inputs") or {}, len(recipe["seeds"]))
    return {
        **arguments,
        "count": len(rows),
        "label": cut(arguments["label"], rows),
        "inputs": cut(inputs, rows),
        "seed": recipe["seeds"][rows.start : rows.stop],
        "batch_size": recipe["batch_size"],
        "tile": recipe["tile"],
    }


def _looked_at(stream: Iterator[Step], seen: Callable[[Step], None] | None) -> Iterator[Step]:
    for step in stream:
        if seen is not None:
            seen(step)
        yield step


def _taken(
    stream: Iterator[Step], film: bool, count: int, reporter: Reporter
) -> tuple[list[Step], Tensor | None]:
    """The steps where they are wanted, and the last x; None where there is no step."""
    kept: list[Step] = []
    x: Tensor | None = None
    with reporter.progress("sampling", count) as progress:
        for step in stream:
            progress.advance(step.index + 1)
            x = step.x
            if film:
                kept.append(step)
    return kept, x
