"""The steps of one call as they are made, and how they show themselves in a notebook."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

from fromnoise.core.errors import UsageError
from fromnoise.core.images import png_bytes
from fromnoise.guidance import Decode
from fromnoise.model.samples import Samples, sheet
from fromnoise.samplers import Step, last

SHOWN = 64
"""The most samples a preview shows."""


class Stream(Iterator[Step]):
    """The steps of one call as they are made. `recipe` is what its samples carry.

    shapes: the shape of one sample's x after each step; where none are given, all steps are alike
    and as many as the recipe's. notes: what was chosen for want of something, for people; `sample`
    warns of it. preview: makes pictures for a look, where that is quicker than `decode`.
    `for step in stream.live():` shows each step while it runs. A stream that is the last line of
    a notebook's cell runs to its end and shows itself so.
    """

    def __init__(
        self,
        steps: Iterator[Step],
        decode: Decode,
        recipe: Mapping[str, Any],
        shapes: Sequence[tuple[int, ...]] | None = None,
        notes: Sequence[str] = (),
        preview: Decode | None = None,
    ) -> None:
        self._steps = steps
        self._decode = decode
        self.recipe = dict(recipe)
        self.notes = tuple(notes)
        self.preview = decode if preview is None else preview
        self.shapes = [()] * int(self.recipe["steps"]) if shapes is None else list(shapes)

    @property
    def count(self) -> int:
        """How many steps are made."""
        return len(self.shapes)

    @property
    def work(self) -> float:
        """What all steps cost, in steps of the first one's size."""
        return sum(prod(shape) for shape in self.shapes) / prod(self.shapes[0])

    def __next__(self) -> Step:
        return next(self._steps)

    def samples(self, steps: Iterator[Step] | None = None) -> Samples:
        """Run to the end and decode, without a word of how long it takes.

        steps: this stream's, followed by someone who sees them go by.
        """
        return Samples(self._decode(last(self if steps is None else steps)), self.recipe)

    def live(self, every: int = 1) -> Iterator[Step]:
        """The same steps, every so many of them shown in the notebook; elsewhere only the steps."""
        return live(self, self._decode, every, self.preview)

    def _ipython_display_(self) -> None:
        for _ in self.live():
            pass


def live(
    steps: Iterator[Step], decode: Decode, every: int = 1, preview: Decode | None = None
) -> Iterator[Step]:
    """Pass steps on, and in a notebook show the belief of each in one picture that changes.

    The last step shows x itself. steps: what `model.stream` or `fn.sample` gives; decode: what
    makes pictures or points of them; preview: the same of beliefs, where that may be done quicker.
    every: of how many steps one is shown; the first and the last always are. Outside a notebook
    nothing is shown. Raises UsageError for `every` below 1.
    """
    if every < 1:
        raise UsageError(f"every {every} is not a number of steps; use 1 or more")
    return _shown(steps, decode, every, decode if preview is None else preview)


def _shown(steps: Iterator[Step], decode: Decode, every: int, preview: Decode) -> Iterator[Step]:
    show = _display()
    if show is None:
        yield from steps
        return
    handle = None
    for step in steps:
        last = step.index + 1 == step.count
        if last or step.index % every == 0:
            made = decode(step.x[:SHOWN]) if last else preview(step.x0[:SHOWN])
            content = {
                "image/png": png_bytes(sheet(made)),
                "text/plain": f"step {step.index + 1} of {step.count}, t = {step.t:.4g}",
            }
            if handle is None:
                handle = show(content, raw=True, display_id=True)
            else:
                handle.update(content, raw=True)
        yield step


def _display() -> Callable[..., Any] | None:
    """IPython's `display` where pictures can be shown; None elsewhere."""
    # Who is in a notebook has imported IPython already; nobody else should pay for it.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    shown: Callable[..., Any] = display
    return shown
