"""Small models of every network, noise in all parameters, and the exported script run apart."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nets.filling import filled
from torch import Tensor, nn

from fromnoise import codecs, encoders, parameterizations, processes, schedules
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.model import Card, Defaults, Model

AT_ONCE = {"shape": [1, 4, 4], "width": 16, "depth": 1, "accepts": {"vector": {"label": 3}}}
"""The size of a small generator."""

ALONE = """
import runpy, sys
sys.modules["torch"] = sys.modules["fromnoise"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script where neither torch nor fromnoise can be imported."""

MLP = {"kind": "mlp", "in_channels": 2, "width": 16, "depth": 1}
DIT = {
    "kind": "dit",
    "in_channels": 1,
    "size": 8,
    "patch": 4,
    "width": 16,
    "depth": 1,
    "heads": 2,
    "accepts": {"vector": {"label": 3}},
}


def model(
    net: dict,
    shape: tuple[int, ...],
    process: processes.Process | None = None,
    parameterization: parameterizations.Parameterization | None = None,
    codec: codecs.Codec | None = None,
    learned_variance: bool = False,
    sampler: str = "dpm++2m",
) -> Model:
    """A model of a network filled with noise; told a label where the network takes one."""
    network = filled(net)
    labels = network.accepts.vector.items()
    return Model(
        NetworkDenoiser(
            network,
            process or processes.Gaussian(schedules.cosine()),
            parameterization or parameterizations.V(),
            learned_variance,
        ),
        shape,
        codec or codecs.Identity(),
        encoders.Conditioning({name: encoders.Label(width) for name, width in labels}),
        Defaults(sampler=sampler, steps=10, guidance=2.0),
        Card(name="small"),
    )


def generator(kind: str) -> Model:
    """A model that draws in one step from noise."""
    net = {"kind": kind, **AT_ONCE, **({"groups": [4, 12]} if kind == "hvae" else {})}
    reading = {"kind": "x0", "clock": "time", "clock_scale": 1.0}
    made = model(
        net,
        (1, 4, 4),
        processes.Gaussian(schedules.flow()),
        parameterizations.PARAMETERIZATIONS.build(reading),
    )
    defaults = Defaults(sampler="ddim", grid="uniform", steps=1, guidance=1.0)
    return Model(
        made.denoiser, made.shape, made.codec, made.conditioning, defaults, Card(name="small")
    )


def branching(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a network ask about the values it is given, which no exporter can follow."""
    compute = type(net).compute

    def asking(self: nn.Module, x: Tensor, *given: object) -> Tensor:
        answer: Tensor = compute(self, x, *given)
        return answer if bool((x > 0).any()) else -answer

    monkeypatch.setattr(type(net), "compute", asking)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python code with arguments, isolated."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def drawn(folder: Path, *arguments: str) -> np.ndarray:
    """The samples the script in a folder draws, without torch and fromnoise."""
    out = folder.parent / "drawn"
    done = run(ALONE, str(folder / "sample.py"), "--array", "--out", str(out), *arguments)
    assert done.returncode == 0, done.stderr
    return np.load(out / "samples.npy")
