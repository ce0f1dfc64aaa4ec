"""What a degradation is: a map, a linear map with its adjoint, a linear map with its spectrum."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError

OPERATORS = Kinds("operator")
"""Every operator that a configuration file can name, by kind."""


class Operator(ABC):
    """A degradation y = A(x) of pictures (B, C, H, W) or signals (B, C, T) in [−1, 1].

    It is applied to each sample on its own and keeps dtype and device.
    """

    config: dict[str, Any]

    @abstractmethod
    def __call__(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The degraded picture A(x)."""


class LinearOperator(Operator):
    """A linear degradation y = A·x."""

    @abstractmethod
    def adjoint(self, y: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Aᵀ·y, with ⟨A·x, y⟩ = ⟨x, Aᵀ·y⟩."""

    @abstractmethod
    def pinv(self, y: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """The pseudo-inverse A⁺·y: the smallest x of those with the least ‖A·x − y‖.

        Operators with a `cutoff` treat singular values below cutoff times the largest as zero.
        """


@dataclass(frozen=True)
class Svd:
    """The singular value decomposition A = U·S·Vᵀ of an operator on pictures of one shape.

    Coefficients have the shape of the picture. `values` S ≥ 0 is broadcastable to it, with 1 or B
    in front. V is orthogonal. `ut` puts the measurement's coefficients where their singular values
    stand, zero elsewhere; `u` is its transpose.
    """

    values: Tensor
    v: Callable[[Tensor], Tensor]
    vt: Callable[[Tensor], Tensor]
    u: Callable[[Tensor], Tensor]
    ut: Callable[[Tensor], Tensor]


class SpectralOperator(LinearOperator):
    """A linear degradation whose singular value decomposition is known."""

    @abstractmethod
    def svd(self, like: Float[Tensor, "batch ..."]) -> Svd:
        """The decomposition for pictures of the shape, dtype and device of `like`."""


def invert(values: Tensor, cutoff: float) -> Tensor:
    """1/s where |s| exceeds cutoff times the sample's largest |s|, else 0; s is (B or 1, ...).

    The division is safe: no infinity is made on the way, so gradients stay finite.
    """
    largest = values.abs().flatten(1).amax(dim=1).reshape([-1] + [1] * (values.ndim - 1))
    kept = values.abs() > cutoff * largest
    return torch.where(kept, 1 / torch.where(kept, values, 1), 0)


def check_cutoff(cutoff: float) -> None:
    """Raise UsageError unless a relative cut-off is in [0, 1)."""
    if not 0 <= cutoff < 1:
        raise UsageError(f"cutoff {cutoff} is out of range; use a number from 0 to below 1")


def get(kind: str | Mapping[str, Any]) -> Operator:
    """The operator of a name, or of a configuration `{"kind": name, argument: value, ...}`.

    Raises UsageError for an unknown kind (with the nearest names) or a wrong argument.
    """
    return OPERATORS.build({"kind": kind} if isinstance(kind, str) else kind)  # type: ignore[no-any-return]
