"""Which sizes of pictures a model draws, and what to say of those it does not."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fromnoise.core.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from fromnoise.model.model import Model

Shape = tuple[int, ...]


def unit(model: "Model") -> int:
    """What both sides of a picture are multiples of: the codec's factor times the network's."""
    return model.codec.factor * model.denoiser.net.divisor


def checked_shape(model: "Model", shape: Shape) -> Shape:
    """The shape of a sample, (C, H, W) or (D,), which the model can draw.

    Raises ShapeError naming the nearest sizes for a side that is no multiple of `unit`, and for
    every other size where the network takes one only.
    """
    if len(shape) != len(model.shape) or shape[0] != model.shape[0]:
        raise ShapeError(f"{model.card.name} draws samples of shape {model.shape}, not {shape}")
    if len(shape) != 3 or shape == model.shape:
        return shape
    if model.denoiser.net.only is not None:
        _, height, width = model.shape
        raise ShapeError(
            f"{model.card.name} draws pictures of {width} by {height} only, not {shape[2]} by "
            f"{shape[1]}"
        )
    step = unit(model)
    for name, side in (("height", shape[1]), ("width", shape[2])):
        if side < 1 or side % step:
            low, high = side // step * step, -(-side // step) * step
            near = f"{low} and {high}" if low > 0 else f"{high}"
            raise ShapeError(
                f"{name} {side} is not a multiple of {step}, which this model needs; the nearest "
                f"{'are' if low > 0 else 'is'} {near}"
            )
    return shape


def shape_for(model: "Model", width: int, height: int) -> Shape:
    """The shape nearest to a picture's: its aspect, the model's own area, sides it can draw."""
    if model.denoiser.net.only is not None:
        return model.shape
    channels, own_height, own_width = model.shape
    step = unit(model)
    scale = math.sqrt(own_height * own_width / (height * width))
    sides = (max(step, round(side * scale / step) * step) for side in (height, width))
    return (channels, *sides)


def asked_by(model: "Model", inputs: Mapping[str, Any] | None) -> Shape | None:
    """The shape that one of the inputs asks for, as near as the model can draw; None for its own.

    A picture that is enlarged is not stretched, and none of it is lost first.
    """
    # Names that are none are said later, with all else that is told.
    known = {name: raw for name, raw in (inputs or {}).items() if name in model.conditioning.names}
    asked = (model.conditioning.sides(name, raw) for name, raw in known.items())
    latent = next((sides for sides in asked if sides is not None), None)
    if latent is None or model.denoiser.net.only is not None:
        return None
    divisor = model.denoiser.net.divisor
    sides = (max(divisor, round(side / divisor) * divisor) for side in latent)
    return (model.shape[0], *(model.codec.factor * side for side in sides))


def enlarged(model: "Model", shape: Shape, scale: float) -> Shape:
    """The shape `scale` times as large on each side, rounded down to sizes the model can draw.

    Raises UsageError where the model draws one size only, or no larger one comes out.
    """
    if len(shape) != 3 or model.denoiser.net.only is not None:
        raise UsageError(
            f"{model.card.name} draws samples of shape {model.shape} only, so there is no larger "
            "second pass; leave out hires"
        )
    step = unit(model)
    sides = tuple(int(side * scale) // step * step for side in shape[1:])
    if sides == shape[1:]:
        raise UsageError(
            f"hires {scale:g} of {shape[2]} by {shape[1]} is no larger in steps of {step}; use "
            f"{1 + step / max(shape[1:]):.4g} or more"
        )
    return (shape[0], *sides)
