"""Measure a run by its samples and its likelihood: figures, pictures, one self-contained report."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fromnoise import data
from fromnoise.app.asked import recipe_of
from fromnoise.app.evaluate_maps import earlier
from fromnoise.app.readers import reader_of
from fromnoise.app.report import write_report
from fromnoise.app.reporting import Progress, Reporter
from fromnoise.app.requests import EvaluateRequest
from fromnoise.app.train import split
from fromnoise.codecs import Identity
from fromnoise.core.errors import UsageError
from fromnoise.core.files import write_bytes, write_json
from fromnoise.core.images import png_bytes
from fromnoise.data import Dataset
from fromnoise.evaluate import (
    FLOW,
    Estimate,
    FeatureNetwork,
    Labelled,
    Likelihoods,
    LostFlow,
    Picture,
    figure_text,
    loss_curves,
    measure,
    measure_evidence,
    measure_labels,
    measure_likelihood,
    measure_tokens,
)
from fromnoise.explain import film
from fromnoise.interop.loading import load
from fromnoise.layers.condition import Condition
from fromnoise.model import Model, Samples
from fromnoise.recipes import Recipe
from fromnoise.samplers import Step
from fromnoise.training.metrics import read_metrics
from fromnoise.training.vae import autoencoder

GUIDANCE = 2.0
"""Scale of the guided samples when neither the request nor the recipe says."""

Bounds = Iterator[tuple[str, Estimate]]

_GUIDED = ("label_accuracy",)
"""Figures that are of the guided samples; all others are of the unguided ones."""


@dataclass(frozen=True)
class Subject:
    """What is measured: a model, the data it was trained on, and the data it never saw."""

    folder: Path
    recipe: Recipe
    model: Model
    train: Labelled
    held_out: Labelled
    levels: int | None

    @property
    def labelled(self) -> bool:
        """Whether samples can be asked for by class."""
        return "label" in self.model.conditioning.names


def evaluate_samples(
    folder: Path, recipe: Recipe, request: EvaluateRequest, reporter: Reporter
) -> int:
    """Carry out `fromnoise evaluate` on a run that draws pictures or points, of classes or not."""
    del recipe
    subject = subject_of(folder)
    scale = request.guidance
    if scale is not None and not subject.labelled:
        raise UsageError(f"{request.run} is told no label to be guided by; leave out --guidance")
    if scale is None:
        scale = max(subject.recipe.sampling.guidance, GUIDANCE)
    plain = _samples(subject, request, 1.0, reporter)
    guided = _samples(subject, request, scale, reporter) if subject.labelled else None
    reader = reader_of(subject, reporter)
    found = _figures(subject, request, reader, plain, guided, scale, reporter)
    result = {
        "format": 1,
        **{key: estimate.as_json() for key, estimate in found.items()},
        "features": dict(reader.card),
        "counts": {
            "train": len(subject.train.x),
            "held_out": len(subject.held_out.x),
            "samples": len(plain),
        },
        "sampling": {k: v for k, v in plain.recipe.items() if k not in ("seeds", "label")},
        "seed": request.seed,
    }
    write_json(subject.folder / "evaluation.json", {**result, **earlier(subject.folder)})
    pictures = _pictures(subject, plain, guided, scale, request)
    write_report(subject.folder, subject.recipe, result, pictures)
    _say(subject, found, reporter)
    return 0


def subject_of(folder: Path) -> Subject:
    """A run's model and its data, in memory. FileError when the folder holds no run."""
    recipe = recipe_of(folder)
    model = load(folder)
    train, held_out = split(recipe, of_one_size(recipe))
    return Subject(folder, recipe, model, _all(train), _all(held_out), train.levels)


def of_one_size(recipe: Recipe) -> Dataset:
    """The data of a recipe; pictures of many sizes are all brought to the most nearly square one.

    Figures compare sets of pictures, so these must be of one size. The split is the same.
    """
    dataset = data.load(recipe.data)
    if dataset.pictured is not None:
        return dataset.pictured
    if dataset.groups() is None:
        return dataset
    return data.load({**recipe.data, "size": list(dataset.shape[1:])})


def _all(dataset: Dataset) -> Labelled:
    batch = dataset.batch(list(range(len(dataset))))
    return Labelled(batch.x, batch.label)


def _samples(
    subject: Subject, request: EvaluateRequest, scale: float, reporter: Reporter
) -> Samples:
    classes = len(subject.model.card.classes)
    label = [i % classes for i in range(request.samples)] if subject.labelled else None
    stream = subject.model.stream(
        request.samples,
        label=label,
        sampler=request.sampler,
        steps=request.steps,
        guidance=scale,
        seed=request.seed,
        batch_size=min(request.samples, 250),
    )
    with reporter.progress(f"sampling, guidance {scale:g}", stream.recipe["steps"]) as progress:

        def followed() -> Iterator[Step]:
            for step in stream:
                progress.advance(step.index + 1)
                yield step

        return stream.samples(followed())


def _figures(
    subject: Subject,
    request: EvaluateRequest,
    reader: FeatureNetwork,
    plain: Samples,
    guided: Samples | None,
    scale: float,
    reporter: Reporter,
) -> dict[str, Estimate]:
    train, held_out = subject.train, subject.held_out
    found: dict[str, Estimate] = {}
    with reporter.progress("measuring", 16) as progress:
        one = _labelled(plain)
        for key, estimate in (
            *measure_labels(train, held_out, one, reader),
            *measure(train, held_out, one, reader, subject.levels, seed=request.seed),
        ):
            found[key] = estimate
            progress.advance(len(found), key)
        if guided is not None:
            _beside_guided(subject, reader, found, _labelled(guided), scale)
        if request.likelihood:
            found |= _likelihood(subject, request, progress, len(found), reporter)
        progress.advance(16)
    return found


