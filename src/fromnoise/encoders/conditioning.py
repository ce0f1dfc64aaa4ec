"""All a model can be told, by input name, as one condition with its null."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.encoders.base import ENCODERS, Encoder
from fromnoise.layers.condition import Condition, merge, where


class Conditioning(nn.Module):
    """Named encoders, `{"label": Label(10)}`: named raw inputs → one merged condition."""

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))

    @classmethod
    def build(cls, config: Mapping[str, Mapping[str, Any]]) -> "Conditioning":
        """From `{"label": {"kind": "label", "classes": 10}}`."""
        return cls({name: ENCODERS.build(part) for name, part in config.items()})

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """What `build` takes."""
        return {name: self._encoder(name).config for name in self.encoders}

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs the model can be given."""
        return tuple(self.encoders)

    def forward(self, raw: Mapping[str, Any], batch: int) -> Condition:
        """One condition for `batch` samples, its null attached; an input left out is null.

        Raises UsageError for an input the model does not take.
        """
        for name in raw:
            if name not in self.encoders:
                takes = ", ".join(self.names) or "nothing"
                raise UsageError(f"this model is not told a {name}; it takes {takes}")
        parts = [
            self._encoder(name).encode(name, raw[name], batch)
            if raw.get(name) is not None
            else self._encoder(name).null(name, batch)
            for name in self.encoders
        ]
        return replace(merge(*parts), null=self.null(batch))

    def null(self, batch: int) -> Condition:
        """What `batch` samples are told when they are told nothing."""
        return merge(*[self._encoder(name).null(name, batch) for name in self.encoders])

    def drop(self, condition: Condition, keep: Tensor) -> Condition:
        """The condition with the null in its place where `keep` (B,) is false.

        Vectors of encoders that are not `droppable` stay.
        Raises ShapeError when the two do not speak of the same number of samples.
        """
        if keep.shape != (condition.batch,):
            raise ShapeError(f"a mask {tuple(keep.shape)} for {condition.batch} samples; use (B,)")
        dropped = where(keep, condition, self.null(len(keep)))
        held = {
            name: condition.vector[name]
            for name in self.encoders
            if self._encoder(name).slot == "vector" and not self._encoder(name).droppable
        }
        return replace(dropped, vector={**dropped.vector, **held})

    def _encoder(self, name: str) -> Encoder:
        return cast(Encoder, self.encoders[name])
