"""Out of memory is an error that names what to lower, and costs nothing that was saved."""

import resource
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import child
from training import toy

from fromnoise.core.files import verify_folder
from fromnoise.training import Run, checkpoint
from fromnoise.training.ema import EMA

HUGE = 2**33
"""Elements that no test machine may take: 32 GiB."""


def _allocate(*_: Any) -> None:
    torch.zeros(HUGE)


def _in_loss(made: Run) -> None:
    made.task.objective.phases = _allocate  # type: ignore[method-assign,assignment]


def _in_data(made: Run) -> None:
    made.task.data.samples = _allocate  # type: ignore[method-assign,assignment]


def _in_validation(made: Run) -> None:
    assert made.task.held_out is not None
    made.task.held_out.samples = _allocate  # type: ignore[method-assign,assignment]


def _in_saving(made: Run) -> None:
    checkpoint.save = _allocate  # type: ignore[assignment]


def _in_average(made: Run) -> None:
    EMA.update = _allocate  # type: ignore[method-assign,assignment]


def _starved(folder: Path, fault: Any) -> None:
    """Take five steps, then run into a limit on the address space of this process."""
    made = toy.run(folder, {})
    for event in made.train():
        if event.step == 5:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
            fault(made)


@pytest.mark.parametrize("fault", [_in_loss, _in_data, _in_validation, _in_saving, _in_average])
def test_out_of_memory_names_what_to_lower(tmp_path: Path, fault: Any) -> None:
    run, told = tmp_path / "run", tmp_path / "error"
    assert child.outcome(partial(_starved, run, fault), told) == 1
    message = told.read_text()
    assert message.startswith("TrainingError: out of memory with 8 samples a step")
    assert "--train.accumulation" in message and "--train.batch-size" in message
    verify_folder(checkpoint.steps(run)[0])
    assert not child.temporaries(run)
    assert child.trained(run, {}, tmp_path / "out") == 0


def test_without_the_loop_it_is_a_bare_runtime_error(tmp_path: Path) -> None:
    """The control: under the same limit the allocation itself says nothing of what to do."""

    def starve() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            _allocate()

    assert child.outcome(starve) == 0
