"""`fromnoise evaluate RUN --usefulness`: what a run's samples are worth as training data."""

from collections.abc import Mapping
from pathlib import Path

import torch

from fromnoise.app.asked import recipe_of
from fromnoise.app.dataset_asking import Asking, ByClass, ByMap, asking
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import EvaluateRequest, SampleRequest
from fromnoise.app.train import split
from fromnoise.core.errors import UsageError
from fromnoise.core.files import read_json, write_bytes, write_json
from fromnoise.data import Dataset
from fromnoise.data.maps import MAP
from fromnoise.evaluate import figure_text
from fromnoise.evaluate.learners import Classifier, Detector, Examples, Learner, Segmenter
from fromnoise.evaluate.usefulness import Finding, summary, usefulness, usefulness_plot
from fromnoise.interop.loading import load
from fromnoise.model import Model

_HELD_OUT = 500
_HOW = {"accuracy": (400, 64, 3), "miou": (150, 16, 2), "ap50": (150, 16, 2)}
"""Steps, batch and runs of each learner: enough for real data to be learned from in seconds."""


def measure_usefulness(request: EvaluateRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise evaluate RUN --usefulness`."""
    folder = Path(request.run)
    scales = _scales(request.scales)
    recipe, model = recipe_of(folder), load(folder)
    source = asking(model, SampleRequest(model=request.run))
    if not isinstance(source, ByClass | ByMap):
        raise UsageError(
            f"{folder} draws pictures without classes or label maps, which nothing can learn from"
        )
    train, held_out = split(recipe)
    real, tested = _real(train, request.samples), _real(held_out, _HELD_OUT)
    drawn = {s: _drawn(model, source, len(real), s, request, reporter) for s in scales}
    found: dict[str, list[Finding]] = {}
    for learner in _learners(source, model):
        total = 2 * (1 + 2 * len(scales))
        found[learner.key] = []
        seeds = range(_HOW[learner.key][2])
        with reporter.progress(f"learning from pictures ({learner.key})", total) as progress:
            for one in usefulness(learner, real, tested, drawn, request.few, seeds):
                found[learner.key].append(one)
                progress.advance(len(found[learner.key]))
    _write(folder, found, real, tested, request)
    _say(folder, found, reporter)
    return 0


def _scales(text: str) -> list[float]:
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--scales {text!r} are not numbers with commas, such as 1,2,4") from None
    return list(dict.fromkeys(scales))


def _learners(source: Asking, model: Model) -> list[Learner]:
    if isinstance(source, ByClass):
        return [Classifier(len(model.card.classes), *_HOW["accuracy"][:2])]
    classes = 1 + len(source.kinds)
    return [Segmenter(classes, *_HOW["miou"][:2]), Detector(classes, *_HOW["ap50"][:2])]


def _real(dataset: Dataset, most: int) -> Examples:
    """Real pictures with their targets; its samples lie in no order."""
    batch = dataset.batch(list(range(min(most, len(dataset)))))
    target = batch.given.get(MAP, batch.label)
    assert target is not None
    return Examples(batch.x, target)


def _drawn(
    model: Model,
    source: Asking,
    count: int,
    scale: float,
    request: EvaluateRequest,
    reporter: Reporter,
) -> Examples:
    """As many pictures as there are real ones, drawn at a guidance scale."""
    plan = source.plan(count)
    wanted = [source.wanted(request.seed + i, label) for i, label in enumerate(plan)]
    size = min(count, 100)
    parts = []
    with reporter.progress(f"sampling, guidance {scale:g}", count) as progress:
        for first in range(0, count, size):
            some = wanted[first : first + size]
            stream = model.stream(
                len(some),
                guidance=scale,
                steps=request.steps,
                sampler=request.sampler,
                seed=[one.seed for one in some],
                batch_size=size,
                **source.arguments(some),
            )
            parts.append(stream.samples().tensor)
            progress.advance(first + len(some))
    maps = [one.ids for one in wanted if one.ids is not None]
    target = torch.stack(maps) if maps else torch.tensor([one.label for one in wanted])
    return Examples(torch.cat(parts), target)


def _write(
    folder: Path,
    found: Mapping[str, list[Finding]],
    real: Examples,
    tested: Examples,
    request: EvaluateRequest,
) -> None:
    told = {
        key: {
            "steps": _HOW[key][0],
            "batch": _HOW[key][1],
            "runs": _HOW[key][2],
            "held_out": len(tested),
            "drawn": len(real),
            **summary(findings),
        }
        for key, findings in found.items()
    }
    for one in told.values():
        one["all"]["real_count"] = len(real)
        one["few"]["real_count"] = min(request.few, len(real))
    path = folder / "evaluation.json"
    before = read_json(path) if path.is_file() else {"format": 1}
    write_json(path, {**before, "usefulness": told})
    write_bytes(folder / "usefulness.png", usefulness_plot(found))


def _say(folder: Path, found: Mapping[str, list[Finding]], reporter: Reporter) -> None:
    for key, findings in found.items():
        for regime, told in summary(findings).items():
            value, interval = figure_text(told["real"])
            reporter.say(f"  {key}, {regime} real pictures alone: {value} ({interval})")
            for source, name in (("synthetic", "drawn alone"), ("both", "both")):
                best = told[f"best_{source}"]
                value, interval = figure_text(best)
                gain = best["gain"]
                reporter.say(
                    f"    {name}: {value} ({interval}) at guidance {best['guidance']:g}; "
                    f"gain {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
                )
    reporter.say(f"figures {folder / 'evaluation.json'}, curves {folder / 'usefulness.png'}")
