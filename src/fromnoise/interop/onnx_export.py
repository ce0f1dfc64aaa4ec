"""A model as an ONNX folder that draws our pictures without fromnoise or torch."""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fromnoise.codecs import Codec, Identity
from fromnoise.core.errors import FromNoiseError, UsageError
from fromnoise.core.files import atomic_folder, write_text
from fromnoise.interop import onnx_sampler
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
from fromnoise.interop.schedule_table import STEPS, sampling_table, write_schedule
from fromnoise.model import Model

TOLERANCE = 2e-5
"""The most the runtime's answer may differ from ours, relative to the greatest answer."""

EMBEDDED = 1_500_000_000
"""Weights of up to so many bytes go into the .onnx file itself, which may not pass 2 GiB."""


def export_onnx(model: Model, folder: Path, steps: Sequence[int] = STEPS) -> list[str]:
    """Write a model as a folder for ONNX runtimes; notes of what was made and how close it is.

    denoiser.onnx: the network F of (x, time, one input for each slot of the condition), float32,
    any batch, any size where the network takes any. decoder.onnx: latents to data, where the
    codec is not the identity. schedule.json: see `sampling_table`. sample.py: a script of numpy
    and onnxruntime that draws what `model.sample` draws.
    steps: the numbers of steps whose grids are written.
    Every network is run by onnxruntime and compared with ours before the folder is put in place.
    Raises UsageError for a model that cannot be exported or libraries that are missing (the extra
    `export`), FromNoiseError when torch or the runtime fails or its answer is not ours, FileError
    and DiskError as `atomic_folder` does.
    """
    _libraries()
    table = sampling_table(model, steps)
    with atomic_folder(folder) as room:
        notes = [_denoiser(model, room / "denoiser.onnx")]
        if not isinstance(model.codec, Identity):
            notes.append(_decoder(model, room / "decoder.onnx"))
        write_schedule(room / "schedule.json", table)
        script = Path(onnx_sampler.__file__).read_text("utf-8")
        write_text(room / "sample.py", script)
    if model.defaults.sampler not in onnx_sampler.SAMPLERS:
        notes.append(
            f"sample.py knows {', '.join(onnx_sampler.SAMPLERS)}; by default it takes dpm++2m in "
            f"place of {model.defaults.sampler}"
        )
    return notes


def _libraries() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UsageError(
                f"export to ONNX needs {name} ({error}); pip install 'fromnoise[export]'"
            ) from None


class _Decoder(nn.Module):
    """A codec's decoder as a module."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, z: Tensor) -> Tensor:
        return self.codec.decode(z)


def _denoiser(model: Model, path: Path) -> str:
    flat = Flat(model.denoiser.net)
    space = model.codec.latent_shape(model.shape)[1:]
    sizes = takes_any_size(flat, space)
    inputs = example(flat, 2, traced_space(flat, space, sizes), told_times(model, 2))
    shapes = dynamic_shapes(inputs, flat.network.unit, sizes)
    write_onnx(flat, inputs, shapes, flat.names, path)
    trials = [inputs, example(flat, 3, space, told_times(model, 3))]
    worst, greatest = compare(flat, path, flat.names, trials)
    varies = "any batch and size" if sizes else "any batch"
    return (
        f"denoiser.onnx: {varies}; onnxruntime differs by {worst:.1e} at most, "
        f"of answers up to {greatest:.2g}"
    )


def _decoder(model: Model, path: Path) -> str:
    decoder = _Decoder(model.codec).eval()
    shape = model.codec.latent_shape(model.shape)
    generator = torch.Generator().manual_seed(0)
    trials = [
        Inputs((torch.randn(batch, *shape, generator=generator),), ({0: "batch"},))
        for batch in (2, 3)
    ]
    batch = torch.export.Dim("batch", min=1)
    write_onnx(decoder, trials[0], {"z": {0: batch}}, ("z",), path)
    worst, greatest = compare(decoder, path, ("z",), trials)
    return (
        f"decoder.onnx: any batch; onnxruntime differs by {worst:.1e} at most, "
        f"of answers up to {greatest:.2g}"
    )


def write_onnx(
    module: nn.Module, inputs: Inputs, shapes: dict[str, Any], names: Sequence[str], path: Path
) -> None:
    """Export a module by torch's own exporter, weights beside the file where they are large."""
    import onnx

    with quiet(), attempt("torch's ONNX exporter cannot export this network"):
        program = torch.onnx.export(
            module,
            inputs.tensors,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(names),
            output_names=["output"],
            verbose=False,
        )
    if program is None:
        raise FromNoiseError("torch's ONNX exporter made nothing; try another version of torch")
    for node in program.model.graph:
        # The exporter writes where in the source each node comes from, with paths of this machine.
        node.metadata_props.clear()
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    program.save(str(path), external_data=size > EMBEDDED)
    with attempt("what torch's ONNX exporter made is not valid"):
        onnx.checker.check_model(str(path))


def compare(
    module: nn.Module, path: Path, names: Sequence[str], trials: Sequence[Inputs]
) -> tuple[float, float]:
    """The greatest difference of onnxruntime's answers from a module's, and the greatest answer.

    FromNoiseError when the first is above `TOLERANCE` of the second (or of 1, where it is less).
    """
    import onnxruntime

    with attempt(f"onnxruntime cannot read {path.stem}"):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = greatest = 0.0
    for inputs in trials:
        given = {name: value.numpy() for name, value in zip(names, inputs.tensors, strict=True)}
        with torch.no_grad():
            ours = module(*inputs.tensors).numpy()
        with attempt(f"onnxruntime cannot run {path.stem}"):
            theirs = session.run(None, given)[0]
        worst = max(worst, float(np.abs(theirs - ours).max()))
        greatest = max(greatest, float(np.abs(ours).max()))
    if not worst <= TOLERANCE * max(greatest, 1.0):
        raise FromNoiseError(
            f"onnxruntime's {path.stem} differs from ours by {worst:.1e}, more than {TOLERANCE} of "
            f"{greatest:.2g}; nothing was written. Please report it with the versions of torch, "
            "onnxscript and onnxruntime"
        )
    return worst, greatest


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's warnings about other libraries and its own future to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
