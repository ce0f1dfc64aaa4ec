"""What `fromnoise evaluate` says of a figure that cannot be had."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fromnoise.app import evaluate
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import EvaluateRequest
from fromnoise.evaluate import Estimate, LostFlow


def test_a_flow_that_is_lost_leaves_out_its_figure_and_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound = Estimate(1.8, 1.7, 1.9, 20)

    def bounds(*_: Any) -> Iterator[tuple[str, Estimate]]:
        yield "bits_per_dim", bound
        raise LostFlow("it bends too sharply")

    monkeypatch.setattr(evaluate, "_BOUNDS", {"vdm": bounds})
    recipe = SimpleNamespace(objective=SimpleNamespace(kind="vdm"))
    subject: Any = SimpleNamespace(recipe=recipe)
    watcher = Silent()
    with watcher.progress("measuring", 2) as progress:
        found = evaluate._likelihood(subject, EvaluateRequest(run="x"), progress, 0, watcher)
    assert found == {"bits_per_dim": bound}
    assert watcher.lines == ["warning: bits_per_dim_ode is left out: it bends too sharply"]
