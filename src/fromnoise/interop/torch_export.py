"""A model's network as a torch.export program: a graph that needs torch but not fromnoise."""

from pathlib import Path
from typing import Any

import torch

from fromnoise.core.errors import FromNoiseError
from fromnoise.core.files import atomic_folder
from fromnoise.interop.attempts import attempt
from fromnoise.interop.flat import (
    Flat,
    Inputs,
    dynamic_shapes,
    example,
    takes_any_size,
    told_times,
    traced_space,
)
from fromnoise.interop.schedule_table import sampling_table, write_schedule
from fromnoise.model import Model

TOLERANCE = 1e-6
"""The most the program's answer may differ from ours, relative to the greatest answer."""


def export_program(model: Model, folder: Path) -> list[str]:
    """Write a model's network as a `torch.export` program; notes of what was made.

    denoiser.pt2: the network F of (x, time, one tensor for each slot of the condition), float32,
    any batch, any size where the network takes any; `torch.export.load(path).module()` is
    callable. schedule.json: see `sampling_table`.
    The file is read back and compared with our network before the folder is put in place. It
    holds no pickle: the example inputs that torch would pickle are left out.
    Raises UsageError for a model that cannot be exported, FromNoiseError when torch fails to do so
    or the program's answer is not ours, FileError and DiskError as `atomic_folder` does.
    """
    table = sampling_table(model)
    flat = Flat(model.denoiser.net)
    space = model.codec.latent_shape(model.shape)[1:]
    sizes = takes_any_size(flat, space)
    traced = traced_space(flat, space, sizes)
    inputs = example(flat, 2, traced, told_times(model, 2))
    shapes = dynamic_shapes(inputs, flat.network.unit, sizes)
    with attempt("torch.export cannot export this network"):
        program = torch.export.export(flat, inputs.tensors, dynamic_shapes=shapes)
    _bare(program)
    with atomic_folder(folder) as room:
        path = room / "denoiser.pt2"
        torch.export.save(program, path)
        trials = [inputs, example(flat, 1, space, told_times(model, 1))]
        worst, greatest = _compare(flat, path, trials)
        write_schedule(room / "schedule.json", table)
    varies = "any batch and size" if sizes else "any batch"
    return [
        f"denoiser.pt2: {varies}; read back, it differs by {worst:.1e} at most, "
        f"of answers up to {greatest:.2g}"
    ]


def _bare(program: Any) -> None:
    """Leave out the example inputs, which would be pickled, and paths of this machine."""
    program._example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)


def _compare(flat: Flat, path: Path, trials: list[Inputs]) -> tuple[float, float]:
    read = torch.export.load(path).module()
    worst = greatest = 0.0
    for inputs in trials:
        with torch.no_grad():
            ours, theirs = flat(*inputs.tensors), read(*inputs.tensors)
        worst = max(worst, (ours - theirs).abs().max().item())
        greatest = max(greatest, ours.abs().max().item())
    if not worst <= TOLERANCE * max(greatest, 1.0):
        raise FromNoiseError(
            f"the exported program differs from ours by {worst:.1e}, more than {TOLERANCE} of "
            f"{greatest:.2g}; nothing was written. Please report it with the version of torch"
        )
    return worst, greatest
