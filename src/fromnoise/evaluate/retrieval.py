"""How well pictures find their captions, and captions their pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.evaluate.intervals import Estimate, wilson
from fromnoise.evaluate.pictures import line_plot
from fromnoise.processes import Process

AMONG = (1, 5)
"""Places in the order of likeness that count as found."""

LEVELS = tuple(i / 10 for i in range(10))
"""Times of noise at which pictures are asked for their captions."""

CHUNK = 256


def ranks(near: Tensor) -> Tensor:
    """How many of row i are at least as near as its own, near[i, i], without it: (N,), 0 is first.

    A tie counts against it, so that one direction for all is never found.
    """
    if near.ndim != 2 or near.shape[0] != near.shape[1]:
        raise ShapeError(f"likeness of shape {tuple(near.shape)}; give one row for each column")
    return (near >= near.diagonal()[:, None]).sum(1) - 1


def retrieval(pictures: Tensor, texts: Tensor) -> dict[str, Estimate]:
    """The share found among the first of N, with Wilson's intervals; chance is k/N.

    text_top1, text_top5: pictures whose own text is the nearest, or among the five nearest.
    picture_top1, picture_top5: texts whose own picture is. Row i of both (N, D) belong together.
    """
    near = pictures @ texts.T
    found = {}
    for name, place in (("text", ranks(near)), ("picture", ranks(near.T))):
        for k in AMONG:
            found[f"{name}_top{k}"] = wilson(int((place < k).sum()), len(place))
    return found


@dataclass(frozen=True)
class Found:
    """What is found at one level of noise: its time, and the shares of `retrieval`."""

    t: float
    shares: Mapping[str, Estimate]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"t": self.t, **{name: share.as_json() for name, share in self.shares.items()}}


def by_noise(
    direction: Callable[[Tensor, Tensor], Tensor],
    process: Process,
    x0: Tensor,
    texts: Tensor,
    at: Sequence[float] = LEVELS,
    seed: int = 0,
) -> list[Found]:
    """`retrieval` of pictures x0 (N, ...) noisy by `process` at some times, texts (N, D).

    direction: (x_t (B, ...), t (B,)) → (B, D). A picture has the same noise at all times.
    """
    noise = Noise(seed, len(x0)).normal(x0)
    found = []
    for t in at:
        parts = []
        for first in range(0, len(x0), CHUNK):
            rows = slice(first, first + CHUNK)
            time = times(t, len(x0[rows]))
            with torch.no_grad():
                parts.append(direction(process.corrupt(x0[rows], time, noise[rows]), time))
        found.append(Found(t, retrieval(torch.cat(parts), texts)))
    return found


def noise_plot(found: Sequence[Found], chance: float) -> bytes:
    """The shares over the time of the noise as PNG bytes; `chance` is that of the first place."""
    curves = {name: [(one.t, one.shares[name].value) for one in found] for name in found[0].shares}
    curves["top1 of guessing"] = [(one.t, chance) for one in found]
    return line_plot(curves, "t (0 data, 1 noise)", "share found, held-out pictures")
