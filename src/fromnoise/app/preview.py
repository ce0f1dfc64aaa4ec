"""What the pictures of a run are becoming, written beside them while it goes on."""

from pathlib import Path

from fromnoise.core.images import write_png
from fromnoise.model import Previews, sheet
from fromnoise.samplers import Step

_SHOWN = 4
_SIDE = 256


class Preview:
    """Every so many steps a small picture of the belief x0, in place of the last one.

    The first samples of a batch are shown, at most 4. A reader never finds half a file.
    """

    def __init__(self, previews: Previews, path: Path, every: int) -> None:
        self._previews, self._path, self._every = previews, path, every

    def __call__(self, step: Step) -> None:
        """Look at one step; the last one is left to the pictures themselves."""
        if (step.index + 1) % self._every or step.index + 1 == step.count or not len(step.x0):
            return
        write_png(self._path, sheet(self._previews(step.x0[:_SHOWN], _SIDE)), {})
