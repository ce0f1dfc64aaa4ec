"""A history of losses at each of T steps, and how often each step is drawn because of it."""

import math

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError

_MIX = 0.001


class History(nn.Module):
    """p_k ∝ √E[L_k²] over the last losses at step k, mixed with 0.1 % of uniform draws.

    Until every step has been seen `length` times, all are as likely. It is state: it is saved with
    what holds it, and is the same for all processes that observe the same losses.

    steps: T. length: losses kept for each step.
    Raises UsageError for fewer than one of either.
    Reference: Nichol & Dhariwal 2021, "Improved Denoising Diffusion", section 3.3.
    """

    losses: Tensor
    seen: Tensor

    def __init__(self, steps: int, length: int) -> None:
        super().__init__()
        if steps < 1 or length < 1:
            raise UsageError(f"steps {steps} and history {length} must be 1 or more")
        self.register_buffer("losses", torch.zeros(steps, length, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(steps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """p_k of every step, (T,) float64 on the CPU."""
        losses, seen = self.losses.cpu(), self.seen.cpu()
        steps, length = losses.shape
        size = losses.square().mean(1).sqrt()
        total = float(size.sum())
        if int(seen.min()) < length or not (math.isfinite(total) and total > 0):
            return torch.full((steps,), 1.0 / steps, dtype=torch.float64)
        return (1.0 - _MIX) * size / total + _MIX / steps

    def observe(self, index: Tensor, losses: Tensor) -> None:
        """Put losses (B,) at steps index (B,), in order, in the place of the oldest ones."""
        order = torch.argsort(index.cpu(), stable=True)
        index = index.cpu()[order]
        steps, counts = torch.unique_consecutive(index, return_counts=True)
        count = counts.repeat_interleave(counts)
        rank = torch.arange(len(index)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        length = self.losses.shape[1]
        # More losses at one step than there is room for: only the last of them are kept.
        kept = rank >= count - length
        place = (self.seen.cpu()[index] + rank) % length
        device = self.losses.device
        at = (index[kept].to(device), place[kept].to(device))
        self.losses[at] = losses.cpu().double()[order][kept].to(device)
        self.seen[steps.to(device)] += counts.to(device)
