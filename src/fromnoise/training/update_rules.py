"""Update rules by name: what each remembers of a parameter, and the learning rate it likes.

Weight decay means the same under all of them: weights ← (1 − rate·decay)·weights, apart from the
gradient (Loshchilov & Hutter 2019).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError

OPTIMIZERS = Kinds("optimizer")
"""What makes an optimizer for a list of parameter groups (`make`); see `Maker`."""

Shape = tuple[int, ...]


class Maker(ABC):
    """Makes an optimizer for parameter groups; the learning rate is set at each step.

    suits: its usual learning rate as a multiple of AdamW's.
    flat: whether a kernel (out, in, height, width) is stepped as the matrix (out, everything else).
    """

    config: dict[str, Any]
    suits: ClassVar[float] = 1.0
    flat: ClassVar[bool] = False

    @abstractmethod
    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer of these groups, each with `params` and `weight_decay`."""

    @abstractmethod
    def quantities(self, shape: Shape) -> dict[str, Shape]:
        """What is remembered of a parameter of that shape: name → shape."""

    def takes(self, name: str, shape: Shape) -> bool:
        """Whether it steps this parameter; `rest` steps the others."""
        del name, shape
        return True

    def rest(self) -> "Maker":
        """What steps the parameters that this one does not take."""
        return self


@OPTIMIZERS.register("adamw")
class AdamW(Maker):
    """Adam with decoupled weight decay, fused (Loshchilov & Hutter 2019)."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1 and eps > 0):
            raise UsageError(f"betas {beta1}, {beta2} must be in [0, 1) and eps {eps} above 0")
        self.betas, self.eps = (beta1, beta2), eps

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, fused=True)

    def quantities(self, shape: Shape) -> dict[str, Shape]:
        return {"step": (), "exp_avg": shape, "exp_avg_sq": shape}


@OPTIMIZERS.register("adafactor")
class Adafactor(Maker):
    """Second moments of a matrix as a column times a row, and no first moment.

    The rate is relative: a step is at most that share of a weight's root mean square, and of at
    least 0.001. It falls as 1/√step once that is less than the rate given.

    decay: β₂ at step n is 1 − n^decay, below 0. clip: largest root mean square of an update before
    the rate, from 1. Reference: Shazeer & Stern 2018.
    """

    suits = 50.0
    flat = True

    def __init__(self, decay: float = -0.8, clip: float = 1.0) -> None:
        if not (decay < 0 and clip >= 1):
            raise UsageError(f"decay {decay} must be below 0 and clip {clip} 1 or more")
        self.decay, self.clip = decay, clip

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(groups, beta2_decay=self.decay, d=self.clip)

    def quantities(self, shape: Shape) -> dict[str, Shape]:
        if len(shape) < 2:
            return {"step": (), "variance": shape}
        return {"step": (), "row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, shape[-1])}


@OPTIMIZERS.register("lion")
class Lion(Maker):
    """The sign of a momentum: every weight moves by the rate, up or down.

    u = sign(β₁m + (1 − β₁)g), then m ← β₂m + (1 − β₂)g. It wants a rate 3 to 10 times lower than
    AdamW's, and a weight decay as much higher.

    Reference: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms".
    """

    suits = 0.3

    def __init__(self, beta1: float = 0.9, beta2: float = 0.99) -> None:
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise UsageError(f"betas {beta1}, {beta2} must be in [0, 1)")
        self.betas = (beta1, beta2)

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        from lion_pytorch import Lion as Steps

        made: torch.optim.Optimizer = Steps(groups, betas=self.betas)
        return made

    def quantities(self, shape: Shape) -> dict[str, Shape]:
        return {"exp_avg": shape}


@OPTIMIZERS.register("muon")
class Muon(Maker):
    """A momentum made orthogonal, for the matrices inside the network; AdamW for the rest.

    M ← μM + (1 − μ)G; the step is UVᵀ of Nesterov's mean of M and G (five Newton–Schulz steps in
    bfloat16), times 0.2·√max(rows, columns), so that rate and weight decay mean what they do for
    AdamW. Biases, gains and what `others` names (embeddings, the first and the last layer) are
    stepped by AdamW.

    momentum: μ in [0, 1). others: names of parameters, with * as in file names.
    References: Jordan et al. 2024; Liu et al. 2025 (the factor).
    """

    flat = True

    def __init__(
        self,
        momentum: float = 0.95,
        others: Sequence[str] = ("*embedding.*", "*enter.*", "*leave.*"),
    ) -> None:
        if not 0 <= momentum < 1:
            raise UsageError(f"momentum {momentum} must be in [0, 1)")
        self.momentum, self.others = momentum, tuple(others)

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.Muon(
            groups, momentum=self.momentum, adjust_lr_fn="match_rms_adamw", weight_decay=0.0
        )

    def quantities(self, shape: Shape) -> dict[str, Shape]:
        return {"momentum_buffer": shape}

    def takes(self, name: str, shape: Shape) -> bool:
        return len(shape) > 1 and not any(fnmatchcase(name, other) for other in self.others)

    def rest(self) -> Maker:
        return AdamW()
