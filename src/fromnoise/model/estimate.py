"""How long a run will take, said while it is still short, and what would be quicker."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from fromnoise import samplers
from fromnoise.model.stream import Stream
from fromnoise.samplers import SAMPLERS, Step

LONG = 60.0
"""Seconds from which a run is long enough to speak of."""

FASTER = ("dpm++2m", 20)
"""The sampler and steps that are offered in place of a long run's own."""

Spelling = Literal["python", "flags"]


@dataclass(frozen=True)
class Estimate:
    """What a run will take: seconds for each of its steps, of which there are `steps`.

    evaluations: of the network in each step. noisy: whether the samplers of noise fit the model.
    """

    sampler: str
    steps: int
    evaluations: int
    per_step: float
    noisy: bool = True

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.steps * self.per_step

    @property
    def faster(self) -> float | None:
        """Seconds with `FASTER`, or None where that would not save half of the time."""
        seconds = FASTER[1] * self.per_step / self.evaluations
        return seconds if self.noisy and seconds < 0.5 * self.seconds else None

    def text(self, spelling: Spelling = "python") -> str:
        """One sentence; a quicker way is spelled as arguments or as flags."""
        said = f"{self.steps} steps of {self.sampler} take about {duration(self.seconds)} here"
        if self.faster is None:
            return said
        name, steps = FASTER
        quicker = (
            f"sampler={name!r}, steps={steps}"
            if spelling == "python"
            else f"--sampler {name} --steps {steps}"
        )
        return f"{said}; {quicker} would take about {duration(self.faster)}"


def watched(
    stream: Stream,
    tell: Callable[[str], None],
    spelling: Spelling = "python",
    noisy: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Step]:
    """The steps of a stream; if it will run for a minute or more, `tell` is told so early on.

    The second step is what is measured: the first also warms up. A first step of a sixth of a
    minute is long enough to measure by. No step is taken for the measurement.
    """
    name, count = str(stream.recipe["sampler"]), stream.count
    evaluations = samplers.get(name).evaluations if name in SAMPLERS else 1
    told = False
    for index in range(count):
        before = clock()
        step = next(stream, None)
        if step is None:
            return
        took = clock() - before
        estimate = Estimate(name, count, evaluations, took * stream.work / count, noisy)
        measured = index == 1 or (index == 0 and took >= LONG / 6)
        if measured and not told and estimate.seconds >= LONG:
            tell(estimate.text(spelling))
            told = True
        yield step


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as one says it.

    >>> [duration(s) for s in (8.4, 200, 9000)]
    ['8 seconds', '3 minutes', '2.5 hours']
    """
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
