"""Measure a run that draws from text: how much of what prompts say is in the pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.app.report import write_report
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import EvaluateRequest
from fromnoise.app.train import split
from fromnoise.core.errors import UsageError
from fromnoise.core.files import write_bytes, write_json
from fromnoise.core.images import grid_image, png_bytes, to_pil
from fromnoise.encoders.prompts import escaped
from fromnoise.evaluate import (
    Estimate,
    Picture,
    figure_text,
    line_plot,
    loss_curves,
)
from fromnoise.evaluate.prompts import ALL, Judge, judge_of, prompt_sets, shares
from fromnoise.interop.loading import load
from fromnoise.model import Model
from fromnoise.recipes import Recipe
from fromnoise.training.metrics import read_metrics

SCALES = (1.0, 2.0, 3.0, 5.0, 8.0)
"""Guidance scales that are tried on fewer prompts, besides the one asked for."""

_FEWER = 4
_SHOWN = 40
_UNSEEN = "unseen"

Shares = dict[str, Estimate]


@dataclass(frozen=True)
class _Subject:
    model: Model
    judge: Judge
    sets: Mapping[str, Sequence[str]]
    request: EvaluateRequest

    def drawn(self, prompts: Sequence[str], scale: float, reporter: Reporter, what: str) -> Tensor:
        """A picture for each prompt."""
        stream = self.model.stream(
            len(prompts),
            prompt=[escaped(prompt) for prompt in prompts],
            guidance=scale,
            sampler=self.request.sampler,
            steps=self.request.steps,
            seed=self.request.seed,
        )
        x = torch.empty(0)
        with reporter.progress(f"{what}, guidance {scale:g}", stream.recipe["steps"]) as progress:
            for step in stream:
                x = step.x
                progress.advance(step.index + 1)
        return self.model.decode(x)


def evaluate_prompts(
    folder: Path, recipe: Recipe, request: EvaluateRequest, reporter: Reporter
) -> int:
    """Carry out `fromnoise evaluate` on a run that draws from text."""
    train, held_out = split(recipe)
    judge = judge_of(train)
    if judge is None:
        raise UsageError(
            f"nothing here reads what {train.name} pictures show, so prompts cannot be judged; "
            "what can be are drawn scenes (shapes) and emoji"
        )
    model = load(folder)
    scale = recipe.sampling.guidance if request.guidance is None else request.guidance
    sets = prompt_sets(train, held_out, max(1, request.samples // 3), request.seed)
    subject = _Subject(model, judge, sets, request)
    found, sheet = _of_sets(subject, scale, reporter)
    by_scale = _by_scale(subject, scale, found, reporter)
    result = {
        "format": 1,
        **{f"{name}/{key}": e.as_json() for name, told in found.items() for key, e in told.items()},
        "by_guidance": {
            f"{s:g}": {key: e.as_json() for key, e in told.items()} for s, told in by_scale.items()
        },
        "counts": {name: len(prompts) for name, prompts in sets.items()},
        "guidance": scale,
        "seed": request.seed,
    }
    write_json(folder / "evaluation.json", result)
    write_report(folder, recipe, result, _pictures(folder, sheet, by_scale))
    for name, told in found.items():
        for key, estimate in told.items():
            value, interval = figure_text(estimate.as_json())
            reporter.say(f"  {name + '/' + key:24s}  {value:>8s}  {interval and f'({interval})'}")
    reporter.say(f"figures {folder / 'evaluation.json'}, report {folder / 'report.html'}")
    return 0


def _of_sets(
    subject: _Subject, scale: float, reporter: Reporter
) -> tuple[dict[str, Shares], bytes]:
    """The shares of each set of prompts, and a sheet of some pictures for prompts never seen."""
    found: dict[str, Shares] = {}
    sheet = b""
    for name, prompts in subject.sets.items():
        pictures = subject.drawn(prompts, scale, reporter, name)
        found[name] = dict(shares(subject.judge(pictures, prompts)))
        if not sheet or name == _UNSEEN:
            shown = list(zip(pictures[:_SHOWN], prompts[:_SHOWN], strict=True))
            images = [to_pil(picture) for picture, _ in shown]
            sheet = png_bytes(grid_image(images, 8, 3, [caption for _, caption in shown]))
    return found, sheet


def _by_scale(
    subject: _Subject, scale: float, found: Mapping[str, Shares], reporter: Reporter
) -> dict[float, Shares]:
    """The shares of prompts never seen, by guidance; the scale asked for is measured already."""
    name = _UNSEEN if _UNSEEN in found else next(iter(found))
    prompts = subject.sets[name]
    some = prompts[: max(1, len(prompts) // _FEWER)]
    by_scale = {scale: found[name]}
    for other in SCALES:
        if other not in by_scale:
            pictures = subject.drawn(some, other, reporter, name)
            by_scale[other] = dict(shares(subject.judge(pictures, some)))
    return dict(sorted(by_scale.items()))


def _pictures(folder: Path, sheet: bytes, by_scale: Mapping[float, Shares]) -> list[Picture]:
    keys = [key for key in next(iter(by_scale.values())) if key != ALL]
    curves = {
        key: [(scale, told[key].value) for scale, told in by_scale.items() if key in told]
        for key in keys
    }
    plot = line_plot(curves, "guidance", "share that is right")
    losses = loss_curves(read_metrics(folder / "metrics.jsonl"), ("loss", "validation"))
    named = (("samples", sheet), ("guidance", plot), ("loss", losses))
    for name, png in named:
        write_bytes(folder / f"{name}.png", png)
    return [
        Picture("Prompts never seen in training", sheet, "One picture for each, the first drawn."),
        Picture("What is right, by guidance", plot, "Of prompts never seen in training."),
        Picture("Loss", losses, "Training loss, and held-out loss on fixed noise."),
    ]
