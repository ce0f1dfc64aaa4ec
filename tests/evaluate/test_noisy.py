"""A classifier measured level by level: of two Gaussians the best accuracy is known."""

import math

import pytest
import torch
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.errors import ShapeError
from fromnoise.evaluate.noisy import read_noisy, readings_plot
from fromnoise.processes import Gaussian

SCHEDULE = schedules.cosine()
MEAN, STD = 1.0, 0.4


def data(count: int = 4000) -> tuple[Tensor, Tensor]:
    label = torch.arange(count) % 2
    noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (2.0 * label - 1.0)[:, None] * MEAN + STD * noise, label


def exact(x: Tensor, t: Tensor) -> Tensor:
    alpha, sigma = (s[:, None] for s in SCHEDULE(t))
    odds = 2 * alpha * MEAN * x / (alpha**2 * STD**2 + sigma**2)
    return torch.cat([torch.zeros_like(odds), odds], dim=1)


def test_the_exact_classifier_has_the_accuracy_of_bayes() -> None:
    """Φ(α·m/√(α²·s² + σ²)) at every time, and at t = 1 that of guessing."""
    x, label = data()
    for one in read_noisy(exact, Gaussian(SCHEDULE), x, label, at=(0.0, 0.3, 0.6, 0.9, 1.0)):
        alpha, sigma = SCHEDULE.at(one.t)
        ratio = alpha * MEAN / math.sqrt(alpha**2 * STD**2 + sigma**2)
        bayes = 0.5 * (1 + math.erf(ratio / math.sqrt(2)))
        assert one.accuracy.value == pytest.approx(bayes, abs=4 * math.sqrt(0.25 / len(x)))
        assert one.accuracy.low <= one.accuracy.value <= one.accuracy.high
        if sigma > 0:
            assert one.log_snr == pytest.approx(2 * math.log(alpha / sigma), abs=1e-6)
    assert one.loss.value == pytest.approx(math.log(2), abs=1e-3)


def test_a_classifier_that_errs_costs_more() -> None:
    x, label = data(1000)
    best, worse = (
        read_noisy(reads, Gaussian(SCHEDULE), x, label, at=(0.4,))[0]
        for reads in (exact, lambda x, t: 3 * exact(x, t))
    )
    assert worse.accuracy.value == best.accuracy.value
    assert worse.loss.value > best.loss.value + 0.01


def test_it_is_written_as_plain_values_and_drawn() -> None:
    x, label = data(50)
    found = read_noisy(exact, Gaussian(SCHEDULE), x, label)
    told = [one.as_json() for one in found]
    assert told[0]["log_snr"] is None or math.isfinite(told[0]["log_snr"])
    assert set(told[3]) == {"t", "log_snr", "accuracy", "loss"}
    assert readings_plot(found, 0.5).startswith(b"\x89PNG")
    with pytest.raises(ShapeError, match="50 samples but labels"):
        read_noisy(exact, Gaussian(SCHEDULE), x, label[:49])
