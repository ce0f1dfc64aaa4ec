"""The likelihood bound of a model of masked tokens."""

from collections.abc import Callable, Iterator

import torch

from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.denoisers import Denoiser
from fromnoise.denoisers.tokens import token_bound
from fromnoise.evaluate.intervals import Estimate, mean
from fromnoise.evaluate.report import Labelled
from fromnoise.layers.condition import Condition

_BATCH = 64


@torch.no_grad()
def measure_tokens(
    denoiser: Denoiser,
    known: Labelled,
    condition: Callable[[Labelled], Condition | None],
    seed: int = 0,
    draws: int = 16,
) -> Iterator[tuple[str, Estimate]]:
    """`nats_per_token` of tokens x (N, K, ...), one-hot: the bound, averaged over `draws` times.

    The times of each sample are spread evenly over (0, 1] from a place of its own.
    """
    noise = Noise(seed, len(known.x))
    first = noise.uniform(torch.empty(len(known.x), 1, dtype=torch.float64))[:, 0]
    totals = torch.zeros(len(known.x), dtype=torch.float64)
    told = condition(known)
    for draw in range(draws):
        t = 1.0 - (first + draw / draws) % 1.0
        spread = noise.normal(known.x[:, :1])
        for part in torch.split(torch.arange(len(known.x)), _BATCH):
            own = None if told is None else told.rows(part)
            x0, when = known.x[part], times(t[part], len(part))
            totals[part] += token_bound(denoiser, x0, when, spread[part], own) / draws
    tokens = known.x[0, 0].numel()
    more = {"method": "masked tokens", "tokens": tokens, "codes": known.x.shape[1], "draws": draws}
    yield "nats_per_token", mean(totals / tokens, more)
