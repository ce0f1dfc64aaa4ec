"""What a denoiser of masked tokens misses, and the bound on the likelihood that this makes."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fromnoise.core.errors import UsageError
from fromnoise.core.tensors import flat_sum
from fromnoise.denoisers.base import Denoiser
from fromnoise.layers.condition import Condition
from fromnoise.processes import Absorbing, hidden


def missed(logits: Tensor, x0: Tensor, x: Tensor) -> Tensor:
    """Σ −log p(x_l | x_t) over masked tokens, (B,) in nats; logits, x0 and x are (B, K, ...)."""
    each = cross_entropy(logits, x0.argmax(1), reduction="none")
    return flat_sum(torch.where(hidden(x)[:, 0], each, 0.0))


def token_bound(
    denoiser: Denoiser,
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    condition: Condition | None = None,
) -> Tensor:
    """m'/m·Σ_masked −log p(x_l | x_t) (B,), in nats: its mean over t and noise bounds −log p(x0).

    For an exact denoiser and the data's own x0 that mean is the entropy of the data.
    x0 (B, K, ...) one-hot, t (B,) in (0, 1], noise (B, 1, ...) or of x0's shape.
    Raises UsageError for a process that does not mask.
    """
    process = denoiser.process
    if not isinstance(process, Absorbing):
        raise UsageError(f"a {type(process).__name__} process has no bound of masked tokens")
    x = process.corrupt(x0, t, noise)
    return process.rate(t) * missed(denoiser(x, t, condition).x0.double(), x0, x)
