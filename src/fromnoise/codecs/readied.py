"""A codec readied for drawing: its decoder by the speed path, the rest shared with the original."""

import copy

import torch
from torch import nn

from fromnoise.codecs.base import Codec
from fromnoise.codecs.convolutional import Up
from fromnoise.layers.fast import Report, prepare


def readied(codec: Codec, dtype: torch.dtype) -> tuple[Codec, Report | None]:
    """A copy that decodes in a type, and what was done to its decoder; None where it has none.

    It takes and gives what the codec does, in float32 (float64 for that type). In float32 it
    differs by rounding, less than 1e-5 relative; in bfloat16 by 1 to 2 in a hundred. Make it again
    after the weights change.
    Raises UsageError for a type that `prepare` does not know.
    """
    shared = [*codec.parameters(), *codec.buffers()]
    ready = copy.deepcopy(codec, {id(tensor): tensor for tensor in shared}).eval()
    return ready, _replace(ready, dtype)


def _replace(module: nn.Module, dtype: torch.dtype) -> Report | None:
    report = None
    for name, child in list(module.named_children()):
        if type(child) is Up:
            ready, report = prepare(child, dtype)
            setattr(module, name, ready)
        else:
            report = _replace(child, dtype) or report
    return report
