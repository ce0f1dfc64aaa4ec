"""Everything measured of one model, as plain figures by documented keys."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fromnoise import grids
from fromnoise.core.errors import ShapeError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Denoiser
from fromnoise.evaluate.calibration import Calibration, calibrate
from fromnoise.evaluate.classify import classifier_accuracy, label_accuracy
from fromnoise.evaluate.distances import (
    frechet_distance,
    kid,
    manifolds,
    nearest_train_distance,
)
from fromnoise.evaluate.features import FeatureNetwork, Features
from fromnoise.evaluate.intervals import Estimate, mean
from fromnoise.evaluate.likelihood import bits_per_dim
from fromnoise.evaluate.ode import LostFlow, OdeSettings, lifted_bits_per_dim, log_likelihood
from fromnoise.evaluate.vlb import variational_bound
from fromnoise.layers.condition import Condition

FORMAT = 1
FLOW = "bits_per_dim_ode"
"""The one figure that may be missing where others are not: the flow cannot always be followed."""

KEYS: Mapping[str, str] = {
    "train_on_synthetic_accuracy": "Share of held-out real data that a classifier trained only on "
    "samples reads rightly; higher is better, to be compared with train_on_real_accuracy.",
    "train_on_real_accuracy": "The same for a classifier trained on the real training data.",
    "label_accuracy": "Share of conditional samples that the reader, a classifier trained on real "
    "data, reads as the label asked for; `by_class` holds each class's. Of samples drawn with "
    "guidance, at the scale `guidance`; `unguided` is of those without.",
    "reader_accuracy": "Share of held-out real data the reader reads rightly: how far "
    "label_accuracy can be trusted.",
    "frechet_distance": "Squared 2-Wasserstein distance of Gaussians fitted to the features of "
    "samples and of held-out real data; lower is better; `real` is the training data's.",
    "kid": "Unbiased squared kernel distance (cubic kernel) between the same features; about 0 "
    "for equal distributions, and below 0 by chance; `real` is the training data's.",
    "precision": "Share of samples that lie within the held-out real data's neighbourhoods: are "
    "they realistic? `real` is the training data's.",
    "recall": "Share of held-out real data that lies within the samples' neighbourhoods: are they "
    "varied? `real` is the training data's.",
    "density": "Mean number of real neighbourhoods a sample lies in, over the number of "
    "neighbours; it may exceed 1.",
    "coverage": "Share of held-out real data whose neighbourhood holds a sample.",
    "nearest_train_distance": "Mean Euclidean distance of a sample to the nearest training sample, "
    "as data in [-1, 1]; `held_out` is the same for held-out real data, `exact_copies` counts "
    "samples equal to a training sample, `near_copies` is the share nearer than all but 1 % of "
    "held-out data, `copying` says whether that is too many.",
    "bits_per_dim": "Upper bound on -log2 of the probability of held-out real data, per dimension, "
    "counting the data's own levels (a density where it has none); the variational bound, lower "
    "is better.",
    "bits_per_dim_ode": "The same by the probability-flow ODE, on fewer samples.",
    "nats_per_token": "Upper bound on -log of the probability of the codes of held-out real data, "
    "for each token; lower is better, and log of the number of codes says nothing at all.",
}
"""Each key of `evaluation.json`'s figures → what it means. A figure is `{value, low, high, count}`,
low and high the ends of its 95 % interval, where it has one, and its own further entries."""


@dataclass(frozen=True)
class Labelled:
    """Samples x (N, ...) in [−1, 1], and their labels (N,) where there are any."""

    x: Tensor
    label: Tensor | None = None

    def __post_init__(self) -> None:
        if self.label is not None and self.label.shape != self.x.shape[:1]:
            raise ShapeError(f"{len(self.x)} samples but labels {tuple(self.label.shape)}")

    def some(self, count: int, seed: int = 0) -> "Labelled":
        """`count` of them at random (data may lie sorted by class), all if there are not more."""
        if count >= len(self.x):
            return self
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        index = order[:count]
        return Labelled(self.x[index], None if self.label is None else self.label[index])


@dataclass(frozen=True)
class Evaluation:
    """What was measured. figures: `KEYS` → Estimate; features: the card of what they are taken in;
    counts: of each set of samples."""

    figures: Mapping[str, Estimate]
    features: Mapping[str, Any]
    counts: Mapping[str, int]
    seed: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What `evaluation.json` holds: each figure by its key, and how it was come by."""
        return {
            "format": FORMAT,
            **{key: estimate.as_json() for key, estimate in self.figures.items()},
            "features": dict(self.features),
            "counts": dict(self.counts),
            "seed": self.seed,
            **({"notes": dict(self.notes)} if self.notes else {}),
        }


@dataclass(frozen=True)
class Likelihoods:
    """What likelihood is measured of, and how thoroughly.

    condition: what the denoiser is told of given samples (their labels, say), None for nothing.
    levels: of the data. steps: of the variational bound's grid; terms: of them drawn for each
    sample; bound, flow, calibration: how many samples each takes (flow 0: no ODE). evaluations:
    the most of the network that the ODE may take.
    """

    denoiser: Denoiser
    condition: Callable[[Labelled], Condition | None] = lambda _: None
    levels: int | None = None
    steps: int = 128
    terms: int = 16
    bound: int = 512
    flow: int = 32
    calibration: int = 128
    tolerance: float = 1e-3
    evaluations: int = 1000


