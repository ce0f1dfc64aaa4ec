"""Figures with intervals: a number measured on few samples says little without one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError

LEVEL = 0.95
RESAMPLES = 200


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval where it has one, and what belongs to it.

    count: of the samples it rests on; more: further figures by name, as JSON takes them.
    """

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A flat dictionary; what there is none of is left out, infinities and NaN are None."""
        own = {"low": self.low, "high": self.high, "count": self.count}
        kept = {k: v for k, v in own.items() if v is not None}
        return {key: _plain(v) for key, v in {"value": self.value, **kept, **self.more}.items()}


def wilson(successes: float, count: float, more: Mapping[str, Any] | None = None) -> Estimate:
    """A share of `count` independent trials: Wilson's score interval (Wilson 1927).

    centre (p + z²/2n)/(1 + z²/n), half-width z/(1 + z²/n)·√(p(1−p)/n + z²/4n²).
    """
    if count <= 0 or not 0 <= successes <= count:
        raise UsageError(f"{successes} of {count} is not a share")
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    share, scale = successes / count, 1 + z**2 / count
    centre = (share + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # At a share of 0 or 1 rounding would leave the value just outside its interval.
    low, high = min(max(centre - half, 0.0), share), max(min(centre + half, 1.0), share)
    return Estimate(share, low, high, round(count), more or {})


def repeated(accuracies: Sequence[float], count: int) -> Estimate:
    """The mean accuracy of several training runs on the same `count` test samples.

    Both sources of chance count: Var = p(1−p)/count + s²/runs with s² the variance between runs.
    The interval is Wilson's for the number of trials that has this variance.
    """
    values = torch.tensor(accuracies, dtype=torch.float64)
    share = values.mean().item()
    between = values.var().item() / len(values) if len(values) > 1 else 0.0
    within = share * (1 - share) / count
    trials = count if between == 0.0 else count * within / (within + between)
    found = wilson(share * trials, trials)
    return Estimate(share, found.low, found.high, count, {"runs": [float(a) for a in accuracies]})


def mean(values: Tensor, more: Mapping[str, Any] | None = None) -> Estimate:
    """The mean of independent values (N,): mean ± z·s/√N."""
    values = values.detach().double()
    if len(values) < 2:
        return Estimate(values.mean().item(), count=len(values), more=more or {})
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    centre = values.mean().item()
    half = z * values.std().item() / math.sqrt(len(values))
    return Estimate(centre, centre - half, centre + half, len(values), more or {})


def bootstrap(
    statistic: Callable[[Tensor, Tensor], float],
    value: float,
    sizes: tuple[int, int],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """The 95 % interval of `value` from resampling two sets of these sizes with replacement.

    `statistic` is given how often each sample of either set was drawn, float64. Replicates of a
    distance lie higher than the distance itself, because repeated samples look like a narrower
    distribution; so their quantiles are taken about their own mean: value + (q − mean). What is
    left is the spread at this number of samples. The bias that any distance has at it is not
    removed: compare with the distance between two real sets of that size.
    (Efron & Tibshirani 1993, "An Introduction to the Bootstrap".)
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(resamples):
        drawn = (torch.randint(n, (n,), generator=generator) for n in sizes)
        a, b = (torch.bincount(i, minlength=n).double() for i, n in zip(drawn, sizes, strict=True))
        found.append(statistic(a, b))
    replicates = torch.tensor(found, dtype=torch.float64)
    tail = (1 - LEVEL) / 2
    ends = torch.quantile(replicates, torch.tensor([tail, 1 - tail], dtype=torch.float64))
    low, high = (value + ends - replicates.mean()).tolist()
    return min(low, value), max(high, value)


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.as_json()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
