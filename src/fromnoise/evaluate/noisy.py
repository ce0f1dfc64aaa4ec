"""How well a classifier reads noisy samples, level by level."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from fromnoise.core.errors import ShapeError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.evaluate.intervals import Estimate, mean, wilson
from fromnoise.evaluate.pictures import line_plot
from fromnoise.processes import Process

TIMES = tuple(i / 10 for i in range(11))
"""Where a classifier is asked: from clean samples to noise."""

CHUNK = 256


@dataclass(frozen=True)
class Reading:
    """What a classifier reads at one level of noise.

    t: its time; log_snr: log(α²/σ²) there. accuracy: the share read rightly, with Wilson's
    interval; loss: the mean of −log p(y | x_t), in nats.
    """

    t: float
    log_snr: float
    accuracy: Estimate
    loss: Estimate

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite log-SNR is None."""
        known = self.log_snr if abs(self.log_snr) < float("inf") else None
        told = {"accuracy": self.accuracy.as_json(), "loss": self.loss.as_json()}
        return {"t": self.t, "log_snr": known, **told}


def read_noisy(
    log_odds: Callable[[Tensor, Tensor], Tensor],
    process: Process,
    x0: Tensor,
    label: Tensor,
    at: Sequence[float] = TIMES,
    seed: int = 0,
) -> list[Reading]:
    """What a classifier reads of data x0 (N, ...), labels (N,), noisy by `process` at some times.

    log_odds: (x_t (B, ...), t (B,)) → (B, classes). A sample is given the same noise at all times,
    so that levels are compared on the same chance. Raises ShapeError for another number of labels.
    """
    if label.shape != x0.shape[:1] or len(x0) == 0:
        raise ShapeError(f"{len(x0)} samples but labels of shape {tuple(label.shape)}")
    noise = Noise(seed, len(x0)).normal(x0)
    found = []
    for t in at:
        parts = []
        for rows in torch.split(torch.arange(len(x0)), CHUNK):
            time = times(t, len(rows))
            with torch.no_grad():
                x = process.corrupt(x0[rows], time, noise[rows])
                parts.append(log_odds(x, time).double().log_softmax(1))
        log_p = torch.cat(parts)
        right = int((log_p.argmax(1) == label).sum())
        losses = nll_loss(log_p, label, reduction="none")
        log_snr = float(process.schedule.log_snr(torch.tensor([t], dtype=torch.float64)))
        found.append(Reading(t, log_snr, wilson(right, len(label)), mean(losses)))
    return found


def readings_plot(readings: Sequence[Reading], chance: float) -> bytes:
    """Accuracy over the time of the noise as PNG bytes, and e^−loss: both are `chance` if guessed.

    e^−loss is the geometric mean of the probability that the right class is given.
    """
    curves = {
        "read rightly": [(one.t, one.accuracy.value) for one in readings],
        "probability of the right class": [(one.t, math.exp(-one.loss.value)) for one in readings],
        "guessed": [(one.t, chance) for one in readings],
    }
    return line_plot(curves, "t (0 data, 1 noise)", "share of held-out data")
