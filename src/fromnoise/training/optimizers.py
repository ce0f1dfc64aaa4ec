"""Optimizers, the learning rate as a function of the step, and gradient clipping."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.config import Kinds
from fromnoise.core.errors import FileError, UsageError
from fromnoise.training.settings import TrainSettings

OPTIMIZERS = Kinds("optimizer")
"""What makes an optimizer for a list of parameter groups (`make`); see `Maker`."""


class Maker(ABC):
    """Makes an optimizer for parameter groups; the learning rate is set at each step."""

    config: dict[str, Any]

    @abstractmethod
    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer of these groups, each with `params` and `weight_decay`."""


@OPTIMIZERS.register("adamw")
class AdamW(Maker):
    """Adam with decoupled weight decay, fused (Loshchilov & Hutter 2019)."""

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        if not (0 <= beta1 < 1 and 0 <= beta2 < 1 and eps > 0):
            raise UsageError(f"betas {beta1}, {beta2} must be in [0, 1) and eps {eps} above 0")
        self.betas, self.eps = (beta1, beta2), eps

    def make(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, fused=True)


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """The rate of step 1 … total: a rise over `warmup` steps, then constant or a cosine to 0.

    rate·min(1, step/warmup)·½(1 + cos(π·(step − 1)/total)) (Loshchilov & Hutter 2017, eq. 5).
    """
    rate = settings.learning_rate
    if settings.warmup:
        rate *= min(1.0, step / settings.warmup)
    if settings.schedule == "cosine":
        rate *= 0.5 * (1.0 + math.cos(math.pi * (step - 1) / total))
    return rate


class Optimization:
    """One optimizer for each group of parameters."""

    def __init__(
        self, groups: Mapping[str, list[tuple[str, nn.Parameter]]], settings: TrainSettings
    ) -> None:
        choice = settings.optimizer
        maker: Maker = OPTIMIZERS.build({"kind": choice} if isinstance(choice, str) else choice)
        self.settings = settings
        self.names = {group: _ordered(named) for group, named in groups.items()}
        self.parameters = {group: [p for _, p in named] for group, named in self.names.items()}
        self.optimizers = {
            group: maker.make(_split(named, settings.weight_decay))
            for group, named in self.names.items()
        }

    def zero(self) -> None:
        """Forget all gradients."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def norm(self, group: str) -> Tensor:
        """The norm of a group's gradient."""
        gradients = [p.grad for p in self.parameters[group] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def step(self, group: str, norm: Tensor, rate: float) -> None:
        """Clip the gradient of a group whose norm is known, and step it."""
        if self.settings.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters[group], self.settings.clip, norm)
        optimizer = self.optimizers[group]
        for part in optimizer.param_groups:
            part["lr"] = rate
        optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """All that the optimizers remember, as tensors named group/parameter/quantity."""
        return {f"{g}/{n}/{k}": v for g, n, k, v in self._remembered()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a saved state. FileError when it is not of these parameters."""
        left = dict(tensors)
        for group, named in self.names.items():
            optimizer = self.optimizers[group]
            state: dict[int, dict[str, Tensor]] = {}
            for index, (name, parameter) in enumerate(named):
                prefix = f"{group}/{name}/"
                found = {k: left.pop(k) for k in list(left) if k.startswith(prefix)}
                own = {k.removeprefix(prefix): v for k, v in found.items()}
                for key, value in own.items():
                    if value.ndim and value.shape != parameter.shape:
                        raise FileError(f"optimizer state {prefix}{key} has another shape")
                if own:
                    state[index] = own
            current = optimizer.state_dict()
            optimizer.load_state_dict({**current, "state": state})
        if left:
            raise FileError(f"optimizer state {sorted(left)[0]!r} belongs to no parameter")

    def _remembered(self) -> Iterator[tuple[str, str, str, Tensor]]:
        for group, named in self.names.items():
            for name, parameter in named:
                for key, value in self.optimizers[group].state.get(parameter, {}).items():
                    yield group, name, key, torch.as_tensor(value)


def _ordered(named: list[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    """Matrices first: the order in which the optimizer counts them."""
    return [*[x for x in named if x[1].ndim > 1], *[x for x in named if x[1].ndim <= 1]]


def _split(named: list[tuple[str, nn.Parameter]], decay: float) -> list[dict[str, Any]]:
    # Biases and gains have no scale to decay towards.
    matrices = [p for _, p in named if p.ndim > 1]
    others = [p for _, p in named if p.ndim <= 1]
    parts = [(matrices, decay), (others, 0.0)]
    return [{"params": params, "weight_decay": wd} for params, wd in parts if params]
