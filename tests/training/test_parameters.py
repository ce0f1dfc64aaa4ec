"""Training parts of a model: what is frozen stays bit for bit and costs nothing."""

from pathlib import Path

import pytest
import torch
from training import toy

from fromnoise.core.errors import UsageError
from fromnoise.training import Optimization, TrainSettings
from fromnoise.training.ema import EMA
from fromnoise.training.parameters import parts, train_only

CHOSEN = "blocks.*, leave.bias"


def _names(patterns: str) -> tuple[torch.nn.Module, list[str]]:
    objective = toy.counting()
    return objective, train_only(objective, patterns)


def test_a_star_is_everything() -> None:
    objective, names = _names("*")
    assert len(names) == len(list(objective.parameters()))
    assert all(p.requires_grad for p in objective.parameters())


def test_parts_are_chosen_by_the_names_of_the_network() -> None:
    objective, names = _names(CHOSEN)
    free = {n for n, p in objective.named_parameters() if p.requires_grad}
    assert {f"denoiser.net.{name}" for name in names} == free
    assert all(name.startswith("blocks.") or name == "leave.bias" for name in names)
    assert "leave.bias" in names and "leave.weight" not in names


def test_what_was_frozen_stays_frozen() -> None:
    objective = toy.counting()
    train_only(objective, "blocks.*")
    with pytest.raises(UsageError, match=r"leave\.\*"):
        train_only(objective, "leave.*")
    assert train_only(objective, "*") == train_only(objective, "blocks.*")


@pytest.mark.parametrize("patterns", ["up.*", "blocks.*,up.*", "", " , "])
def test_a_pattern_that_names_nothing_lists_the_parts(patterns: str) -> None:
    with pytest.raises(UsageError, match=r"parts are embedding\.\*, enter\.\*, blocks\.0\.\*"):
        _names(patterns)


def test_parts_of_a_network() -> None:
    names = ["enter.weight", "down.0.conv.weight", "down.0.conv.bias", "down.1.conv.bias", "gain"]
    assert parts(names) == ["enter.*", "down.0.*", "down.1.*", "gain"]


def test_frozen_parameters_stay_bit_for_bit_and_take_no_memory(tmp_path: Path) -> None:
    made = toy.run(tmp_path, {"post_hoc": [0.1], "weight_decay": 0.1, "parts": CHOSEN})
    objective = made.task.objective
    names = {f"denoiser.net.{name}" for name in made.trained}
    before = {n: p.detach().clone() for n, p in objective.named_parameters()}
    list(made.train())
    for name, parameter in objective.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in names), name
        assert (parameter.grad is None) or name in names
    optimization = Optimization(objective.groups(), TrainSettings())
    ema = EMA(objective, 0.9, [0.1])
    assert set(ema.shadow) == names
    assert {key.partition("/")[2] for key in ema.power.state()} == names
    assert {n for n, p in objective.named_parameters() if p.requires_grad} == names
    assert len(optimization.parameters["main"]) == len(names)


def test_a_run_of_parts_goes_on_bit_for_bit(tmp_path: Path) -> None:
    digests = []
    for folder, stop in (("whole", None), ("parts", 6)):
        if stop is not None:
            loop = toy.run(tmp_path / folder, {"parts": CHOSEN}).train()
            for _ in range(stop):
                next(loop)
            loop.close()
        made = toy.run(tmp_path / folder, {"parts": CHOSEN})
        list(made.train())
        digests.append(toy.digest(made.task.objective))
    assert digests[0] == digests[1]
