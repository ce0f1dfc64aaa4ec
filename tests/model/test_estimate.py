"""A long run says so early, by measuring its own second step; a short one says nothing."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from model.tiny import tiny

from fromnoise.model.estimate import Estimate, duration, watched
from fromnoise.model.stream import Stream
from fromnoise.samplers import Step


class Clock:
    """Time that passes only when a network is called."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(took: list[float], sampler: str = "ddpm", **options: bool) -> list[tuple[int, str]]:
    """What is told of a run whose steps take so many seconds, and after which step."""
    clock, told = Clock(), []
    count = len(took)

    def steps() -> Iterator[Step]:
        for index, seconds in enumerate(took):
            clock.now += seconds
            yield Step(index, count, 0.0, torch.zeros(1), torch.zeros(1))

    stream = Stream(steps(), lambda x: x, {"sampler": sampler, "steps": count})
    seen: list[int] = []
    for step in watched(
        stream, lambda text: told.append((len(seen), text)), clock=clock, **options
    ):
        seen.append(step.index)
        clock.now += 1000.0
    assert len(seen) == count
    return told


def test_a_long_run_is_told_of_once_after_its_second_step() -> None:
    ((done, text),) = run([3.0, *[0.5] * 999])
    assert done == 1
    assert text == (
        "1000 steps of ddpm take about 8 minutes here; sampler='dpm++2m', steps=20 would take "
        "about 10 seconds"
    )


def test_a_short_run_says_nothing() -> None:
    assert run([3.0, *[0.05] * 999]) == []


def test_a_very_long_first_step_is_told_of_at_once() -> None:
    ((done, text),) = run([300.0] * 10)
    assert done == 0 and text == "10 steps of ddpm take about 50 minutes here"


def test_nothing_is_offered_where_it_would_not_do() -> None:
    assert run([8.0] * 12, "dpm++2m")[0][1].endswith("here")
    assert run([1.0] * 1000, "cold2", noisy=False)[0][1].endswith("here")


def test_a_sampler_that_asks_twice_counts_twice() -> None:
    assert Estimate("heun", 100, 2, 1.0).faster == 10.0
    assert "--sampler dpm++2m --steps 20" in Estimate("heun", 100, 2, 1.0).text("flags")


@pytest.mark.parametrize(
    ("seconds", "text"), [(61, "61 seconds"), (125, "2 minutes"), (7200, "2.0 hours")]
)
def test_durations_are_said_as_one_says_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_slow_network_warns_from_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes the very same steps."""
    model = tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick = model.sample(1, sampler="ddim", steps=30)
    monkeypatch.setattr("fromnoise.model.estimate.LONG", 1e-6)
    with pytest.warns(UserWarning, match="30 steps of ddim take about") as caught:
        slow = model.sample(1, sampler="ddim", steps=30)
    assert caught[0].filename == __file__
    assert torch.equal(slow.tensor, quick.tensor)
