"""Measure a classifier's run: how much of held-out data it reads rightly at each level of noise."""

from pathlib import Path
from typing import Any

import torch

from fromnoise.app.report import write_report
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import EvaluateRequest
from fromnoise.app.train import split
from fromnoise.core.files import write_bytes, write_json
from fromnoise.evaluate import Picture, figure_text, loss_curves, wilson
from fromnoise.evaluate.intervals import Estimate, mean
from fromnoise.evaluate.noisy import Reading, read_noisy, readings_plot
from fromnoise.guidance import NoisyClassifier
from fromnoise.interop.loading import load
from fromnoise.recipes import Recipe
from fromnoise.training.metrics import read_metrics


def evaluate_classifier(
    folder: Path, recipe: Recipe, request: EvaluateRequest, reporter: Reporter
) -> int:
    """Carry out `fromnoise evaluate` on a run that trained a classifier."""
    model = load(folder)
    classifier = NoisyClassifier.of(model)
    _, held_out = split(recipe)
    batch = held_out.batch(list(range(len(held_out))))
    assert batch.label is not None
    readings = read_noisy(
        classifier, model.denoiser.process, batch.x, batch.label, seed=request.seed
    )
    result = _result(readings, len(batch), request.seed)
    write_json(folder / "evaluation.json", result)
    plot = readings_plot(readings, chance=1.0 / classifier.label.width)
    write_bytes(folder / "accuracy.png", plot)
    curves = loss_curves(read_metrics(folder / "metrics.jsonl"), ("loss", "validation"))
    write_bytes(folder / "loss.png", curves)
    pictures = [
        Picture("Accuracy by noise", plot, "Held-out data, the same noise at every time."),
        Picture("Loss", curves, "Training loss, and held-out loss on fixed noise."),
    ]
    write_report(folder, recipe, result, pictures)
    _say(readings, result, folder, reporter)
    return 0


def _result(readings: list[Reading], count: int, seed: int) -> dict[str, Any]:
    """`evaluation.json`: over all levels alike, of clean data, and level by level."""
    levels = len(readings)
    accuracy = sum(one.accuracy.value for one in readings) / levels
    loss = mean(torch.tensor([one.loss.value for one in readings]))
    return {
        "format": 1,
        # The same samples at every level: no more chances than there are samples.
        "accuracy": wilson(accuracy * count, count).as_json(),
        "accuracy_clean": readings[0].accuracy.as_json(),
        "loss": Estimate(loss.value).as_json(),
        "by_noise": [one.as_json() for one in readings],
        "counts": {"held_out": count},
        "seed": seed,
    }


def _say(readings: list[Reading], result: dict[str, Any], folder: Path, reporter: Reporter) -> None:
    reporter.say("  t     accuracy                     loss (nats)")
    for one in readings:
        share, interval = figure_text(one.accuracy.as_json())
        reporter.say(f"  {one.t:.1f}   {share:>8s}  ({interval})   {one.loss.value:8.3f}")
    value, interval = figure_text(result["accuracy"])
    reporter.say(f"  mean  {value:>8s}  ({interval})   {result['loss']['value']:8.3f}")
    reporter.say(f"figures {folder / 'evaluation.json'}, plot {folder / 'accuracy.png'}")
