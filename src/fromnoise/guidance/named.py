"""Guides asked for by a text, `name:value[:scale]`, as on the command line and in recipes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fromnoise.core.errors import UsageError, unknown
from fromnoise.core.files import sha256
from fromnoise.core.texts import NUMBER
from fromnoise.guidance.base import Guide, Named

Load = Callable[[str], Any]
"""Opens a model by its path or name: what `fn.load` is. This room does not know how."""

Maker = Callable[[Sequence[str], float | None, Load], Guide]
"""(values, scale or None for the usual one, load) → guide. UsageError for what is none."""


@dataclass(frozen=True)
class Form:
    """How one kind of guide is written and made: "clip:RUN:TEXT" has two values."""

    written: str
    make: Maker

    @property
    def values(self) -> int:
        """How many values stand after the name."""
        return self.written.count(":")


GUIDES: dict[str, Form] = {}
"""Every guide that a text can ask for, by name."""


def register(written: str) -> Callable[[Maker], Maker]:
    """List a maker under the name that its written form, such as "clip:RUN:TEXT", begins with."""

    def decorate(make: Maker) -> Maker:
        GUIDES[written.partition(":")[0]] = Form(written, make)
        return make

    return decorate


def named(text: str, load: Load) -> Named:
    """The guide that a text asks for: "color:blue", "clip:runs/shapes-clip:a red circle:2".

    A number after the last value is the scale. So a value that itself ends in a colon and a
    number is only understood with its scale: "clip:RUN:at 10:30:1". load: opens models by name,
    `fn.load`. What it makes remembers its text, so that a picture drawn with it can be replayed,
    and the fingerprints of what it names, so that it can be said whether they are the same then.

    >>> named("colour:#3366cc:20", load=str).text
    'colour:#3366cc:20'

    Raises UsageError for an unknown name or a value that cannot be read.
    """
    name, _, rest = text.partition(":")
    name = name.strip()
    if name not in GUIDES:
        raise unknown("guide", name, GUIDES)
    form = GUIDES[name]
    values = [part.strip() for part in rest.split(":", form.values - 1)]
    head, colon, tail = values[-1].rpartition(":")
    scale = None
    if colon and NUMBER.fullmatch(tail.strip()):
        values[-1], scale = head.strip(), float(tail)
    if len(values) < form.values or not all(values):
        raise UsageError(f"the guide {text!r} is not complete; write {form.written}[:SCALE]")
    if scale is not None and not math.isfinite(scale):
        raise UsageError(f"the guide {text!r} has no finite scale")
    used: dict[str, str] = {}

    def opened(source: str) -> Any:
        model = load(source)
        fingerprint = getattr(model, "fingerprint", None)
        if fingerprint is not None:
            used[source] = fingerprint
        return model

    guide = form.make(values, scale, opened)
    kinds = form.written.split(":")[1:]
    used |= {v: sha256(v) for kind, v in zip(kinds, values, strict=True) if kind == "FILE"}
    return Named(text.strip(), guide, used)
