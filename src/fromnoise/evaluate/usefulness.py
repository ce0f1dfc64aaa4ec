"""Of what use are samples as training data? Small models learn from real, drawn and both, and are
tested on real pictures that neither saw.

The guidance scale is chosen on one half of the test pictures and its figure is of the other half:
the best of several, told by what chose it, would be too good.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.evaluate.intervals import LEVEL, RESAMPLES, Estimate
from fromnoise.evaluate.learners import Examples, Learner, Score

KEYS: Mapping[str, str] = {
    "usefulness.KEY": "What a small model reaches on held-out real data; KEY is accuracy (of "
    "classes), miou (label maps) or ap50 (boxes). It is trained for the same `steps` each time.",
    "usefulness.KEY.all": "Trained on all real training pictures, on as many drawn ones, on both.",
    "usefulness.KEY.few": "The same where there are only `real_count` real pictures.",
    "usefulness.KEY.REGIME.real": "Trained on real pictures only.",
    "usefulness.KEY.REGIME.by_guidance": "For each guidance scale: `synthetic`, trained on drawn "
    "pictures only, and `both`; `gain` is that figure less the one of real pictures alone.",
    "usefulness.KEY.REGIME.best_synthetic": "The scale at which drawn pictures alone served best, "
    "chosen on half of the held-out pictures; figures are of the other half.",
    "usefulness.KEY.REGIME.best_both": "The same for both together.",
}
"""Each entry that `--usefulness` writes into `evaluation.json` → what it means."""

REGIMES = ("all", "few")


@dataclass(frozen=True)
class Finding:
    """What a small model reached: trained on `source` pictures, drawn at a scale where any were.

    estimate: on one half of the test pictures; choosing: its value on the other half. gain:
    the estimate less that of real pictures alone.
    """

    regime: str
    source: str
    guidance: float | None
    estimate: Estimate
    choosing: float
    gain: Estimate | None = None


def usefulness(
    learner: Learner,
    real: Examples,
    held_out: Examples,
    drawn: Mapping[float, Examples],
    few: int = 100,
    seeds: Sequence[int] = (0, 1, 2),
) -> Iterator[Finding]:
    """What `learner` makes of real, drawn and both, one finding at a time.

    drawn: samples by guidance scale, with targets. few: real pictures in the small regime, where
    drawn ones are all there are. Raises UsageError without drawn or with too few test pictures.
    """
    if not drawn or len(held_out) < 2:
        raise UsageError("usefulness needs drawn pictures and at least two held-out ones")
    halves = _halves(len(held_out))
    for regime in REGIMES:
        known = real if regime == "all" else real.some(few)
        base = [learner(known, held_out, seed) for seed in seeds]
        yield Finding(regime, "real", None, *_measured(base, halves))
        for scale, samples in drawn.items():
            for source, train in (("synthetic", samples), ("both", known.plus(samples))):
                runs = [learner(train, held_out, seed) for seed in seeds]
                gain = _estimate(runs, halves[1], base)
                yield Finding(regime, source, scale, *_measured(runs, halves), gain)


def _halves(count: int) -> tuple[Tensor, Tensor]:
    """Weights (count,) of the pictures to choose by, and of those to report."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    choosing = torch.zeros(count, dtype=torch.float64)
    choosing[order[: count // 2]] = 1.0
    return choosing, 1.0 - choosing


def _measured(runs: Sequence[Score], halves: tuple[Tensor, Tensor]) -> tuple[Estimate, float]:
    return _estimate(runs, halves[1]), _mean(runs, halves[0])


def _mean(runs: Sequence[Score], weight: Tensor) -> float:
    return sum(run(weight) for run in runs) / len(runs)


def _estimate(runs: Sequence[Score], weight: Tensor, less: Sequence[Score] = ()) -> Estimate:
    """The mean over runs, less that of others; its interval by a bootstrap of pictures and runs.

    A picture drawn again counts for both, so a difference is a paired one.
    """
    value = _mean(runs, weight) - (_mean(less, weight) if less else 0.0)
    generator = torch.Generator().manual_seed(0)
    places = weight.nonzero()[:, 0]
    found = []
    for _ in range(RESAMPLES):
        picked = places[torch.randint(len(places), (len(places),), generator=generator)]
        again = torch.bincount(picked, minlength=len(weight)).double()
        difference = _mean(_again(runs, generator), again)
        if less:
            difference -= _mean(_again(less, generator), again)
        found.append(difference)
    tail = (1 - LEVEL) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.quantile(torch.tensor(found, dtype=torch.float64), ends).tolist()
    more = {} if less else {"runs": [run(weight) for run in runs]}
    return Estimate(value, min(low, value), max(high, value), len(places), more)


def _again(runs: Sequence[Score], generator: torch.Generator) -> list[Score]:
    """As many runs, drawn with replacement."""
    picked = torch.randint(len(runs), (len(runs),), generator=generator).tolist()
    return [runs[i] for i in picked]


def best(findings: Sequence[Finding], regime: str, source: str) -> Finding:
    """The finding whose scale served best on the pictures to choose by; of equals the lowest."""
    among = [f for f in findings if (f.regime, f.source) == (regime, source)]
    if not among:
        raise UsageError(f"nothing was found of {source} pictures where there are {regime}")
    return max(among, key=lambda finding: finding.choosing)


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings of one learner as `evaluation.json` holds them, by `KEYS`."""
    told: dict[str, Any] = {}
    for regime in dict.fromkeys(finding.regime for finding in findings):
        mine = [finding for finding in findings if finding.regime == regime]
        scales = dict.fromkeys(f.guidance for f in mine if f.guidance is not None)
        (real,) = (f for f in mine if f.source == "real")
        told[regime] = {
            "real": real.estimate.as_json(),
            "by_guidance": [
                {"guidance": scale} | {f.source: _as_json(f) for f in mine if f.guidance == scale}
                for scale in scales
            ],
        }
        for source in ("synthetic", "both"):
            chosen = best(mine, regime, source)
            told[regime][f"best_{source}"] = {"guidance": chosen.guidance, **_as_json(chosen)}
    return told


def _as_json(finding: Finding) -> dict[str, Any]:
    gain = {} if finding.gain is None else {"gain": finding.gain.as_json()}
    return {**finding.estimate.as_json(), **gain}


def usefulness_plot(found: Mapping[str, Sequence[Finding]]) -> bytes:
    """A PNG: of each learner (key) and regime a curve over guidance, beside real pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(REGIMES), 3.2 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), len(REGIMES), squeeze=False)
    for row, (key, findings) in zip(panels, found.items(), strict=True):
        for panel, regime in zip(row, REGIMES, strict=True):
            mine = [finding for finding in findings if finding.regime == regime]
            for finding in mine:
                if finding.source == "real":
                    e = finding.estimate
                    panel.axhline(e.value, color="black", lw=1, label="real")
                    panel.axhspan(e.low, e.high, color="black", alpha=0.08, lw=0)
            for source, colour in (("synthetic", "tab:blue"), ("both", "tab:orange")):
                line = [f for f in mine if f.source == source]
                x = [f.guidance for f in line]
                values, lows, highs = (
                    [getattr(f.estimate, end) for f in line] for end in ("value", "low", "high")
                )
                panel.plot(x, values, "o-", color=colour, label=source, ms=4)
                panel.fill_between(x, lows, highs, color=colour, alpha=0.15)
            panel.set_title(f"{regime} real pictures", fontsize=10)
            panel.set_xlabel("guidance scale")
            panel.set_ylabel(key)
    panels[0][0].legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