def _beside_guided(
    subject: Subject,
    reader: FeatureNetwork,
    found: dict[str, Estimate],
    guided: Labelled,
    scale: float,
) -> None:
    """Each figure of guided samples beside the unguided one; `_GUIDED` ones the other way round."""
    both = dict(measure_labels(subject.train, subject.held_out, guided, reader))
    both |= dict(measure(subject.train, subject.held_out, guided, reader, subject.levels))
    for key, other in both.items():
        if key in ("reader_accuracy", "train_on_real_accuracy"):
            continue
        first, second, name = found[key], other, "guided"
        if key in _GUIDED:
            first, second, name = other, found[key], "unguided"
        more: Mapping[str, Any] = {**first.more, name: second.value, "guidance": scale}
        found[key] = replace(first, more=more)


def _likelihood(
    subject: Subject,
    request: EvaluateRequest,
    progress: Progress,
    done: int,
    reporter: Reporter,
) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    with torch.no_grad():
        try:
            for key, estimate in _BOUNDS[subject.recipe.objective.kind](subject, request):
                found[key] = estimate
                progress.advance(done + len(found), key)
        except LostFlow as error:
            reporter.warn(f"{FLOW} is left out: {error}")
    return found


def _of_diffusion(subject: Subject, request: EvaluateRequest) -> Bounds:
    # Of latents a bound says nothing of the pictures.
    latents = not isinstance(subject.model.codec, Identity)
    if latents or not subject.model.denoiser.process.noisy:
        return _undefined(subject, request)
    how = Likelihoods(
        subject.model.denoiser,
        condition=_told(subject),
        levels=subject.levels,
        bound=request.likelihood,
        flow=min(16, request.likelihood),
    )
    return measure_likelihood(subject.train, subject.held_out, how, request.seed)


def _of_autoencoder(subject: Subject, request: EvaluateRequest) -> Bounds:
    known = subject.held_out.some(request.likelihood, request.seed)
    network = autoencoder(subject.model.denoiser)
    return measure_evidence(network, known, _told(subject), subject.levels, request.seed)


def _of_tokens(subject: Subject, request: EvaluateRequest) -> Bounds:
    known = subject.held_out.some(request.likelihood, request.seed)
    with_codec = replace(known, x=subject.model.codec.encode(known.x))
    return measure_tokens(subject.model.denoiser, with_codec, _told(subject), request.seed)


def _undefined(subject: Subject, request: EvaluateRequest) -> Bounds:
    del subject, request
    return iter(())


_BOUNDS: Mapping[str, Callable[[Subject, EvaluateRequest], Bounds]] = {
    "denoising": _of_diffusion,
    "vdm": _of_diffusion,
    "vae": _of_autoencoder,
    "gan": _undefined,
    "masked": _of_tokens,
}
"""What bounds the likelihood of a model, by the kind of its objective."""


def _told(subject: Subject) -> Callable[[Labelled], Condition | None]:
    """What a model is told of real data: its labels, where it takes any."""

    def told(some: Labelled) -> Condition | None:
        label = some.label.tolist() if subject.labelled and some.label is not None else None
        return subject.model.condition(len(some.x), label=label)

    return told


def _labelled(samples: Samples) -> Labelled:
    label = samples.recipe["label"]
    return Labelled(samples.tensor, None if label is None else torch.tensor(label))


def _pictures(
    subject: Subject,
    plain: Samples,
    guided: Samples | None,
    scale: float,
    request: EvaluateRequest,
) -> list[Picture]:
    """Write the run's pictures, and hand them to the report."""
    folder = subject.folder
    shown = []
    count = len(plain) if plain.tensor.ndim == 2 else min(100, len(plain))
    sheets = [("samples", "Samples, unguided", plain)]
    if guided is not None:
        sheets.append(("samples-guided", f"Samples, guidance {scale:g}", guided))
    for name, heading, samples in sheets:
        png = png_bytes(samples[:count].sheet(columns=10))
        write_bytes(folder / f"{name}.png", png)
        shown.append(Picture(heading, png, "One class a column." if subject.labelled else ""))
    stream = subject.model.stream(
        4 if plain.tensor.ndim > 2 else 2000,
        label=[0, 3, 6, 8] if subject.labelled and len(subject.model.card.classes) > 8 else None,
        guidance=scale if guided is not None else None,
        sampler=request.sampler,
        steps=request.steps,
        seed=request.seed,
    )
    strip = png_bytes(film(stream, subject.model.decode))
    write_bytes(folder / "film.png", strip)
    caption = "Each pair of rows: what the sampler holds, and below it what the model believes."
    shown.append(Picture("Denoising, step by step", strip, caption))
    rows = read_metrics(folder / "metrics.jsonl")
    curves = loss_curves(rows, ("loss", "validation"))
    write_bytes(folder / "loss.png", curves)
    shown.append(Picture("Loss", curves, "Training loss, and held-out loss on fixed noise.", False))
    return shown


def _say(subject: Subject, found: Mapping[str, Estimate], reporter: Reporter) -> None:
    width = max(len(key) for key in found)
    for key, estimate in found.items():
        value, interval = figure_text(estimate.as_json())
        reporter.say(f"  {key:{width}s}  {value:>8s}  {interval and f'({interval})'}")
    folder = subject.folder
    reporter.say(f"samples {folder / 'samples.png'}, film strip {folder / 'film.png'}")
    reporter.say(f"figures {folder / 'evaluation.json'}, report {folder / 'report.html'}")
