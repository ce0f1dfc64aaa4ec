"""Measure an autoencoder's run: what comes back of held-out pictures, and what its latents are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise.app.evaluate_samples import Subject, of_one_size
from fromnoise.app.readers import reader_of
from fromnoise.app.reconstructions import sheet
from fromnoise.app.report import write_report
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import EvaluateRequest
from fromnoise.app.train import split
from fromnoise.codecs import VQ, Learned, usage
from fromnoise.core.files import write_bytes, write_json
from fromnoise.core.images import png_bytes
from fromnoise.data import Dataset
from fromnoise.evaluate import Labelled, Picture, figure_text, frechet_distance, loss_curves
from fromnoise.evaluate.intervals import Estimate, mean
from fromnoise.evaluate.reconstruction import psnr, ssim
from fromnoise.interop.loading import load
from fromnoise.recipes import Recipe
from fromnoise.training.metrics import read_metrics

_READ = 4000
"""The most training pictures that the features are learned from."""

_SHOWN, _CHUNK = 30, 64


def evaluate_autoencoder(
    folder: Path, recipe: Recipe, request: EvaluateRequest, reporter: Reporter
) -> int:
    """Carry out `fromnoise evaluate` on a run that trained an autoencoder.

    --samples is the most held-out pictures that are taken there and back.
    """
    model = load(folder)
    train, held_out = split(recipe, of_one_size(recipe))
    known = _some(held_out, request.samples)
    subject = Subject(folder, recipe, model, _some(train, _READ), known, train.levels)
    parts = torch.split(known.x, _CHUNK)
    with reporter.progress("there and back", len(known.x)) as progress:
        made = []
        for part in parts:
            made.append(model.reconstruct(part))
            progress.advance(sum(len(one) for one in made))
    came_back = torch.cat(made)
    reader = reader_of(subject, reporter)
    real, base = reader(known.x), reader(subject.train.some(len(known.x), request.seed).x)
    distance = frechet_distance(real, reader(came_back), request.seed)
    found = {
        "psnr": mean(psnr(known.x, came_back)),
        "ssim": mean(ssim(known.x, came_back)),
        "rfid": Estimate(
            distance.value, distance.low, distance.high, distance.count,
            {"real": frechet_distance(real, base, request.seed).as_json()},
        ),
        **_of_latents(model.codec, parts),
    }  # fmt: skip
    result = {
        "format": 1,
        **{name: estimate.as_json() for name, estimate in found.items()},
        "features": dict(reader.card),
        "counts": {"train": len(train), "held_out": len(known.x)},
        "seed": request.seed,
    }
    write_json(folder / "evaluation.json", result)
    picture = png_bytes(sheet(model, held_out, _SHOWN))
    write_bytes(folder / "reconstructions.png", picture)
    _write_report(folder, recipe, result, picture)
    for name, estimate in found.items():
        value, interval = figure_text(estimate.as_json())
        reporter.say(f"  {name:20s}  {value:>8s}  {interval and f'({interval})'}")
    reporter.say(f"pictures above what came back: {folder / 'reconstructions.png'}")
    reporter.say(f"figures {folder / 'evaluation.json'}, report {folder / 'report.html'}")
    return 0


def _some(dataset: Dataset, most: int) -> Labelled:
    """At most so many samples, evenly taken from all."""
    batch = dataset.batch(dataset.spread(most))
    return Labelled(batch.x, batch.label)


@torch.no_grad()
def _of_latents(codec: Any, parts: tuple[Tensor, ...]) -> dict[str, Estimate]:
    """Mean and spread of held-out latents, all channels together; of codes, how they are used."""
    if not isinstance(codec, Learned):
        return {}
    latents = torch.cat([codec.encode(part) for part in parts]).double()
    by_channel = latents.std(dim=(0, 2, 3)).tolist()
    found = {
        "latent_mean": Estimate(latents.mean().item()),
        "latent_std": Estimate(latents.std().item(), more={"by_channel": by_channel}),
    }
    if isinstance(codec, VQ):
        used = usage(codec.to_codes(latents.float()), codec.codebook.size)
        found["codebook_usage"] = Estimate(used.share, more={"size": codec.codebook.size})
        found["codebook_perplexity"] = Estimate(used.perplexity)
    return found


def _write_report(folder: Path, recipe: Recipe, result: Mapping[str, Any], picture: bytes) -> None:
    curves = loss_curves(read_metrics(folder / "metrics.jsonl"), ("loss/autoencoder", "validation"))
    write_bytes(folder / "loss.png", curves)
    shown = [
        Picture("There and back", picture, "Held-out pictures, each above what came back of it."),
        Picture("Loss", curves, "Training loss, and held-out loss on fixed noise.", False),
    ]
    write_report(folder, recipe, result, shown)
