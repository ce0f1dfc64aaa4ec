"""`torch.compile` for those who want it: the parts of a network between its attentions."""

import torch
from torch import nn

from fromnoise.core.errors import UsageError
from fromnoise.layers.attention import Attention, TokenAttention

_KINDS = 64
"""How many shapes of one block are compiled before torch gives up on it; it would after 8."""


def compile_parts(network: nn.Module) -> int:
    """Have the largest parts without attention compiled when they are first called; how many.

    Attention is left as it is, for hooks read it and its kernel is one already, and so are single
    layers, where there is nothing to join. A network of one part is compiled whole.
    Raises UsageError where `torch.compile` does not work, with the reason.
    """
    _check()
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _KINDS)
    return _compile(network)


def _compile(module: nn.Module) -> int:
    parts = list(module.modules())
    if not any(isinstance(part, Attention | TokenAttention) for part in parts):
        if len(parts) == 1:
            return 0
        # A list of modules is never called itself.
        if type(module).forward is not nn.Module.forward:
            module.compile()
            return 1
    return sum(_compile(child) for child in module.children())


def _check() -> None:
    """Compile next to nothing: what is missing is found here."""
    try:
        torch.compile(_next)(torch.zeros(2))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"torch.compile does not work here ({reason:.160}); leave out --compile"
        ) from None


def _next(x: torch.Tensor) -> torch.Tensor:
    return x + 1.0
