"""Every setting has a help text, refuses nonsense, and observably does something."""

import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from training import toy

from fromnoise.core.errors import TrainingError, UsageError
from fromnoise.core.files import load_tensors
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.nets import MLP
from fromnoise.nets.base import Accepts
from fromnoise.training import Draws, ObjectiveSettings, TrainSettings, checkpoint
from fromnoise.training.denoising import denoising
from fromnoise.training.metrics import read_metrics


class Reading(toy.Points):
    """Points that say which process read them, as captions, and take their time."""

    seconds = 0.0

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        time.sleep(self.seconds)
        return super().samples(indices)

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str]:
        return [str(os.getpid())] * len(indices)


def observed(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """All that can be seen of a run."""
    made = toy.run(folder, settings, Reading())
    events = list(made.train())
    last = checkpoint.steps(folder)[-1]
    average = checkpoint.load_tensors(last / "ema.safetensors")[0]
    seen = made.task.objective.seen  # type: ignore[attr-defined]
    return {
        "steps": len(events),
        "losses": [event.loss for event in events],
        "rates": [event.learning_rate for event in events],
        "weights": toy.digest(made.task.objective),
        "average": sha256(b"".join(v.numpy().tobytes() for v in average.values())).hexdigest(),
        "sizes": {len(batch) for batch in seen},
        "elsewhere": any(batch.caption[0] != str(os.getpid()) for batch in seen),
        "activations twice": made.task.objective.denoiser.net.checkpointing,
        "lines": len(read_metrics(folder / "metrics.jsonl")),
        "validations": [e.validation for e in events if e.validation is not None],
        "checkpoints": [path.name for path in checkpoint.steps(folder)],
        "pictures": sorted(path.name for path in (folder / "samples").glob("*.png")),
        "event files": len(list(folder.glob("tensorboard/*"))),
        "snapshots": {
            path.parent.name: {str(v.dtype) for v in load_tensors(path)[0].values()}
            for path in folder.glob("snapshots/*/averages.safetensors")
        },
    }


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return observed(tmp_path_factory.mktemp("before") / "run", {})


EFFECTS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "steps": ({"steps": 7}, "steps", 7),
    "epochs": ({"epochs": 2.1}, "steps", 11),
    "batch_size": ({"batch_size": 5}, "sizes", {5}),
    "accumulation": ({"accumulation": 3}, "sizes", {2, 3}),
    "gradient_checkpointing": ({"gradient_checkpointing": True}, "activations twice", True),
    "optimizer": ({"optimizer": {"kind": "adamw", "beta1": 0.5}}, "weights", None),
    "learning_rate": ({"learning_rate": 0.1}, "rates", None),
    "warmup": ({"warmup": 5}, "rates", None),
    "schedule": ({"schedule": "constant"}, "rates", [0.005] + [0.01] * 11),
    "weight_decay": ({"weight_decay": 0.5}, "weights", None),
    "clip": ({"clip": 0.01}, "weights", None),
    "ema": ({"ema": 0.1}, "average", None),
    "post_hoc": ({"post_hoc": [0.1]}, "snapshots", {"step-00000012": {"torch.float32"}}),
    "snapshot_every": (
        {"post_hoc": [0.1], "snapshot_every": 5},
        "snapshots",
        {f"step-{n:08d}": {"torch.float32"} for n in (5, 10, 12)},
    ),
    "snapshot_precision": (
        {"post_hoc": [0.1], "snapshot_precision": "float16"},
        "snapshots",
        {"step-00000012": {"torch.float16"}},
    ),
    "parts": ({"parts": "blocks.*"}, "weights", None),
    "precision": ({"precision": "bfloat16"}, "losses", None),
    "seed": ({"seed": 5}, "losses", None),
    "log_every": ({"log_every": 5}, "lines", 5),
    "validate_every": ({"validate_every": 0}, "validations", []),
    "validation_samples": ({"validation_samples": 4}, "validations", None),
    "checkpoint_every": ({"checkpoint_every": 0}, "checkpoints", ["step-00000012"]),
    "keep": ({"keep": 3}, "checkpoints", [f"step-{n:08d}" for n in (4, 8, 12)]),
    "sample_every": ({"sample_every": 6}, "pictures", [f"step-{n:08d}.png" for n in (6, 12)]),
    "workers": ({"workers": 1}, "elsewhere", True),
    "tensorboard": ({"tensorboard": True}, "event files", 1),
}
UNSEEN = {
    "workers", "log_every", "checkpoint_every", "keep", "sample_every", "tensorboard", "post_hoc",
    "snapshot_every", "snapshot_precision", "gradient_checkpointing",
}  # fmt: skip


