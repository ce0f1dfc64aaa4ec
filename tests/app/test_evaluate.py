"""What `fromnoise evaluate` says of what cannot be had, and of flags that would say nothing."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fromnoise.app import evaluate as verb
from fromnoise.app import evaluate_samples
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import EvaluateRequest
from fromnoise.core.errors import UsageError
from fromnoise.evaluate import Estimate, LostFlow
from fromnoise.recipes import get


def test_a_flow_that_is_lost_leaves_out_its_figure_and_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound = Estimate(1.8, 1.7, 1.9, 20)

    def bounds(*_: Any) -> Iterator[tuple[str, Estimate]]:
        yield "bits_per_dim", bound
        raise LostFlow("it bends too sharply")

    monkeypatch.setattr(evaluate_samples, "_BOUNDS", {"vdm": bounds})
    recipe = SimpleNamespace(objective=SimpleNamespace(kind="vdm"))
    subject: Any = SimpleNamespace(recipe=recipe)
    watcher = Silent()
    with watcher.progress("measuring", 2) as progress:
        found = evaluate_samples._likelihood(
            subject, EvaluateRequest(run="x"), progress, 0, watcher
        )
    assert found == {"bits_per_dim": bound}
    assert watcher.lines == ["warning: bits_per_dim_ode is left out: it bends too sharply"]


VALUES: dict[str, Any] = {
    "samples": 60, "guidance": 2.0, "steps": 3, "sampler": "ddim", "seed": 1, "likelihood": 16,
    "usefulness": True, "scales": "1,2", "few": 20,
}  # fmt: skip
DRAWS = ("samples", "guidance", "steps", "sampler", "seed")
USES = [
    ("digits-classifier", {}, ("seed",)),
    ("shapes-clip", {}, ("samples", "seed")),
    ("maps-to-pictures", {}, DRAWS),
    ("shapes-text", {}, DRAWS),
    ("photos-ldm", {}, DRAWS),
    ("digits-gan", {}, DRAWS),
    ("digits-cold-blur", {}, DRAWS),
    ("digits-blur-noise", {}, (*DRAWS, "likelihood")),
    ("digits-hvae", {}, (*DRAWS, "likelihood")),
    ("shapes-vq-masked", {}, DRAWS),
    ("digits", {}, (*DRAWS, "likelihood")),
    ("points-ddpm", {}, (*DRAWS, "likelihood")),
    (
        "digits",
        {"usefulness": True},
        ("samples", "steps", "sampler", "seed", "scales", "few", "usefulness"),
    ),
]


@pytest.mark.parametrize(("name", "more", "uses"), USES)
def test_a_flag_is_used_or_refused(
    name: str, more: dict[str, Any], uses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    ways = [replace(way, carry_out=lambda *_: done.append("done") or 0) for way in verb.WAYS]
    monkeypatch.setattr(verb, "WAYS", ways)
    monkeypatch.setattr(verb, "recipe_of", lambda _: get(name))

    def ask(**told: Any) -> None:
        verb.evaluate(EvaluateRequest(run="runs/x", **{**more, **told}), Silent())

    ask(likelihood=0)
    assert done.pop() == "done"
    # Asking for the usefulness is another way to measure; only what draws nothing refuses it.
    for field in VALUES.keys() - ({"usefulness"} if "steps" in uses else set()):
        if field in uses:
            ask(**{field: VALUES[field]})
            assert done.pop() == "done"
            continue
        with pytest.raises(UsageError, match=f"--{field}") as refused:
            ask(**{field: VALUES[field]})
        assert "leave" in str(refused.value) and not done


def test_every_field_is_of_some_way() -> None:
    assert {"run"}.union(*(way.uses for way in verb.WAYS)) == set(EvaluateRequest.model_fields)
    assert set(VALUES) == set(EvaluateRequest.model_fields) - {"run"}
