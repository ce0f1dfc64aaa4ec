"""Averages of the weights whose length is chosen after training.

A power-function average at step t weighs the weights of step τ by f(τ) = (γ+1)·τ^γ / t^(γ+1): it
keeps its shape as training goes on, and its width is a fixed share of the training so far. Averages
of two widths are tracked; their snapshots are a basis from which one of any width is put together.

Reference: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models"
(EDM2), section 3 and appendix C.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fromnoise.core.errors import FileError, UsageError

LARGEST = 0.28
"""The largest width: at 1/√12 = 0.289 all weights so far count the same."""

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def width(gamma: float) -> float:
    """The standard deviation of a profile as a share of the training so far.

    σ_rel = √((γ+1) / ((γ+2)²(γ+3))), for an exponent γ of 0 or more.
    """
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def exponent(std: float) -> float:
    """The exponent γ of a profile of relative width `std`, in (0, 0.28]: the inverse of `width`.

    The root of γ³ + 7γ² + (16 − 1/σ²)γ + (12 − 1/σ²) = 0 that is not negative.
    Raises UsageError for a width out of range.
    """
    if not 0 < std <= LARGEST:
        raise UsageError(f"an average of width {std!r} cannot be; use above 0 and up to {LARGEST}")
    inverse = std**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


class PowerEMA:
    """Averages of several widths, in float32: θ̂ ← β(t)·θ̂ + (1 − β(t))·θ after each step t.

    β(t) = (1 − 1/t)^(γ+1), so the first step forgets the initial weights.
    stds: the relative widths, each in (0, 0.28]; none tracks nothing.
    Raises UsageError for a width out of range.
    """

    def __init__(self, module: nn.Module, stds: Sequence[float]) -> None:
        self.stds = tuple(stds)
        self._gammas = [exponent(std) for std in self.stds]
        self._weights = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._averages = [
            {n: _precise(p.detach()).clone() for n, p in self._weights.items()} for _ in self.stds
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step t, 1 for the first."""
        if not self.stds or not self._weights:
            return
        values = [_precise(p.detach()) for p in self._weights.values()]
        for gamma, average in zip(self._gammas, self._averages, strict=True):
            new = 1.0 - (1.0 - 1.0 / step) ** (gamma + 1.0)
            torch._foreach_lerp_(list(average.values()), values, new)

    def state(self) -> dict[str, Tensor]:
        """All averages, as tensors named width/parameter."""
        return {
            f"{std:g}/{name}": value
            for std, average in zip(self.stds, self._averages, strict=True)
            for name, value in average.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved averages. FileError when they are not of these weights and widths."""
        own = self.state()
        if state.keys() != own.keys():
            odd = sorted(state.keys() ^ own.keys())[0]
            raise FileError(f"the power-function averages do not belong to this run: {odd!r}")
        for name, value in state.items():
            if value.shape != own[name].shape:
                raise FileError(f"the averaged weight {name!r} has shape {tuple(value.shape)}")
            own[name].copy_(value)


def inner(steps: Array, gammas: Array, others: Array, other_gammas: Array) -> Array:
    """∫ f(τ)·g(τ) dτ of profiles at steps t_a, t_b with exponents γ_a, γ_b; arrays broadcast.

    (γ_a+1)(γ_b+1)·r / ((γ_a+γ_b+1)·max(t_a, t_b)), r = (t_a/t_b)^γ_b where t_a < t_b and else
    (t_b/t_a)^γ_a (algorithm 3).
    """
    ratio = steps / others
    power = np.where(steps < others, other_gammas, -gammas)
    top = (gammas + 1) * (other_gammas + 1) * ratio**power
    found: Array = top / ((gammas + other_gammas + 1) * np.maximum(steps, others))
    return found


def combination(
    steps: Sequence[int], stds: Sequence[float], step: int, std: float
) -> tuple[list[float], float]:
    """What each snapshot counts in the average of width `std` at `step`, and how far it is off.

    The least-squares fit of the profiles of the snapshots to the one asked for (algorithm 3), with
    the sum held at 1: weights that do not change come out unchanged however few the snapshots.
    The second value is the norm of what the fit leaves, relative to the norm of the profile.

    steps, stds: of the snapshots, none later than `step`. Raises UsageError for none.
    """
    if not steps:
        raise UsageError("there are no snapshots to put an average together from")
    t = np.asarray(steps, np.float64)
    known = {s: exponent(s) for s in (*set(stds), std)}
    gammas = np.asarray([known[s] for s in stds])
    matrix = inner(t[:, None], gammas[:, None], t[None], gammas[None])
    asked = np.asarray(float(step)), np.asarray(known[std])
    wanted = inner(t, gammas, *asked)
    norm = float(inner(*asked, *asked))
    # One row and column more hold the sum (a Lagrange multiplier), scaled as the others are.
    scale = float(np.abs(matrix).max())
    system = np.block(
        [[matrix, np.full((len(t), 1), scale)], [np.full((1, len(t)), scale), np.zeros((1, 1))]]
    )
    solved = np.linalg.lstsq(system, np.append(wanted, scale), rcond=None)[0][:-1]
    left = float(solved @ matrix @ solved - 2 * solved @ wanted) + norm
    return solved.tolist(), math.sqrt(max(left, 0.0) / norm)


def _precise(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()
