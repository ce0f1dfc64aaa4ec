"""The running average of the weights that a model is sampled with."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fromnoise.core.errors import FileError
from fromnoise.training.power_ema import PowerEMA


class EMA:
    """shadow ← shadow + (1 − d)·(weights − shadow) after each step, in float32.

    The decay warms up as d_n = min(decay, (1 + n)/(10 + n)) at step n = 1, 2, …, so that the first
    weights are soon forgotten. With decay 0 the average is the weights. Weights in a lower
    precision are averaged in float32; float64 ones in float64.

    post_hoc: relative widths of power-function averages that are tracked beside it, in `power`.
    """

    def __init__(self, module: nn.Module, decay: float, post_hoc: Sequence[float] = ()) -> None:
        self.decay = decay
        self.power = PowerEMA(module, post_hoc)
        self._weights = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.shadow = {n: _precise(p.detach()).clone() for n, p in self._weights.items()}

    def decay_at(self, step: int) -> float:
        """The decay of step n, 1 for the first."""
        return min(self.decay, (1.0 + step) / (10.0 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step n."""
        self.power.update(step)
        if not self.shadow:
            return
        values = [_precise(p.detach()) for p in self._weights.values()]
        torch._foreach_lerp_(list(self.shadow.values()), values, 1.0 - self.decay_at(step))

    @contextmanager
    def swap(self) -> Iterator[None]:
        """The average in the place of the weights; on leaving the weights are back, bit for bit."""
        kept = {n: p.detach().clone() for n, p in self._weights.items()}
        self._copy(self.shadow)
        try:
            yield
        finally:
            self._copy(kept)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Take over a saved average. FileError when it is not of these weights."""
        if shadow.keys() != self.shadow.keys():
            odd = sorted(shadow.keys() ^ self.shadow.keys())[0]
            raise FileError(f"the averaged weights do not belong to this model: {odd!r}")
        for name, value in shadow.items():
            if value.shape != self.shadow[name].shape:
                raise FileError(f"the averaged weight {name!r} has shape {tuple(value.shape)}")
            self.shadow[name].copy_(value)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._weights.items():
            parameter.copy_(values[name])


def _precise(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.float()
