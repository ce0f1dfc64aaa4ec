"""Continuous attributes by name: a size, an angle, an age."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError, unknown
from fromnoise.core.randomness import Noise
from fromnoise.encoders.base import ENCODERS, Encoder, Slot
from fromnoise.layers.condition import Condition


@ENCODERS.register("attributes")
class Attributes(Encoder):
    """Numbers by name as a raw vector (B, 2K): K values, then K times whether each is known.

    A value v in its range (low, high) becomes 2(v − low)/(high − low) − 1; one that is not known is
    0, and so is its flag. The null is all zeros: nothing is known.

    Raw input: a mapping from names to a number or to one for each sample, {"size": 0.3}; a list
    with such a mapping for each sample; or values (B, K) in the order of `ranges`. What is left
    out, None or NaN is not known.

    ranges: the lowest and the highest value of each attribute. hidden: the share of known values
    that training hides, each by itself, so that some can be told without the others.
    Raises UsageError for an attribute the model does not know, and a value beyond its range.
    """

    slot: Slot = "vector"

    def __init__(self, ranges: Mapping[str, tuple[float, float]], hidden: float = 0.0) -> None:
        super().__init__()
        if not ranges or not 0 <= hidden < 1:
            raise UsageError(f"{len(ranges)} attributes, {hidden} hidden; use 1 or more and 0 to 1")
        for name, (low, high) in ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(f"attribute {name!r} from {low} to {high}; give the lower first")
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
        self.hidden = hidden
        self.width = 2 * len(ranges)

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        return Condition(vector={name: self._vector(self.values(raw, batch))})

    def each(self, raw: Any, batch: int) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        # One number in a list stands for all samples, as it does without the list.
        return {n: v[0] if _listed(v) and len(v) == 1 else v for n, v in raw.items()}

    def null(self, name: str, batch: int) -> Condition:
        return Condition(vector={name: torch.zeros(batch, self.width)})

    def drawn(self, raw: Any, noise: Noise, x: Tensor | None = None) -> Any:
        if raw is None or x is None or not (self.hidden and self.training):
            return raw
        values = self.values(raw, len(noise))
        hide = noise.uniform(torch.empty(values.shape)) < self.hidden
        return torch.where(hide, math.nan, values)

    def values(self, raw: Any, batch: int) -> Tensor:
        """The values (batch, K), float64, NaN for those not known; checked."""
        if isinstance(raw, Mapping):
            values = self._of(raw, batch)
        elif isinstance(raw, Sequence) and raw and all(isinstance(one, Mapping) for one in raw):
            if len(raw) != batch:
                raise ShapeError(f"{len(raw)} attributes given for {batch} samples; give one each")
            values = torch.cat([self._of(one, 1) for one in raw])
        elif isinstance(raw, Tensor | np.ndarray):
            values = torch.as_tensor(raw).double()
        else:
            raise UsageError(
                f"attributes are numbers by name, such as {{'{next(iter(self.ranges))}': …}}, "
                f"not {raw!r:.60}"
            )
        if values.shape != (batch, len(self.ranges)):
            raise ShapeError(
                f"attributes of shape {tuple(values.shape)}; this model takes "
                f"({batch}, {len(self.ranges)}): {', '.join(self.ranges)}"
            )
        self._check(values)
        return values

    def _of(self, named: Mapping[Any, Any], batch: int) -> Tensor:
        values = torch.full((batch, len(self.ranges)), math.nan, dtype=torch.float64)
        for place, name in enumerate(self.ranges):
            given = named.get(name)
            if given is not None:
                values[:, place] = _column(name, given, batch)
        for name in named:
            if name not in self.ranges:
                raise unknown("attribute", name, self.ranges)
        return values

    def _check(self, values: Tensor) -> None:
        for (name, (low, high)), column in zip(self.ranges.items(), values.T, strict=True):
            for value in column[(column < low) | (column > high)].tolist():
                raise UsageError(
                    f"attribute {name!r} is {value:g}; this model knows {low:g} to {high:g}"
                )

    def _vector(self, values: Tensor) -> Tensor:
        ends = torch.tensor(list(self.ranges.values()), dtype=torch.float64)
        scaled = 2.0 * (values.cpu() - ends[:, 0]) / (ends[:, 1] - ends[:, 0]) - 1.0
        known = ~scaled.isnan()
        return torch.cat([scaled.nan_to_num(0.0), known], dim=1).float()


def _listed(given: Any) -> bool:
    """Whether it is numbers in a row, and not one."""
    if isinstance(given, Tensor | np.ndarray):
        return given.ndim > 0
    return isinstance(given, Sequence) and not isinstance(given, str)


def _column(name: str, given: Any, batch: int) -> Tensor:
    """The numbers of one attribute (batch,), None as NaN."""
    values = list(given) if _listed(given) else [given]
    try:
        column = torch.tensor(
            [math.nan if value is None else float(value) for value in values], dtype=torch.float64
        )
    except (TypeError, ValueError):
        raise UsageError(f"attribute {name!r} is {given!r:.60}; give numbers") from None
    if len(column) not in (1, batch):
        raise ShapeError(
            f"{len(column)} values of {name!r} given for {batch} samples; give one each"
        )
    return column.expand(batch)
