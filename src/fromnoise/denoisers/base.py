"""The one contract between networks, guidance and samplers: a belief about x0 given x_t."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from fromnoise.layers.condition import Condition
from fromnoise.processes import Process, typed
from fromnoise.schedules import Scales


@dataclass(frozen=True)
class Prediction:
    """A belief about x0 given x_t, and its other names.

    x0: the belief (B, ...); x: x_t it was formed from; t: (B,); process: how x_t came about.
    var: Var[x0 | x_t] per element where it is known (broadcastable to x0).
    var_fraction: a learned place between β̃ (0) and β (1) for the ancestral step, log-linear.
    """

    x0: Tensor
    x: Tensor
    t: Tensor
    process: Process
    var: Tensor | None = None
    var_fraction: Tensor | None = None

    def _basis(self) -> tuple[Tensor, Tensor, Scales]:
        scales = typed(self.process.scales(self.t, self.x), self.x)
        return self.process.analyse(self.x), self.process.analyse(self.x0), scales

    @property
    def eps(self) -> Tensor:
        """ε = (x_t − α·x0)/σ."""
        x, x0, (alpha, sigma) = self._basis()
        return self.process.synthesise((x - alpha * x0) / sigma)

    @property
    def score(self) -> Tensor:
        """∇log p_t(x) = −ε/σ = (α·x0 − x_t)/σ²."""
        x, x0, (alpha, sigma) = self._basis()
        return self.process.synthesise((alpha * x0 - x) / sigma**2)

    @property
    def v(self) -> Tensor:
        """v = α·ε − σ·x0."""
        x, x0, (alpha, sigma) = self._basis()
        return self.process.synthesise(alpha * (x - alpha * x0) / sigma - sigma * x0)

    @property
    def flow(self) -> Tensor:
        """u = ε − x0."""
        x, x0, (alpha, sigma) = self._basis()
        return self.process.synthesise((x - alpha * x0) / sigma - x0)


class Bound(ABC):
    """The denoiser of one run: its condition is fixed, and what a run remembers lives in it."""

    process: Process

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """The belief about x0 given x (B, ...) at times t (B,)."""


class Denoiser(ABC):
    """x_t, t and a condition → a belief about x0. Guidance wraps one into another."""

    process: Process

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        """The belief about x0 given x (B, ...), t (B,) float64 and what the network is told."""

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        """The denoiser of one run over `grid`. A wrapper with a memory makes its own."""
        del grid
        return _Plain(self, condition)


class _Plain(Bound):
    def __init__(self, denoiser: Denoiser, condition: Condition | None) -> None:
        self.process = denoiser.process
        self._denoiser = denoiser
        self._condition = condition

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        return self._denoiser(x, t, self._condition)
