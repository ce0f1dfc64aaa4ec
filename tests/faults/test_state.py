"""Any one piece of state that a checkpoint loses changes the run: the kill tests would see it."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import child
from training import toy

from fromnoise.core.files import read_json, save_tensors
from fromnoise.data import Loader
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.nets import NETS
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES
from fromnoise.training import ObjectiveSettings, Run, checkpoint, loop, runner
from fromnoise.training.denoising import denoising
from fromnoise.training.draws import Draws
from fromnoise.training.ema import EMA

SETTINGS = {"steps": 12, "checkpoint_every": 8, "validate_every": 0}
AT = 8


@pytest.fixture(scope="module")
def parts(quick_disk: Path) -> tuple[dict[str, Any], Path]:
    """What the whole run ends with, and a folder that stopped at its checkpoint."""
    whole = quick_disk / "state-whole"
    stopped = quick_disk / "state-parts"
    list(toy.run(whole, SETTINGS).train())
    stop_at(toy.run(stopped, SETTINGS), AT)
    return child.final(whole), stopped


def stop_at(made: Run, step: int) -> None:
    """Train up to a step, and no further."""
    events = made.train()
    for event in events:
        if event.step == step:
            break
    events.close()


def go_on(stopped: Path, run: Path, lose: Callable[[Path], object] = id) -> dict[str, Any]:
    """What the run ends with that goes on from a checkpoint which lost something."""
    copy(stopped, run)
    lose(checkpoint.steps(run)[-1])
    list(toy.run(run, SETTINGS).train())
    return child.final(run)


def copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())


def reset(file: str, chosen: str) -> Callable[[Path], None]:
    """Put tensors of a file back to what they are before training; some must change by it."""

    def lose(path: Path) -> None:
        tensors = checkpoint.load_tensors(path / file)[0]
        fresh = toy.counting().state_dict() if file != "optimizer.safetensors" else {}
        lost = {
            name: fresh.get(name, torch.zeros_like(value)) if chosen in name else value
            for name, value in tensors.items()
        }
        assert any(not torch.equal(lost[name], value) for name, value in tensors.items())
        save_tensors(path / file, lost)

    return lose


@lru_cache(maxsize=1)
def _weights() -> list[str]:
    return list(toy.counting().state_dict())


def _files() -> list[tuple[str, str]]:
    """File and tensor, for every tensor of a checkpoint: none can be forgotten here."""
    trained = [name for name, _ in toy.counting().named_parameters()]
    return [
        *(("objective.safetensors", name) for name in _weights()),
        *(("ema.safetensors", name) for name in trained),
        *(("optimizer.safetensors", f"{n}/{k}") for n in trained for k in _REMEMBERED),
    ]


_REMEMBERED = ("exp_avg", "exp_avg_sq", "step")
KINDS = [
    ("objective.safetensors", ".weight"),
    ("objective.safetensors", ".bias"),
    ("objective.safetensors", "taken"),
    ("ema.safetensors", "denoiser"),
    *(("optimizer.safetensors", f"/{kind}") for kind in _REMEMBERED),
]


def test_a_checkpoint_holds_these_tensors_and_no_other(parts: tuple[Any, Path]) -> None:
    """The lists below are complete: a new piece of state must be added to them."""
    path = checkpoint.steps(parts[1])[-1]
    there = {
        (file.name, name.removeprefix("main/"))
        for file in path.glob("*.safetensors")
        for name in checkpoint.load_tensors(file)[0]
    }
    assert there == set(_files())
    assert set(read_json(path / "state.json")) == {
        "format", "step", "samples", "seed", "processes", "config", "versions",
    }  # fmt: skip


def test_with_nothing_lost_it_is_the_same(
    tmp_path: Path, parts: tuple[dict[str, Any], Path]
) -> None:
    assert go_on(parts[1], tmp_path / "run") == parts[0]


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints as if they had been written like this."""
    monkeypatch.setattr(checkpoint, "verify_folder", lambda path: {})


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize(("file", "chosen"), KINDS)
def test_a_lost_kind_of_state_is_noticed(
    tmp_path: Path, parts: tuple[dict[str, Any], Path], file: str, chosen: str
) -> None:
    assert go_on(parts[1], tmp_path / "run", reset(file, chosen)) != parts[0]


