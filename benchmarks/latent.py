"""Latents against pixels at equal training time: cost of a sample, and how far samples are off.

    python -m benchmarks.latent --codec runs/photos-kl --seconds 1800

`photos-ldm` and `photos-pixels` are trained by `fromnoise train`, each until the process has spent
the same processor seconds, counted from before its recipe is opened: reading the photographs is in
it, and encoding them once for the latents. What the autoencoder itself took is said apart: one
serves many models. The learning rate is constant, since neither knows how far it will get. Figures
are taken in the same features, with their 95 % intervals; "reconstructions" is what the autoencoder
makes of training photographs (the claim is that of Rombach et al. 2022, section 4.1).
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fromnoise.app.asked import asked
from fromnoise.app.evaluate_samples import Subject, subject_of
from fromnoise.app.readers import reader_of
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import DataEncodeRequest, TrainRequest
from fromnoise.app.train import prepare
from fromnoise.app.verbs import carry_out
from fromnoise.core.errors import UsageError
from fromnoise.evaluate import Estimate, FeatureNetwork, Labelled, measure
from fromnoise.training import Stopped
from fromnoise.training.metrics import read_metrics

LATENT, PIXELS = "photos-ldm", "photos-pixels"
FIGURES = ("frechet_distance", "kid", "precision", "recall")
ENDLESS = 1_000_000
QUIET = {
    "steps": ENDLESS, "schedule": "constant", "validate_every": 0, "checkpoint_every": 0,
    "sample_every": 0,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--codec", default="runs/photos-kl")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--known", type=int, default=4000, help="training photographs compared")
    parser.add_argument("--keep", type=Path, default=None, help="folder the runs stay in")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder = options.keep or Path(place)
        print(f"the autoencoder: {about(Path(options.codec))}", flush=True)
        for name in (LATENT, PIXELS):
            print(f"{name}: {trained(name, folder, options)}", flush=True)
        compare(folder, options)


def about(codec: Path) -> str:
    """What training an autoencoder took, by its own log."""
    rows = [row for row in read_metrics(codec / "metrics.jsonl") if row.get("rate")]
    wall = sum(1.0 / row["rate"] for row in rows)
    return f"{len(rows)} steps, about {wall / 60:.0f} minutes by the clock of its own run"


def trained(name: str, folder: Path, options: argparse.Namespace) -> str:
    """Train a recipe for so many processor seconds of this process; what it came to."""
    start = time.process_time()
    given: dict[str, Any] = {"recipe": name, "out": str(folder / name), "train": QUIET}
    if name == LATENT:
        file = str(folder / "latents.safetensors")
        carry_out("data encode", DataEncodeRequest(run=options.codec, out=file), Silent())
        given |= {"codec": options.codec, "data": file}
    it = asked(TrainRequest(**given), Silent())
    run, _ = prepare(it.recipe, it.folder, Silent(), it.whole, it.base, it.codec)
    before, steps = time.process_time(), 0
    if before - start >= options.seconds:
        raise UsageError(f"{options.seconds:g} seconds are over before the first step; give more")
    try:
        for event in run.train():
            steps = event.step
            if time.process_time() - start >= options.seconds:
                run.stop()
    except Stopped:
        pass
    spent = time.process_time() - before
    return (
        f"{steps} steps of {1e3 * spent / steps:.0f} ms, after {before - start:.0f} seconds of "
        f"preparing; {before - start + spent:.0f} processor seconds in all"
    )


def compare(folder: Path, options: argparse.Namespace) -> None:
    """The table of both, and of what the autoencoder brings back."""
    subjects = {name: subject_of(folder / name) for name in (LATENT, PIXELS)}
    known = subjects[PIXELS]
    reader = reader_of(known, Silent())
    print(f"\n{'':18}{'s a sample':>11}" + "".join(f"{key:>30}" for key in FIGURES))
    for name, subject in subjects.items():
        start = time.process_time()
        drawn = subject.model.sample(options.samples, batch_size=min(options.samples, 100)).tensor
        seconds = (time.process_time() - start) / len(drawn)
        print(f"{name:18}{seconds:11.3f}{row(known, drawn, reader, options)}", flush=True)
    some = known.train.some(options.samples, seed=2).x
    made = subjects[LATENT].model.reconstruct(some)
    print(f"{'reconstructions':18}{'':11}{row(known, made, reader, options)}")


def row(known: Subject, made: Tensor, reader: FeatureNetwork, options: argparse.Namespace) -> str:
    """The figures of pictures, with their intervals."""
    train = known.train.some(options.known)
    found = dict(measure(train, known.held_out, Labelled(made), reader, known.levels))
    return "".join(f"{shown(found[key]):>30}" for key in FIGURES)


def shown(estimate: Estimate) -> str:
    """A value and its interval, where it has one."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


if __name__ == "__main__":
    main()
