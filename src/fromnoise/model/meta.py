"""Copies of modules that have shapes and no memory: to learn what happens in them at no cost."""

import copy
from collections import OrderedDict
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs")


def on_meta(module: M, made: dict[int, nn.Module] | None = None) -> M:
    """The same module with its numbers on the meta device; whole ones (a vocabulary) stay.

    Weights are not touched, and hooks put on the copy are not on the original. made: copies by the
    original's identity, so that what is shared stays shared.
    """
    made = {} if made is None else made
    if id(module) in made:
        return made[id(module)]  # type: ignore[return-value]
    result = copy.copy(module)
    made[id(module)] = result
    told = result.__dict__
    for name in _HOOKS:
        told[name] = OrderedDict()
    told["_parameters"] = {
        name: None if value is None else nn.Parameter(_away(value), requires_grad=False)
        for name, value in module._parameters.items()
    }
    told["_buffers"] = {
        name: None if value is None else _away(value) for name, value in module._buffers.items()
    }
    told["_modules"] = {
        name: None if child is None else on_meta(child, made)
        for name, child in module._modules.items()
    }
    return result


def _away(value: Tensor) -> Tensor:
    return value.detach().to("meta") if value.is_floating_point() else value


def zeros(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of a shape on the meta device."""
    return torch.zeros(shape, dtype=dtype, device="meta")
