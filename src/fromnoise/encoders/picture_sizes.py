"""The sizes a picture had and is to have, as numbers the network is told."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.encoders.base import ENCODERS, Coder, Encoder, Slot, repeated
from fromnoise.layers.condition import Condition

_PAIRS = ("original", "crop", "target")


@ENCODERS.register("sizes")
class PictureSizes(Encoder):
    """Height and width as they were, top and left of the crop, height and width wanted: pixels.

    With a `score` the last pair is one number instead: how pleasing the picture is, 1 to 10; what
    guidance moves away from is told `low`. Nothing given is the sample's own size, not cropped, and
    `score`. Raw input: the numbers, for all samples or for each, or a mapping of "original",
    "crop", "target" and "score" with those that differ.

    Raises UsageError for what is no number, ShapeError for another count of them.
    Reference: Podell et al. 2023, section 2.2; the score is that of the published refiner.
    """

    slot: Slot = "vector"
    droppable = False

    def __init__(self, score: float | None = None, low: float = 2.5) -> None:
        super().__init__()
        self.score, self.low = score, low
        self.width = 6 if score is None else 5

    def shaped(self, name: str, raw: Any, space: Sequence[int], coder: Coder | None = None) -> Any:
        if raw is not None and not isinstance(raw, Mapping):
            return raw
        factor = 1 if coder is None else coder.factor
        pixels = [factor * side for side in space]
        told: dict[str, Any] = {"original": pixels, "crop": [0, 0]}
        told |= {"target": pixels} if self.score is None else {"score": self.score}
        for key, value in (raw or {}).items():
            if key not in told:
                raise UsageError(f"{name} has no {key!r}; it takes {', '.join(told)}")
            told[key] = value
        parts = [self._part(name, key, value) for key, value in told.items()]
        batch = max(len(part) for part in parts)
        for part in parts:
            if len(part) not in (1, batch):
                raise ShapeError(
                    f"{len(part)} and {batch} given in {name}; give one for each sample"
                )
        spread = [part.expand(batch, -1) for part in parts]
        return torch.cat(spread, dim=1) if batch > 1 else torch.cat(spread, dim=1)[0]

    def _part(self, name: str, key: str, value: Any) -> Tensor:
        """One pair of numbers, or the score, (1, n), or one for each sample, (B, n)."""
        count = 2 if key in _PAIRS else 1
        try:
            part = torch.as_tensor(value, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(f"the {key} of {name} is no number: {value!r:.60}") from None
        part = part[..., None] if count == 1 else part
        if part.ndim not in (1, 2) or part.shape[-1] != count:
            raise ShapeError(f"the {key} of {name} is {value!r:.60}; give height and width")
        return part[None] if part.ndim == 1 else part

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        try:
            value = torch.as_tensor(raw, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(f"{name} are {self.width} numbers, not {raw!r:.60}") from None
        value = value.expand(batch, -1) if value.ndim == 1 else value
        if value.shape != (batch, self.width):
            raise ShapeError(
                f"{name} of shape {tuple(value.shape)}; give ({self.width},) for all samples, or "
                f"({batch}, {self.width})"
            )
        if not bool(torch.isfinite(value).all()):
            raise UsageError(f"{name} holds numbers that are not finite")
        return Condition(vector={name: value})

    def opposite(self, told: Condition) -> Condition:
        if self.score is None:
            return told
        return Condition(vector={name: self._lowered(v) for name, v in told.vector.items()})

    def each(self, raw: Any, batch: int) -> Any:
        if not isinstance(raw, Mapping):
            return repeated(raw, batch, axes=1)
        return {
            key: repeated(value, batch, axes=1) if key in _PAIRS else value
            for key, value in raw.items()
        }

    def null(self, name: str, batch: int) -> Condition:
        return Condition(vector={name: torch.zeros(batch, self.width)})

    def _lowered(self, value: Tensor) -> Tensor:
        return torch.cat([value[:, :-1], torch.full_like(value[:, -1:], self.low)], dim=1)
