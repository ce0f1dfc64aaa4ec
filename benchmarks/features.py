"""A class, its log-odds by diffusion, a digit from them: what each half of the chain keeps.

    python -m benchmarks.features --prior runs/digits-features --decoder runs/digits-from-features

The decoder is told the vectors the prior draws for classes, and those of held-out digits. The
reader, a classifier trained on real digits, says how many pictures show the class that was meant.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.app.evaluate_samples import Subject, subject_of
from fromnoise.app.readers import reader_of
from fromnoise.app.reporting import Silent
from fromnoise.app.train import split
from fromnoise.data.embedded import EMBEDDING
from fromnoise.evaluate import FeatureNetwork, Labelled, measure
from fromnoise.interop.loading import load

FIGURES = ("frechet_distance", "precision", "recall")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for the drawn vectors and one for real ones."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prior", default="runs/digits-features")
    parser.add_argument("--decoder", default="runs/digits-from-features")
    parser.add_argument("-n", "--samples", type=int, default=400)
    options = parser.parse_args(arguments)
    subject = subject_of(Path(options.decoder))
    reader = reader_of(subject, Silent())
    classes = len(subject.model.card.classes)
    label = torch.arange(options.samples) % classes
    drawn = load(options.prior).sample(options.samples, label=label.tolist(), seed=1).tensor
    rows = range(min(options.samples, len(subject.held_out.x)))
    _, real = split(subject.recipe)
    held_out = real.batch(list(rows))
    print(f"{'':18}{'label accuracy':>16}" + "".join(f"{key:>20}" for key in FIGURES))
    print(f"{'the prior vectors':18}{row(subject, reader, drawn, label)}")
    assert held_out.label is not None
    print(f"{'real vectors':18}{row(subject, reader, held_out.given[EMBEDDING], held_out.label)}")


def row(subject: Subject, reader: FeatureNetwork, vectors: Tensor, meant: Tensor) -> str:
    """The figures of the pictures that vectors give."""
    made = subject.model.sample(len(vectors), inputs={EMBEDDING: vectors}, seed=1).tensor
    right = (reader.predict(made) == meant).float().mean().item()
    found = dict(measure(subject.train, subject.held_out, Labelled(made), reader, subject.levels))
    return f"{right:16.3f}" + "".join(f"{found[key].value:20.3f}" for key in FIGURES)


if __name__ == "__main__":
    main()
