"""A film strip of sampling: what x looks like, and what the model believes, step by step."""

from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from fromnoise.core.errors import UsageError
from fromnoise.model import scatter, sheet
from fromnoise.samplers import Step


def film(
    steps: Iterator[Step], decode: Callable[[Tensor], Tensor], frames: int = 10, rows: int = 4
) -> Image.Image:
    """One picture of a whole run: up to `frames` steps across, a pair of rows for each sample.

    The upper row of each pair is x_t, the lower the belief x0 at that time. Points become
    scatters, x_t above x0. steps: what `model.stream` gives; decode: `model.decode`.
    """
    taken = list(steps)
    if not taken:
        raise UsageError("a film needs at least one step")
    spread = torch.linspace(0, len(taken) - 1, min(frames, len(taken)))
    chosen = [taken[int(i)] for i in spread.round()]
    pairs = [(decode(step.x), decode(step.x0)) for step in chosen]
    if pairs[0][0].ndim == 2:
        return _scatters([[x for x, _ in pairs], [x0 for _, x0 in pairs]])
    count = min(rows, pairs[0][0].shape[0])
    # A second pass ends larger than the first; all are shown at the size of the end.
    size = pairs[-1][0].shape[-2:]
    pairs = [(_sized(x, size), _sized(x0, size)) for x, x0 in pairs]
    cells = []
    for row in range(count):
        cells += [x[row] for x, _ in pairs]
        cells += [x0[row] for _, x0 in pairs]
    return sheet(torch.stack(cells).clamp(-1, 1), columns=len(chosen))


def _sized(pictures: Tensor, size: torch.Size) -> Tensor:
    return pictures if pictures.shape[-2:] == size else interpolate(pictures, tuple(size))


def _scatters(rows: list[list[Tensor]]) -> Image.Image:
    size = 200
    strip = Image.new("L", (size * len(rows[0]), size * len(rows)), 255)
    for down, row in enumerate(rows):
        for across, points in enumerate(row):
            picture = scatter(points.double().cpu().numpy(), size)
            strip.paste(picture, (across * size, down * size))
    return strip