@pytest.mark.slow
@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize(("file", "chosen"), _files())
def test_any_single_lost_tensor_is_noticed(
    tmp_path: Path, parts: tuple[dict[str, Any], Path], file: str, chosen: str
) -> None:
    assert go_on(parts[1], tmp_path / "run", reset(file, chosen)) != parts[0]


def _from_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Loader.start
    monkeypatch.setattr(Loader, "start", lambda self, step: start(self, 0))


def _from_the_first_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", lambda step, *more: rate(step - AT, *more))


def _from_the_first_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    decay = EMA.decay_at
    monkeypatch.setattr(EMA, "decay_at", lambda self, step: decay(self, step - AT))


def _from_the_first_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Draws.of_step
    shifted = classmethod(lambda cls, seed, step, *more: drawn(seed, step - AT, *more))
    monkeypatch.setattr(Draws, "of_step", shifted)


def _from_the_first_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    derive = loop.derive
    monkeypatch.setattr(loop, "derive", lambda seed, step, *more: derive(seed, step - AT, *more))


def _another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_compare", lambda *_: None)
    monkeypatch.setitem(toy.SMALL, "seed", 1)


def _no_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fromnoise.training.optimizers.Optimization.load", lambda *_: None)


def _no_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EMA, "load", lambda *_: None)


POSITIONS = [
    _from_the_first_batch,
    _from_the_first_rate,
    _from_the_first_decay,
    _from_the_first_draw,
    _from_the_first_dropout,
    _another_seed,
    _no_optimizer,
    _no_average,
]


@pytest.mark.parametrize("lose", POSITIONS, ids=lambda f: f.__name__.strip("_"))
def test_a_lost_position_is_noticed(
    tmp_path: Path,
    parts: tuple[dict[str, Any], Path],
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[pytest.MonkeyPatch], None],
) -> None:
    lose(monkeypatch)
    assert go_on(parts[1], tmp_path / "run") != parts[0]


COLD = {"kind": "cold", "family": {"kind": "fade", "colour": [0.5]}}
PICTURES = {
    "kind": "unet", "in_channels": 1, "channels": 4, "multipliers": [1], "blocks": 1,
    "attention": {"at": []}, "style": {"groups": 2},
}  # fmt: skip
NOISE = {"kind": "gaussian", "schedule": {"kind": "linear", "steps": 2}}
HISTORY = {"kind": "loss_second_moment", "steps": 2, "history": 2}


class Pictures(toy.Points):
    """The points as pictures of 2×1 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.shape = self.x.reshape(-1, 1, 2, 1), (1, 2, 1)


def _stateful(folder: Path, process: dict[str, Any], times: Any, forget: str = "") -> Run:
    """A run whose objective has state beside its weights; `forget` is never restored."""
    cold = process is COLD
    torch.manual_seed(0)
    denoiser = NetworkDenoiser(
        NETS.build(PICTURES) if cold else toy.network(),
        PROCESSES.build(process),
        PARAMETERIZATIONS.build({"kind": "x0"}),
    )
    conditioning = Conditioning({} if cold else {"label": Label(2)})
    settings = ObjectiveSettings(time_sampling=times)
    objective = denoising(denoiser, conditioning, settings)
    made = toy.run(folder, SETTINGS, Pictures() if cold else None)
    made.task = replace(made.task, objective=objective, held_out=None)
    if forget:
        restore = objective.load_state_dict

        def without(state: dict[str, Any]) -> object:
            assert forget in state
            value = dict(objective.state_dict())[forget]
            return restore({**state, forget: value})

        objective.load_state_dict = without  # type: ignore[method-assign,assignment]
    return made


@pytest.mark.parametrize(
    ("process", "times", "names"),
    [
        (COLD, "uniform", ("denoiser.process.prior_mean", "denoiser.process.prior_factor")),
        (NOISE, HISTORY, ("time_sampling.history.losses", "time_sampling.history.seen")),
    ],
    ids=["cold", "history"],
)
def test_other_state_of_an_objective_that_is_lost_is_noticed(
    tmp_path: Path, process: dict[str, Any], times: Any, names: tuple[str, ...]
) -> None:
    list(_stateful(tmp_path / "whole", process, times).train())
    stop_at(_stateful(tmp_path / "parts", process, times), AT)
    for forget in ("", *names):
        run = tmp_path / f"run{forget}"
        copy(tmp_path / "parts", run)
        list(_stateful(run, process, times, forget).train())
        same = child.final(run) == child.final(tmp_path / "whole")
        assert same == (forget == "")