def measure(
    train: Labelled,
    held_out: Labelled,
    samples: Labelled,
    features: Features,
    levels: int | None = None,
    k: int = 3,
    seed: int = 0,
) -> Iterator[tuple[str, Estimate]]:
    """How samples compare with held-out real data, one figure at a time, keyed as in `KEYS`."""
    real, fake = features(held_out.x), features(samples.x)
    # The same number of training samples stands for perfect samples: distances depend on it.
    base = features(train.some(len(samples.x), seed).x)
    yield (
        "frechet_distance",
        _beside(frechet_distance(real, fake, seed), frechet_distance(real, base, seed)),
    )
    yield "kid", _beside(kid(real, fake, seed), kid(real, base, seed))
    found, usual = manifolds(real, fake, k), manifolds(real, base, k)
    for key in ("precision", "recall", "density", "coverage"):
        yield key, _beside(getattr(found, key), getattr(usual, key))
    yield "nearest_train_distance", nearest_train_distance(train.x, held_out.x, samples.x, levels)


def measure_labels(
    train: Labelled,
    held_out: Labelled,
    samples: Labelled,
    reader: FeatureNetwork,
    seeds: Sequence[int] = (0, 1, 2),
) -> Iterator[tuple[str, Estimate]]:
    """How well samples carry their labels, one figure at a time. Nothing where one has none."""
    if train.label is None or held_out.label is None or samples.label is None:
        return
    yield "label_accuracy", label_accuracy(reader, samples.x, samples.label)
    yield "reader_accuracy", label_accuracy(reader, held_out.x, held_out.label)
    classes = int(reader.card["classes"])
    for key, x, label in (
        ("train_on_synthetic_accuracy", samples.x, samples.label),
        ("train_on_real_accuracy", train.x, train.label),
    ):
        yield key, classifier_accuracy(x, label, held_out.x, held_out.label, classes, seeds)


def measure_likelihood(
    train: Labelled, held_out: Labelled, how: Likelihoods, seed: int = 0
) -> Iterator[tuple[str, Estimate]]:
    """Bits per dimension of held-out data by the variational bound, then by the ODE.

    The bound's variances, and the time at which its decoder takes over, are measured on training
    data. Both are averages over samples, and their intervals say how sure the average is.
    Raises LostFlow, after the bound, where the ODE cannot be followed to its end.
    """
    denoiser, levels = how.denoiser, how.levels
    grid = grids.log_snr(denoiser.process.schedule, how.steps)
    some = train.some(how.calibration, seed)
    fitted = calibrate(
        denoiser, some.x, grid, Noise(seed, len(some.x)), how.condition(some), levels
    )
    known = held_out.some(how.bound, seed)
    bound = variational_bound(
        denoiser, known.x, fitted.grid, fitted.variance, Noise(seed, len(known.x)),
        how.condition(known), levels, how.terms,
    )  # fmt: skip
    dimensions = known.x[0].numel()
    parts = {"prior": bound.prior, "steps": bound.steps, "decoder": bound.decoder}
    more = {
        "method": "variational bound",
        "levels": levels,
        "parts": {k: bits_per_dim(-v, dimensions).mean().item() for k, v in parts.items()},
        "last_time": fitted.last,
        "steps": how.steps,
    }
    yield "bits_per_dim", mean(bound.bits_per_dim(dimensions), more)
    if how.flow:
        yield FLOW, _flow(held_out.some(how.flow, seed), how, fitted, seed)


def _flow(some: Labelled, how: Likelihoods, fitted: Calibration, seed: int) -> Estimate:
    """By the ODE, from where the variational bound's decoder takes over if there are levels."""
    x, condition = some.x, how.condition(some)
    noise = Noise(seed, len(x))
    tolerance, start = how.tolerance, None if how.levels is None else fitted.last
    settings = OdeSettings(
        start=start, rtol=tolerance, atol=tolerance, probes=1, evaluations=how.evaluations
    )
    more = {"method": "probability-flow ODE", "levels": how.levels}
    if how.levels is None:
        flow = log_likelihood(how.denoiser, x, condition, None, settings, noise)
        return mean(bits_per_dim(flow.log_density, x[0].numel()), more)
    found = lifted_bits_per_dim(
        how.denoiser, x, how.levels, noise, condition, settings, fitted.error
    )
    return mean(found, {**more, "last_time": fitted.last})


def _beside(found: Estimate, real: Estimate) -> Estimate:
    """A figure with the same figure of real data beside it."""
    return replace(found, more={**found.more, "real": real})


def evaluate(
    train: Labelled,
    held_out: Labelled,
    samples: Labelled,
    reader: FeatureNetwork,
    likelihoods: Likelihoods | None = None,
    levels: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """All of it: `measure_labels`, `measure` in the reader's features and `measure_likelihood`.

    train and held_out: real data; samples: conditional ones with the labels asked for. Without
    `likelihoods` (cold diffusion has none) there are no bits per dimension. Where the flow cannot
    be followed, the notes say why its bits are missing.
    """
    notes: dict[str, str] = {}
    figures = dict(measure_labels(train, held_out, samples, reader))
    figures.update(measure(train, held_out, samples, reader, levels, seed=seed))
    if likelihoods is not None:
        try:
            for key, estimate in measure_likelihood(train, held_out, likelihoods, seed):
                figures[key] = estimate
        except LostFlow as error:
            notes[FLOW] = str(error)
    counts = {"train": len(train.x), "held_out": len(held_out.x), "samples": len(samples.x)}
    return Evaluation(figures, reader.card, counts, seed, notes)
