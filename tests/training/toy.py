"""A tiny training run: also a program, so that tests can kill it.

python toy.py FOLDER SETTINGS [STEP]   kills itself with SIGKILL after that step.
"""

import json
import os
import signal
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import FromNoiseError
from fromnoise.data import Batch, Dataset
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.nets import NETS, Network
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.schedules import SCHEDULES
from fromnoise.training import (
    Denoising,
    Draws,
    Event,
    ObjectiveSettings,
    Run,
    Task,
    TrainSettings,
)
from fromnoise.training.denoising import denoising

SMALL = {
    "steps": 12,
    "batch_size": 8,
    "warmup": 2,
    "checkpoint_every": 4,
    "validate_every": 4,
    "learning_rate": 1e-2,
    "ema": 0.9,
}

NET = {"kind": "mlp", "in_channels": 2, "width": 16, "depth": 1, "features": 8}


class Points(Dataset):
    """Two labelled clusters of points, in memory."""

    def __init__(self, count: int = 40, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.name, self.shape, self.levels, self.classes = "toy", (2,), None, ("left", "right")
        self.labels = torch.arange(count) % 2
        self.x = 0.3 * torch.randn(count, 2, generator=generator)
        self.x[:, 0] += 2.0 * self.labels - 1.0

    def __len__(self) -> int:
        return len(self.x)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self.x[torch.from_numpy(indices)]


class Counting(Denoising):
    """The denoising objective with state of its own: a count of steps that enters the loss."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("taken", torch.zeros(()))
        self.seen: list[Batch] = []

    def losses(self, batch: Batch, draws: Draws) -> tuple[Tensor, Tensor]:
        if self.training:
            self.seen.append(batch)
        t, losses = super().losses(batch, draws)
        return t, losses * (1.0 + 0.01 * self.taken)

    def after_step(self) -> None:
        self.taken += 1.0


def network(dropout: float = 0.2, **channels: int) -> Network:
    """A small network whose zero-initialised layers are filled, so that all of it trains."""
    accepts = {"channels": channels, "vector": {"label": 2}}
    net = NETS.build({**NET, "dropout": dropout, "accepts": accepts})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def objective(
    settings: ObjectiveSettings | None = None,
    schedule: str = "cosine",
    reading: str = "v",
    dropout: float = 0.2,
) -> Denoising:
    """A denoising objective on points."""
    settings = settings or ObjectiveSettings(condition_dropout=0.2)
    channels = {"self": 2} if settings.self_conditioning else {}
    denoiser = NetworkDenoiser(
        network(dropout, **channels),
        SCHEDULES.build({"kind": schedule}),
        PARAMETERIZATIONS.build({"kind": reading}),
    )
    return denoising(denoiser, Conditioning({"label": Label(2)}), settings)


def counting(dropout: float = 0.2) -> Counting:
    """The objective of the runs that are killed: dropout, condition dropout, a buffer."""
    made = objective(dropout=dropout)
    return Counting(made.denoiser, made.conditioning, made.weighting, made.time_sampling, 0.2, 0.0)


def run(
    folder: Path,
    settings: dict[str, Any],
    data: Dataset | None = None,
    dropout: float = 0.2,
    **extra: Any,
) -> Run:
    """A run on points; `settings` are those of `SMALL` unless given."""
    train = TrainSettings(**{**SMALL, **settings}).model_dump(mode="json")
    task = Task(counting(dropout), data or Points(), Points(16, seed=1), preview=lambda: b"picture")
    return Run(folder, {"recipe": "toy", "train": train, **extra}, task)


def digest(objective: torch.nn.Module) -> str:
    """SHA-256 of all weights."""
    state = objective.state_dict()
    return sha256(b"".join(state[k].numpy().tobytes() for k in sorted(state))).hexdigest()


def trace(event: Event, made: Run) -> str:
    """All that one step did, exactly."""
    numbers = [event.loss, event.grad_norm, event.learning_rate]
    done = [str(event.step), *(x.hex() for x in numbers), digest(made.task.objective)]
    return " ".join(done)


def main(folder: str, config: str, step: str = "0") -> None:
    """Train in a folder, printing a line for each step; die after the step that is told."""
    torch.set_num_threads(1)
    dropout = float(os.environ.get("TOY_DROPOUT", "0.2"))
    made = run(Path(folder), json.loads(config), dropout=dropout)
    for event in made.train():
        print(trace(event, made), flush=True)
        if event.step == int(step):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except FromNoiseError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
