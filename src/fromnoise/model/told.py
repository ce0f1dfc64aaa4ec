"""What a model is told over a run: raw inputs as conditions, one for each part of the steps."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.encoders import Coder, Conditioning
from fromnoise.encoders.conditioning import Encoded
from fromnoise.guidance import Told
from fromnoise.layers.condition import Condition


@dataclass(frozen=True)
class Telling:
    """All that is told of some samples.

    raw: inputs by encoder name. negative: what stands there instead in what is moved away from;
    None moves away from the null. seeds: of the samples; space: their spatial sizes; coder: what
    makes latents of pictures. encoded: texts that were encoded already, each once for all that is
    told of these samples, in a second pass too.
    """

    raw: Mapping[str, Any]
    negative: Mapping[str, Any] | None
    seeds: Sequence[int]
    space: Sequence[int]
    steps: int
    coder: Coder | None = None
    encoded: Encoded = field(default_factory=dict, repr=False, compare=False)

    def over(self, conditioning: Conditioning) -> Told:
        """(until this share of the steps; condition): one condition unless a prompt changes."""
        if not conditioning.names and not self.raw:
            return [(1.0, None)]
        told = self._schedules(conditioning, self.raw)
        away = {}
        if self.negative is not None:
            away = self._schedules(conditioning, {**self.raw, **self.negative})
        runs = [run for inputs in (told, away) for run in inputs.values()]
        ends = sorted({self.steps, *(end for run in runs for end, _ in run)})
        made: dict[str, Condition] = {}
        result: list[tuple[float, Condition | None]] = []
        for end in ends:
            # Prompts that take turns come back: each is encoded once.
            key = repr([_at(run, end) for run in runs if len(run) > 1])
            if key not in made:
                condition = self._condition(conditioning, told, end, alone=bool(away))
                if away:
                    given = self.negative or {}
                    kept = [name for name in conditioning.names if name not in given]
                    null = self._condition(conditioning, away, end, kept, alone=True)
                    condition = replace(condition, null=null)
                made[key] = condition
            result.append((end / self.steps, made[key]))
        return result

    def among(self, conditioning: Conditioning, index: Tensor) -> Told:
        """The same for some of the samples, of what these encoders take."""
        raw = {name: value for name, value in self.raw.items() if name in conditioning.names}
        negative = self.negative
        if negative is not None:
            negative = {name: v for name, v in negative.items() if name in conditioning.names}
        return rows(replace(self, raw=raw, negative=negative).over(conditioning), index)

    def _schedules(
        self, conditioning: Conditioning, raw: Mapping[str, Any]
    ) -> dict[str, list[tuple[int, Any]]]:
        """(until and with this step, counted from 1; input) of each input by name."""
        ready = conditioning.ready(raw, self.seeds, self.space, self.coder)
        return {name: self._over(conditioning, name, value) for name, value in ready.items()}

    def _over(self, conditioning: Conditioning, name: str, value: Any) -> list[tuple[int, Any]]:
        if isinstance(value, str):
            return list(conditioning.schedule(name, value, self.steps))
        texts = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
        if not texts or not value:
            return [(self.steps, value)]
        each = [conditioning.schedule(name, one, self.steps) for one in value]
        ends = sorted({end for run in each for end, _ in run})
        return [(end, [_at(run, end) for run in each]) for end in ends]

    def _condition(
        self,
        conditioning: Conditioning,
        inputs: Mapping[str, Sequence[tuple[int, Any]]],
        end: int,
        against: Collection[str] = (),
        alone: bool = False,
    ) -> Condition:
        raw = {name: _at(run, end) for name, run in inputs.items()}
        condition: Condition = conditioning(
            raw,
            len(self.seeds),
            self.space,
            against=against,
            alone=alone,
            encoded=self.encoded,
        )
        return condition


def rows(told: Told, index: Tensor) -> Told:
    """What is told of some of the samples."""
    return [(until, None if c is None else c.rows(index)) for until, c in told]


def raw_inputs(
    label: Any, prompt: str | Sequence[str] | None, inputs: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What a model is told, by the name of its encoder, without what is not given.

    Raises UsageError for an empty prompt, and for what is given twice.
    """
    named = {"label": label, "prompt": prompt}
    twice = sorted(name for name in inputs or {} if named.get(name) is not None)
    if twice:
        raise UsageError(f"the {twice[0]} is given twice, by itself and among the inputs")
    told = {**named, **(inputs or {})}
    given = told["prompt"]
    each = given if isinstance(given, list | tuple) else [given]
    if any(isinstance(one, str) and not one.strip() for one in each):
        raise UsageError("the prompt is empty; say what to draw, or leave it out")
    return {name: value for name, value in told.items() if value is not None}


def _at(run: Sequence[tuple[int, Any]], step: int) -> Any:
    """The input of a step, counted from 1."""
    return next((value for until, value in run if step <= until), run[-1][1])
