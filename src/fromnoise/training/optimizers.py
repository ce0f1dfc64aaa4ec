"""Optimizers, the learning rate as a function of the step, and gradient clipping."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fromnoise.core.errors import FileError, UsageError
from fromnoise.training.settings import Choice, TrainSettings
from fromnoise.training.update_rules import OPTIMIZERS, AdamW, Maker

__all__ = ["OPTIMIZERS", "AdamW", "Maker", "Optimization", "learning_rate", "maker_of"]

Named = list[tuple[str, nn.Parameter]]


def maker_of(choice: Choice) -> Maker:
    """The update rule a setting names. UsageError offers the nearest names."""
    made: Maker = OPTIMIZERS.build({"kind": choice} if isinstance(choice, str) else choice)
    return made


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
    """One optimizer for each group of parameters, or two where its rule leaves some to another."""

    def __init__(
        self, groups: Mapping[str, list[tuple[str, nn.Parameter]]], settings: TrainSettings
    ) -> None:
        maker = maker_of(settings.optimizer)
        self.settings = settings
        self.parameters = {group: [p for _, p in named] for group, named in groups.items()}
        for group, parameters in self.parameters.items():
            if not parameters:
                raise UsageError(f"nothing is left to train in {group!r}; name more --train.parts")
        self._parts = {
            group: _parts(maker, named, settings.weight_decay) for group, named in groups.items()
        }

    def zero(self) -> None:
        """Forget all gradients."""
        for parameters in self.parameters.values():
            for parameter in parameters:
                parameter.grad = None

    def norm(self, group: str) -> Tensor:
        """The norm of a group's gradient."""
        gradients = [p.grad for p in self.parameters[group] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def step(self, group: str, norm: Tensor, rate: float) -> None:
        """Clip the gradient of a group whose norm is known, and step it."""
        if self.settings.clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters[group], self.settings.clip, norm)
        for part in self._parts[group]:
            part.step(rate)

    def state(self) -> dict[str, Tensor]:
        """All that the optimizers remember, as tensors named group/parameter/quantity."""
        return {
            f"{group}/{name}": value
            for group, parts in self._parts.items()
            for part in parts
            for name, value in part.remembered()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a saved state. FileError when it is not of these parameters."""
        left = dict(tensors)
        for group, parts in self._parts.items():
            for part in parts:
                part.load(left, f"{group}/")
        if left:
            raise FileError(f"optimizer state {sorted(left)[0]!r} belongs to no parameter")


@dataclass(frozen=True)
class _Part:
    """An optimizer and its parameters, matrices first: the order in which it counts them.

    handles: what it is given in their place, the same memory seen as a matrix where it wants that.
    """

    maker: Maker
    optimizer: torch.optim.Optimizer
    named: Named
    handles: list[nn.Parameter]

    def step(self, rate: float) -> None:
        for part in self.optimizer.param_groups:
            part["lr"] = rate
        for (_, parameter), handle in self._seen_otherwise():
            # Anew each time: moving a module to another device gives its parameters other memory.
            handle.data = parameter.data.view(len(parameter), -1)
            handle.grad = None if parameter.grad is None else parameter.grad.reshape(handle.shape)
        self.optimizer.step()
        for _, handle in self._seen_otherwise():
            handle.grad = None

    def remembered(self) -> Iterator[tuple[str, Tensor]]:
        for (name, _), handle in zip(self.named, self.handles, strict=True):
            for key, value in self.optimizer.state.get(handle, {}).items():
                yield f"{name}/{key}", torch.as_tensor(value)

    def load(self, left: dict[str, Tensor], group: str) -> None:
        """Take what belongs to this part out of `left`."""
        state: dict[int, dict[str, Tensor]] = {}
        for index, ((name, _), handle) in enumerate(zip(self.named, self.handles, strict=True)):
            prefix = f"{group}{name}/"
            own = {k.removeprefix(prefix): left.pop(k) for k in list(left) if k.startswith(prefix)}
            if own:
                _check(own, self.maker.quantities(tuple(handle.shape)), prefix)
                state[index] = own
        current = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**current, "state": state})

    def _seen_otherwise(self) -> Iterator[tuple[tuple[str, nn.Parameter], nn.Parameter]]:
        for pair, handle in zip(self.named, self.handles, strict=True):
            if handle is not pair[1]:
                yield pair, handle


def _check(own: Mapping[str, Tensor], wanted: Mapping[str, Sequence[int]], prefix: str) -> None:
    for key in sorted(own.keys() | wanted.keys()):
        if key not in own:
            raise FileError(f"optimizer state {prefix}{key} is missing")
        if key not in wanted:
            raise FileError(f"optimizer state {prefix}{key} is of another optimizer")
        if tuple(own[key].shape) != tuple(wanted[key]):
            raise FileError(f"optimizer state {prefix}{key} has another shape")


def _parts(maker: Maker, named: Named, decay: float) -> list[_Part]:
    taken = [(n, p) for n, p in named if maker.takes(n, tuple(p.shape))]
    others = [(n, p) for n, p in named if not maker.takes(n, tuple(p.shape))]
    pairs = [(maker, taken), (maker.rest(), others)]
    return [_part(rule, share, decay) for rule, share in pairs if share]


def _part(maker: Maker, named: Named, decay: float) -> _Part:
    ordered = [*[x for x in named if x[1].ndim > 1], *[x for x in named if x[1].ndim <= 1]]
    handles = [_matrix(p) if maker.flat and p.ndim > 2 else p for _, p in ordered]
    # Biases and gains have no scale to decay towards.
    matrices = [p for p in handles if p.ndim > 1]
    vectors = [p for p in handles if p.ndim <= 1]
    groups = [(matrices, decay), (vectors, 0.0)]
    made = maker.make([{"params": ps, "weight_decay": wd} for ps, wd in groups if ps])
    return _Part(maker, made, ordered, handles)


def _matrix(parameter: nn.Parameter) -> nn.Parameter:
    """The same memory as (out, everything else)."""
    return nn.Parameter(parameter.data.view(len(parameter), -1))
