"""Ready-made functions to guide by: a colour, a symmetry, likeness to a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fromnoise.core.errors import ShapeError, UsageError, unknown
from fromnoise.core.images import read_image, to_tensor
from fromnoise.guidance.base import Guide
from fromnoise.guidance.loss import Loss, loss
from fromnoise.guidance.named import Load, register

Mirror = Literal["left-right", "up-down", "turn"]

_AXES: dict[Mirror, tuple[int, ...]] = {"left-right": (-1,), "up-down": (-2,), "turn": (-2, -1)}

LIMIT = 1.0
"""How far the ready-made guides asked for by a text may move a belief, in standard deviations."""


def color(wanted: str | Sequence[float]) -> Loss:
    """N/2 · Σ_channels (mean over the N pixels − wanted)²: how far a picture is from a colour.

    wanted: a name ("blue"), "#3366cc", or its red, green and blue in [−1, 1]. Only the mean is
    looked at, so the picture keeps its shapes. Raises UsageError for what is no colour.
    """
    target = torch.tensor(_rgb(wanted) if isinstance(wanted, str) else list(wanted))
    if target.shape != (3,) or not bool(torch.isfinite(target).all()):
        raise UsageError(f"a colour is a name, #rrggbb, or three numbers, not {wanted!r}")

    def measure(x0: Tensor) -> Tensor:
        if x0.ndim != 4 or x0.shape[1] != 3:
            raise ShapeError(
                f"a colour is of pictures with 3 channels; this model draws {tuple(x0.shape[1:])}"
            )
        gap = x0.mean(dim=(2, 3)) - target.to(x0)
        return 0.5 * x0[0, 0].numel() * gap.square().sum(dim=1)

    return measure


def symmetry(mirror: Mirror = "left-right") -> Loss:
    """½ · Σ (x − (x + x')/2)² with x' the mirror image: how far x is from being symmetric.

    mirror: left-right, up-down, or turn, which turns it by half. Raises UsageError for another.
    """
    if mirror not in _AXES:
        raise unknown("symmetry", mirror, get_args(Mirror))
    axes = _AXES[mirror]

    def measure(x0: Tensor) -> Tensor:
        if x0.ndim != 4:
            raise ShapeError(f"a symmetry is of pictures; this model draws {tuple(x0.shape[1:])}")
        return 0.125 * (x0 - x0.flip(axes)).square().flatten(1).sum(dim=1)

    return measure


def similar(picture: Any, cells: int | None = None) -> Loss:
    """½ · Σ (x − picture)²: how far a picture is from another one.

    picture: a path, a PIL image, or (C, H, W) in [−1, 1]; brought to the size of the samples by
    averaging. cells: compare the means over cells × cells fields only, each counted with its area;
    so the layout and its colours are kept, and details are free. None compares every pixel.
    Raises FileError for a picture that cannot be read.
    """
    if cells is not None and cells < 1:
        raise UsageError(f"{cells} cells leave nothing to compare; use 1 or more")
    if isinstance(picture, str | Path):
        picture = read_image(picture)
    wanted = picture if isinstance(picture, Tensor) else to_tensor(picture)

    def measure(x0: Tensor) -> Tensor:
        if x0.ndim != 4 or x0.shape[1] not in (1, 3):
            raise ShapeError(f"a picture to be like; this model draws {tuple(x0.shape[1:])}")
        target = _channels(wanted.to(x0), x0.shape[1])[None]
        height, width = x0.shape[-2:]
        size = (height, width) if cells is None else (cells, cells)
        gap = adaptive_avg_pool2d(x0, size) - adaptive_avg_pool2d(target, size)
        area = height * width / (size[0] * size[1])
        return 0.5 * area * gap.square().flatten(1).sum(dim=1)

    return measure


def _rgb(text: str) -> list[float]:
    """The colour a text names, in [−1, 1]."""
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise UsageError(f"{text!r} is no colour; use a name such as blue, or #3366cc") from None
    return [value / 127.5 - 1.0 for value in (red, green, blue)]


def _channels(picture: Tensor, channels: int) -> Tensor:
    """A picture (C, H, W) with one channel or three, as many as are asked for."""
    if picture.shape[0] == channels:
        return picture
    if channels == 3:
        return picture.expand(3, -1, -1)
    # Rec. 601, as PIL greys.
    weights = torch.tensor([0.299, 0.587, 0.114]).to(picture)
    return (weights[:, None, None] * picture).sum(dim=0, keepdim=True)


def _colored(values: Sequence[str], scale: float | None, load: Load) -> Guide:
    del load
    return loss(color(values[0]), 5.0 if scale is None else scale, LIMIT)


register("color:COLOR")(_colored)
register("colour:COLOR")(_colored)


@register("symmetry:MIRROR")
def _symmetric(values: Sequence[str], scale: float | None, load: Load) -> Guide:
    del load
    return loss(symmetry(values[0]), 10.0 if scale is None else scale, LIMIT)  # type: ignore[arg-type]


@register("similar:FILE")
def _similar(values: Sequence[str], scale: float | None, load: Load) -> Guide:
    del load
    return loss(similar(values[0], cells=8), 2.0 if scale is None else scale, LIMIT)
