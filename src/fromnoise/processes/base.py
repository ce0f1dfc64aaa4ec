"""What every process is: corrupt, move, prior, and the basis it acts in."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.operators.families import FAMILIES
from fromnoise.schedules import SCHEDULES, Scales, Schedule, flow

PROCESSES = Kinds("process", uses=(SCHEDULES, FAMILIES))

Level = float | Tensor
"""A coefficient at one time: a number, or one for each frequency (H, W), float64."""


class Process(nn.Module, ABC):
    """How data is corrupted over time t in [0, 1]."""

    config: dict[str, Any]
    noisy = True
    """Whether there is noise in it: scales, levels and a schedule."""

    @property
    def end_held(self) -> bool:
        """Whether what training changes in it leaves x_1, and so the prior, as it was fitted."""
        return True

    @abstractmethod
    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t given x0 (B, ...), t (B,) and standard normal noise of x0's shape."""

    @abstractmethod
    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_s given x_t and a belief about x0; s may lie on either side of t.

        Without noise the move keeps the noise that x and x0 imply (DDIM, cold diffusion's
        algorithm 2). With the true x0, what comes out is distributed as x_s given x0.
        """

    @abstractmethod
    def prior(self, noise: Noise, like: Tensor, t: float = 1.0) -> Tensor:
        """A start of sampling at time t, of the shape and type of `like` (B, ...)."""

    @abstractmethod
    def reference(self, t: Tensor) -> Scales:
        """The scales (B,) a network is told of, and its input is scaled by."""

    @abstractmethod
    def scales(self, t: Tensor, like: Tensor) -> Scales:
        """α and σ at t (B,), float64, broadcastable to `like`, in the basis of `analyse`.

        Raises UsageError for a process without noise.
        """

    def reading(self, t: Tensor, like: Tensor) -> Scales:
        """The scales a network's output is read with: those of `scales` where there is noise."""
        return self.scales(t, like)

    @abstractmethod
    def levels(self, t: float) -> tuple[Level, Level]:
        """α and σ at one time, for samplers. Raises UsageError for a process without noise."""

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """The schedule of its noise. Raises UsageError for a process without noise."""

    @property
    def clock(self) -> Schedule:
        """The schedule that grids are laid on: that of its noise, where there is noise."""
        return self.schedule

    def share(self, t: Tensor) -> Tensor:
        """The share (B,) of tokens that is masked at t (B,), float64.

        Raises UsageError for a process that masks no tokens.
        """
        raise UsageError(
            f"a {type(self).__name__.lower()} process masks no tokens; unmask, unmask_even and "
            "maskgit draw models of tokens only"
        )

    def fit(self, x0: Tensor, noise: Noise) -> None:
        """Learn from data (M, ...) what the prior needs to know of it; most need nothing."""
        del x0, noise

    def begin(self, noise: Noise, like: Tensor) -> "Process":
        """The process of one run: what is random once per sample (a mask, say) is drawn here."""
        del noise, like
        return self

    def analyse(self, x: Tensor) -> Tensor:
        """To the basis in which the process acts coefficient by coefficient."""
        return x

    def synthesise(self, z: Tensor) -> Tensor:
        """Back from the basis of `analyse`."""
        return z


class Noiseless(Process):
    """What processes without noise share: a network reads x0 itself, and only the time counts."""

    noisy = False
    missing: str
    """What is said to who asks for noise: what there is in its place."""

    def reference(self, t: Tensor) -> Scales:
        return Scales(torch.ones_like(t), torch.zeros_like(t))

    def reading(self, t: Tensor, like: Tensor) -> Scales:
        one = torch.ones((like.shape[0],) + (1,) * (like.ndim - 1), dtype=torch.float64)
        return Scales(one, torch.zeros_like(one))

    @property
    def clock(self) -> Schedule:
        """Straight lines: with no noise, only the time itself counts."""
        return flow()

    def scales(self, t: Tensor, like: Tensor) -> Scales:
        raise UsageError(self.missing)

    def levels(self, t: float) -> tuple[Level, Level]:
        raise UsageError(self.missing)

    @property
    def schedule(self) -> Schedule:
        raise UsageError(self.missing)
