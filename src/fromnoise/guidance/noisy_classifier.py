"""A classifier of samples that are noisy, by whatever process: what may guide, or be measured."""

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError
from fromnoise.core.tensors import expand
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Label
from fromnoise.processes import Process


class Opened(Protocol):
    """A classifier as `fn.load` opens it: its network behind a denoiser, and a card with names."""

    denoiser: NetworkDenoiser
    card: Any


class Reading(nn.Module):
    """A network that reads samples, behind what tells it x and t: run in the type they are in."""

    def __init__(self, reader: NetworkDenoiser) -> None:
        super().__init__()
        self.reader = reader
        self._double: NetworkDenoiser | None = None

    def _in(self, dtype: torch.dtype) -> NetworkDenoiser:
        """The network in a type: float64 where samples are, so that batches agree as they do."""
        if dtype != torch.float64 or next(self.reader.parameters()).dtype == dtype:
            return self.reader
        if self._double is None:
            self._double = copy.deepcopy(self.reader).double()
        return self._double


class NoisyClassifier(Reading):
    """log p(y | x_t) up to a constant, (B, K), of samples that are noisy by any process.

    A classifier knows the noise by its σ/α alone. So x_t of another process is shown to it at its
    own time of the same σ/α, scaled to its own α: p(y | x_t) is the same, and so one classifier
    guides models of every schedule.

    reader: its network, and how that is told x and t. classes: their number, or their names.
    Raises UsageError for a network that draws, or one that knows another number of classes.
    """

    def __init__(self, reader: NetworkDenoiser, classes: int | Sequence[str]) -> None:
        super().__init__(reader)
        if reader.net.draws:
            raise UsageError(
                f"a {type(reader.net).__name__} draws and does not classify; guide by a run of "
                "the recipe digits-classifier, say"
            )
        self.label = Label(classes)
        if self.label.width != reader.net.out_channels:
            raise UsageError(
                f"this classifier knows {reader.net.out_channels} classes, not {self.label.width}"
            )

    @classmethod
    def of(cls, opened: Opened) -> "NoisyClassifier":
        """The classifier of a run that trained one, as `fn.load` opens it."""
        return cls(opened.denoiser, opened.card.classes or opened.denoiser.net.out_channels)

    def forward(self, x: Tensor, t: Tensor, process: Process | None = None) -> Tensor:
        """The log-odds (B, K) of x (B, ...) at t (B,), noisy by `process`, its own by default."""
        reader = self._in(x.dtype)
        like = next(reader.parameters())
        if process is not None and process is not self.reader.process:
            x, t = matched(x, t, process, self.reader.process)
        return reader.output(x.to(like), t.to(like.device)).to(x)


def matched(x: Tensor, t: Tensor, of: Process, to: Process) -> tuple[Tensor, Tensor]:
    """x at t of one process as another has it: (α'/α)·x at the time of the same σ/α.

    Where the other never has as much noise, at its last time, x as large as it is there. Raises
    UsageError where noise is not the same for all of a picture, or there is none.
    """
    for process in (of, to):
        if not (process.noisy and isinstance(process.levels(0.5)[0], float)):
            raise UsageError(
                "a classifier of noisy samples needs plain noise: a gaussian process, both its own "
                'and that of the model it guides; through="x0" guides every model'
            )
    other = to.schedule.time(of.schedule.log_snr(t)).clamp(0.0, 1.0)
    # α'/α where σ/α is the same, and finite where α is 0.
    own, others = (torch.hypot(*scales) for scales in (of.schedule(t), to.schedule(other)))
    return expand(others / own, x) * x, other
