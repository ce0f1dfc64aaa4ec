"""Clip skip: the text encoders of a model, read some layers before their last."""

import copy
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from fromnoise.core.errors import UsageError
from fromnoise.encoders import CLIPText, Conditioning

if TYPE_CHECKING:
    from fromnoise.model.model import Model

M = TypeVar("M", bound=nn.Module)


def skipping(model: "Model", clip_skip: int | None) -> Conditioning:
    """The encoders of one call. None is the model's own layers.

    clip_skip: the layer prompts are read from, counted from the last, which is 1, as
    AUTOMATIC1111's web UI counts. The weights are shared, and the model itself stays as it is.
    Raises UsageError where no CLIP reads prompts, or it has fewer layers.
    """
    if clip_skip is None:
        return model.conditioning
    towers = [part for part in model.conditioning.modules() if isinstance(part, CLIPText)]
    if not towers:
        reads = ", ".join(model.conditioning.names) or "nothing"
        raise UsageError(
            f"clip skip is of CLIP text encoders, and {model.card.name} has none; it takes {reads}"
        )
    deepest = min(one.tower.settings.depth for one in towers)
    whole = isinstance(clip_skip, int) and not isinstance(clip_skip, bool)
    if not whole or not 1 <= clip_skip <= deepest:
        raise UsageError(
            f"clip skip {clip_skip!r} is not a layer from 1, the last, to {deepest}, the first"
        )
    return _changed(model.conditioning, clip_skip - 1)


def _changed(part: M, skip: int) -> M:
    """The same module with other encoders in it; what has none in it is the very same."""
    if isinstance(part, CLIPText):
        text = copy.copy(part)
        text.skip = skip
        return text
    children = {name: _changed(child, skip) for name, child in part.named_children()}
    if all(child is part.get_submodule(name) for name, child in children.items()):
        return part
    made = copy.copy(part)
    # A shallow copy shares the table of its parts with what it is copied from.
    made.__dict__["_modules"] = {**part._modules, **children}
    return made
