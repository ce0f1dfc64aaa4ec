"""Going on with a run: what may change, what may not, and when there is nothing to do.

Runs that are killed, damaged or stopped are in `tests/faults`.
"""

from pathlib import Path

import pytest
import torch
from faults.child import final
from training import toy

from fromnoise.core.errors import FileError
from fromnoise.training import checkpoint
from fromnoise.training.optimizers import Optimization


def test_what_the_weights_do_not_see_may_change(tmp_path: Path) -> None:
    whole = toy.run(tmp_path / "whole", {})
    list(whole.train())
    loop = toy.run(tmp_path / "run", {}).train()
    for _ in range(5):
        next(loop)
    loop.close()
    free = {"checkpoint_every": 3, "validate_every": 0, "keep": 3, "log_every": 2}
    list(toy.run(tmp_path / "run", free).train())
    ours = checkpoint.load_tensors(checkpoint.steps(tmp_path / "run")[-1] / "ema.safetensors")[0]
    theirs = checkpoint.load_tensors(checkpoint.steps(tmp_path / "whole")[-1] / "ema.safetensors")
    assert all(torch.equal(v, theirs[0][k]) for k, v in ours.items())
    assert len(checkpoint.steps(tmp_path / "run")) == 3


def test_a_run_at_a_constant_rate_may_be_made_longer(tmp_path: Path) -> None:
    constant = {"schedule": "constant"}
    list(toy.run(tmp_path / "longer", {**constant, "steps": 5}).train())
    list(toy.run(tmp_path / "longer", {**constant, "steps": 12}).train())
    list(toy.run(tmp_path / "whole", {**constant, "steps": 12}).train())
    assert final(tmp_path / "longer") == final(tmp_path / "whole")


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    list(toy.run(tmp_path, {}).train())
    before = final(tmp_path)
    assert list(toy.run(tmp_path, {}).train()) == []
    assert final(tmp_path) == before


def test_optimizer_state_of_another_network_is_refused() -> None:
    made = toy.run(Path("unused"), {})
    optimization = Optimization(made.task.objective.groups(), made.settings)
    with pytest.raises(FileError, match="belongs to no parameter"):
        optimization.load({"main/elsewhere/exp_avg": torch.zeros(1)})
