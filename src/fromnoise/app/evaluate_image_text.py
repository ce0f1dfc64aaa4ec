"""Measure an image-text model's run: how well held-out pictures and captions find each other."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise.app.report import write_report
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import EvaluateRequest
from fromnoise.app.train import split
from fromnoise.core.files import write_bytes, write_json
from fromnoise.data import Dataset, scenes, shapes_reader
from fromnoise.data.scenes import COLOURS, KINDS
from fromnoise.evaluate import Picture, figure_text, loss_curves, wilson
from fromnoise.evaluate.intervals import Estimate
from fromnoise.evaluate.retrieval import CHUNK, Found, by_noise, noise_plot, retrieval
from fromnoise.guidance.matcher import Matcher
from fromnoise.interop.loading import load
from fromnoise.recipes import Recipe
from fromnoise.training.metrics import read_metrics


def evaluate_image_text(
    folder: Path, recipe: Recipe, request: EvaluateRequest, reporter: Reporter
) -> int:
    """Carry out `fromnoise evaluate` on a run that trained an image-text model.

    Of each caption that is held out one picture is taken, the first; --samples is the most.
    """
    matcher = Matcher.of(load(folder))
    _, held_out = split(recipe)
    x, captions = _pairs(held_out, request.samples)
    with torch.no_grad():
        texts = matcher.captions(captions)
    found = retrieval(_directions(matcher, x), texts)
    if held_out.name == "shapes":
        found |= _of_scenes(matcher, x, captions, texts)
    levels: list[Found] = []
    if matcher.net.noisy:
        levels = by_noise(matcher.pictures, matcher.reader.process, x, texts, seed=request.seed)
    result = {
        "format": 1,
        **{name: estimate.as_json() for name, estimate in found.items()},
        "by_noise": [one.as_json() for one in levels],
        "scale": float(matcher.net.scale.detach()),
        "counts": {"held_out": len(held_out), "captions": len(captions)},
        "seed": request.seed,
    }
    write_json(folder / "evaluation.json", result)
    _write_report(folder, recipe, result, levels, len(captions))
    reporter.say(f"{len(captions)} held-out pictures, each with a caption of its own")
    for name, estimate in found.items():
        value, interval = figure_text(estimate.as_json())
        reporter.say(f"  {name:16s}  {value:>8s}  ({interval})")
    for one in levels:
        shares = "  ".join(f"{name} {share.value:.3f}" for name, share in one.shares.items())
        reporter.say(f"  t {one.t:.1f}  {shares}")
    reporter.say(f"figures {folder / 'evaluation.json'}, report {folder / 'report.html'}")
    return 0


def _pairs(held_out: Dataset, most: int) -> tuple[Tensor, list[str]]:
    """One picture of each distinct caption, the first, at most so many."""
    first: dict[str, Tensor] = {}
    for batch in held_out.batches(CHUNK):
        for x, caption in zip(batch.x, batch.caption or (), strict=True):
            first.setdefault(caption, x)
        if len(first) >= most:
            break
    chosen = list(first)[:most]
    return torch.stack([first[caption] for caption in chosen]), chosen


def _directions(matcher: Matcher, x: Tensor) -> Tensor:
    with torch.no_grad():
        parts = [x[first : first + CHUNK] for first in range(0, len(x), CHUNK)]
        return torch.cat([matcher.pictures(part) for part in parts])


def _of_scenes(
    matcher: Matcher, x: Tensor, captions: list[str], texts: Tensor
) -> dict[str, Estimate]:
    """What only drawn scenes can tell, whose captions can be checked.

    caption_true: pictures whose nearest caption says nothing false and leaves nothing out, whether
    or not it is their own. zero_shot_colour, zero_shot_kind, zero_shot: of pictures of a single
    thing, those for which the nearest of "a red circle", … has the right colour, kind, both.
    """
    nearest = (_directions(matcher, x) @ texts.T).argmax(1).tolist()
    told = shapes_reader.score(x, [captions[i] for i in nearest])
    found = {"caption_true": wilson(int(told.sum()), len(x))}
    pairs = [(colour, kind) for colour in COLOURS for kind in KINDS]
    single = [(i, scenes.parse(c).phrases) for i, c in enumerate(captions)]
    single = [(i, phrases) for i, phrases in single if len(phrases) == 1 and phrases[0].count == 1]
    if not single:
        return found
    with torch.no_grad():
        prompts = matcher.captions([f"a {colour} {kind}" for colour, kind in pairs])
    pictures = _directions(matcher, x[[i for i, _ in single]])
    read = [pairs[i] for i in (pictures @ prompts.T).argmax(1).tolist()]
    true = [(str(phrases[0].colour), str(phrases[0].kind)) for _, phrases in single]
    both = list(zip(read, true, strict=True))
    for name, right in (
        ("zero_shot_colour", sum(a[0] == b[0] for a, b in both)),
        ("zero_shot_kind", sum(a[1] == b[1] for a, b in both)),
        ("zero_shot", sum(a == b for a, b in both)),
    ):
        found[name] = wilson(right, len(both))
    return found


def _write_report(
    folder: Path, recipe: Recipe, result: dict[str, Any], levels: list[Found], count: int
) -> None:
    curves = loss_curves(read_metrics(folder / "metrics.jsonl"), ("loss", "validation"))
    write_bytes(folder / "loss.png", curves)
    shown = [Picture("Loss", curves, "Training loss, and held-out loss on fixed noise.")]
    if levels:
        plot = noise_plot(levels, 1.0 / count)
        write_bytes(folder / "retrieval.png", plot)
        shown.insert(0, Picture("Found by noise", plot, "The same noise at every time."))
    write_report(folder, recipe, result, shown)
