"""The likelihood bound of an autoencoder, by one draw of its latents and by many."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.evaluate.intervals import Estimate, mean
from fromnoise.evaluate.likelihood import bits_per_dim
from fromnoise.evaluate.report import Labelled
from fromnoise.layers.condition import Condition
from fromnoise.nets.vae import Autoencoder


@dataclass(frozen=True)
class Evidence:
    """log p(x) (B,) from below, in nats, and its parts.

    bound: E_q[log p(x|ε)] − Σ KL, by one draw. importance: the bound of `draws` draws.
    reconstruction: −log p(x|ε) at the first draw. kl: of each group of latents, (B,) each.
    """

    bound: Tensor
    importance: Tensor
    reconstruction: Tensor
    kl: tuple[Tensor, ...]


@torch.no_grad()
def evidence(
    autoencoder: Autoencoder,
    x: Tensor,
    noise: Noise,
    condition: Condition | None = None,
    levels: int | None = None,
    draws: int = 64,
) -> Evidence:
    """Bound log p(x) of samples x (B, ...).

    With k draws, E[log (1/k)·Σ_i p(x|ε_i)·p(ε_i)/q(ε_i|x)] rises with k to log p(x) (Burda, Grosse
    & Salakhutdinov 2016, "Importance Weighted Autoencoders", theorem 1).
    Raises UsageError for no draws.
    """
    if draws < 1:
        raise UsageError(f"draws {draws} must be 1 or more")
    weights, first, recovered = [], None, None
    for _ in range(draws):
        passage = autoencoder.passage(x, noise.normal(x), condition)
        known = passage.output.log_prob(x, levels)
        weights.append(known - passage.log_ratio)
        if first is None:
            first, recovered = passage, known
    assert first is not None and recovered is not None
    importance = torch.logsumexp(torch.stack(weights), 0) - math.log(draws)
    bound = recovered - torch.stack(first.kl).sum(0)
    return Evidence(bound, importance, -recovered, first.kl)


def measure_evidence(
    autoencoder: Autoencoder,
    known: Labelled,
    condition: Callable[[Labelled], Condition | None],
    levels: int | None = None,
    seed: int = 0,
    draws: int = 64,
) -> Iterator[tuple[str, Estimate]]:
    """Bits per dimension of samples by the bound of one draw; `importance` is that of many."""
    x = known.x
    found = evidence(autoencoder, x, Noise(seed, len(x)), condition(known), levels, draws)
    dimensions = x[0].numel()

    def bits(nats: Tensor) -> float:
        return bits_per_dim(-nats, dimensions).mean().item()

    more = {
        "method": "variational bound",
        "levels": levels,
        "parts": {"reconstruction": bits(found.reconstruction), "kl": [bits(k) for k in found.kl]},
        "importance": bits(-found.importance),
        "draws": draws,
    }
    yield "bits_per_dim", mean(bits_per_dim(found.bound, dimensions), more)
