"""All a model can be told, by input name, as one condition with its null."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.texts import with_article
from fromnoise.encoders.base import ENCODERS, Coder, Encoder
from fromnoise.layers.condition import Condition, merge, where

_APART = 1 << 62
"""Seeds with this bit turned give noise of their own, which no sampler draws."""

Encoded = dict[tuple[Encoder, str, Any, int], Condition]
"""What encoders made of texts, and of nothing (None), by name and for so many samples."""


class Conditioning(nn.Module):
    """Named encoders, `{"label": Label(10)}`: named raw inputs → one merged condition.

    Raises UsageError for encoders whose tokens have different widths.
    """

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        widths = {name: e.width for name, e in encoders.items() if e.slot == "tokens"}
        if len(set(widths.values())) > 1:
            listed = ", ".join(f"{name} ({width})" for name, width in widths.items())
            raise UsageError(
                f"tokens of one model have one width, and these differ: {listed}; "
                "give an encoder's width"
            )

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

    def droppable(self, name: str) -> bool:
        """Whether training may leave this input out, so that guidance can move away from none."""
        return name in self.encoders and self._encoder(name).droppable

    def forward(
        self,
        raw: Mapping[str, Any],
        batch: int,
        space: Sequence[int] | None = None,
        keep: Mapping[str, Tensor] | None = None,
        against: Collection[str] = (),
        alone: bool = False,
        encoded: Encoded | None = None,
    ) -> Condition:
        """One condition for `batch` samples, its null attached; an input left out is null.

        space: the spatial sizes of a sample, which channels are brought to. keep: of which samples
        an input is told, (B,) by name; the others are told its null. Inputs that are not
        `droppable` are told of all samples, and the null is told them too. against: inputs that are
        told as the null is told them, where they are not droppable. alone: without its null, for
        who has another to move away from. encoded: what was made already, which is added to.
        Raises UsageError for an input the model does not take, ShapeError when a mask does not
        speak of the same number of samples.
        """
        self.check(raw)
        given = {name: value for name, value in raw.items() if value is not None}
        told_all = given.keys() - (keep or {}).keys() if alone else ()
        nothing = {
            name: self._nothing(name, batch, encoded)
            for name in self.encoders
            if name not in told_all
        }
        parts: dict[str, Condition] = {}
        for name in self.encoders:
            if name in given:
                told = self._told(name, given[name], batch, space, encoded)
            else:
                told = nothing[name]
            if not self.droppable(name):
                nothing[name] = self._encoder(name).opposite(told)
                told = nothing[name] if name in against else told
            elif keep is not None and name in keep:
                told = _dropped(told, nothing[name], keep[name])
            parts[name] = told
        null = None if alone else merge(*nothing.values())
        return replace(merge(*parts.values()), null=null)

    def ready(
        self,
        raw: Mapping[str, Any],
        seeds: Sequence[int],
        space: Sequence[int],
        coder: Coder | None = None,
    ) -> dict[str, Any]:
        """Inputs as people give them, ready for samples with these seeds.

        Pictures and paths are opened, what is told as latents goes through `coder`, and what an
        input leaves to chance is drawn from the seeds. Raises UsageError for an input that is
        missing and must be there.
        """
        self.check(raw)
        given = {name: value for name, value in raw.items() if value is not None}
        opened = {name: self._encoder(name).opened(v, space) for name, v in given.items()}
        shaped = {
            name: self._encoder(name).shaped(name, opened.get(name), space, coder)
            for name in self.encoders
        }
        return self.drawn(shaped, Noise([seed ^ _APART for seed in seeds]))

    def each(self, raw: Mapping[str, Any], batch: int) -> dict[str, Any]:
        """The raw inputs, every list in them one with an entry for each sample (`Encoder.each`)."""
        given = {name: value for name, value in raw.items() if value is not None}
        return {name: self._encoder(name).each(value, batch) for name, value in given.items()}

    def tokens(self, prompt: str) -> dict[str, tuple[int, ...]]:
        """How many tokens each chunk of a prompt has, by the encoders that read prompts."""
        counted = {name: self._encoder(name).count(prompt) for name in self.encoders}
        return {name: counts for name, counts in counted.items() if counts}

    def schedule(self, name: str, raw: Any, steps: int) -> Sequence[tuple[int, Any]]:
        """One input over a run: (until and with this step, counted from 1; input)."""
        return self._encoder(name).schedule(raw, steps)

    def sides(self, name: str, raw: Any) -> tuple[int, int] | None:
        """Height and width of what is diffused that an input asks for; None where any will do."""
        return None if raw is None else self._encoder(name).sides(raw)

    def drawn(
        self, raw: Mapping[str, Any], noise: Noise, x: Tensor | None = None
    ) -> dict[str, Any]:
        """The raw inputs with what they leave to chance drawn; x (B, ...) only in training."""
        made = {name: self._encoder(name).drawn(raw.get(name), noise, x) for name in self.encoders}
        return {name: value for name, value in made.items() if value is not None}

    def null(self, batch: int) -> Condition:
        """What `batch` samples are told when they are told nothing."""
        return merge(*[self._encoder(name).null(name, batch) for name in self.encoders])

    def check(self, names: Iterable[str]) -> None:
        """Raise UsageError for an input the model does not take."""
        for name in names:
            if name not in self.encoders:
                takes = ", ".join(self.names) or "nothing"
                raise UsageError(f"this model is not told {with_article(name)}; it takes {takes}")

    def _told(
        self,
        name: str,
        raw: Any,
        batch: int,
        space: Sequence[int] | None,
        encoded: Encoded | None,
    ) -> Condition:
        encoder = self._encoder(name)
        text = _text(raw)
        kept = None if text is None else encoded
        told = _once(kept, (encoder, name, text, batch), lambda: encoder.encode(name, raw, batch))
        return told if space is None else encoder.fitted(told, space)

    def _nothing(self, name: str, batch: int, encoded: Encoded | None) -> Condition:
        encoder = self._encoder(name)
        return _once(encoded, (encoder, name, None, batch), lambda: encoder.null(name, batch))

    def _encoder(self, name: str) -> Encoder:
        return cast(Encoder, self.encoders[name])


def _once(
    encoded: Encoded | None, key: tuple[Encoder, str, Any, int], make: Callable[[], Condition]
) -> Condition:
    """What was made under a key, or is now; nothing is kept without `encoded`."""
    if encoded is None:
        return make()
    if key not in encoded:
        encoded[key] = make()
    return encoded[key]


def _text(raw: Any) -> str | tuple[str, ...] | None:
    """A text, or one for each sample, as it can be looked up; None for any other input."""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list | tuple) and raw and all(isinstance(one, str) for one in raw):
        return tuple(raw)
    return None


def _dropped(told: Condition, null: Condition, keep: Tensor) -> Condition:
    """The condition with the null in its place where `keep` (B,) is false."""
    if keep.shape != (told.batch,):
        raise ShapeError(f"a mask {tuple(keep.shape)} for {told.batch} samples; use (B,)")
    return where(keep, told, null)