def test_every_field_is_walked() -> None:
    assert EFFECTS.keys() | {"timeout", "group_timeout"} == TrainSettings.model_fields.keys()


@pytest.mark.parametrize("field", list(EFFECTS))
def test_each_field_does_something(tmp_path: Path, before: dict[str, Any], field: str) -> None:
    settings, key, expected = EFFECTS[field]
    after = observed(tmp_path / "run", settings)
    assert after[key] != before[key]
    if expected is not None:
        assert after[key] == expected
    if field in UNSEEN:
        assert after["weights"] == before["weights"]
        assert after["losses"] == before["losses"]


def test_the_timeout_ends_a_wait_for_data(tmp_path: Path) -> None:
    data = Reading()
    made = toy.run(tmp_path, {"workers": 1, "timeout": 0.2}, data)
    # Slow only after the first data were read, before training, in this process.
    made.task.objective.prepare = (  # type: ignore[method-assign]
        lambda x, seed: setattr(data, "seconds", 1.0)
    )
    with pytest.raises(TrainingError, match=r"0\.2 s"):
        next(made.train())


def _loss(settings: ObjectiveSettings) -> float:
    """The loss of a network that also learns a variance and can be shown its belief."""
    made = toy.objective()
    accepts = Accepts(channels={"self": 2}, vector={"label": 2})
    net = MLP(2, out_channels=4, width=16, depth=1, features=8, accepts=accepts)
    for number, parameter in enumerate(net.parameters()):
        generator = torch.Generator().manual_seed(number)
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    denoiser = NetworkDenoiser(
        net, made.denoiser.process, made.denoiser.parameterization, learned_variance=True
    )
    objective = denoising(denoiser, Conditioning({"label": Label(2)}), settings)
    if objective.uncertainty is not None:
        # It starts where it changes nothing.
        torch.nn.init.constant_(objective.uncertainty.weight, 0.1)
    draws = Draws.of_step(0, 1, range(32), 32)
    return objective.loss(toy.Points().batch(range(32)), draws).item()


OBJECTIVES: dict[str, Any] = {
    "weighting": {"kind": "min_snr", "gamma": 2.0},
    "time_sampling": "logit_normal",
    "condition_dropout": 0.5,
    "self_conditioning": 0.5,
    "variance_weight": 0.0,
    "loss": "vlb",
    "uncertainty": 4,
    "input_perturbation": 0.1,
    "noise_offset": 0.1,
}


def test_each_field_of_the_objective_does_something() -> None:
    assert OBJECTIVES.keys() == ObjectiveSettings.model_fields.keys() - {"kind"}
    plain = _loss(ObjectiveSettings())
    assert _loss(ObjectiveSettings()) == plain
    for field, value in OBJECTIVES.items():
        assert _loss(ObjectiveSettings(**{field: value})) != plain, field


@pytest.mark.parametrize("settings", [TrainSettings, ObjectiveSettings])
def test_every_field_has_a_help_text(settings: type[TrainSettings]) -> None:
    for name, field in settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("epochs", 0.0),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("clip", -1.0),
        ("ema", 1.0),
        ("precision", "float16"),
        ("schedule", "linear"),
        ("seed", -1),
        ("keep", 1),
        ("workers", -1),
        ("timeout", 0.0),
        ("learning_rat", 1.0),
    ],
)
def test_nonsense_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        TrainSettings(**{field: value})


def test_epochs_win_over_steps_and_one_of_them_is_needed() -> None:
    assert TrainSettings(steps=1000, epochs=3, batch_size=10).total(95) == 29
    assert TrainSettings(steps=1000, batch_size=10).total(95) == 1000
    with pytest.raises(UsageError, match="steps or epochs"):
        TrainSettings(steps=None).total(95)
    with pytest.raises(UsageError, match="empty"):
        TrainSettings().total(0)


def test_settings_are_read_without_torch() -> None:
    """The command line's help is made of them."""
    code = (
        "import sys, fromnoise.training.settings, fromnoise.training as t; t.TrainSettings;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
