"""Which parameters are trained: parts of a model by name, the rest frozen."""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from fromnoise.core.errors import UsageError

_PREFIX = "denoiser.net."
_SHOWN = 24


def train_only(module: nn.Module, patterns: str) -> list[str]:
    """Freeze every parameter of `module` that no pattern names; return the names that are trained.

    A frozen parameter gets no gradient, no optimizer state and no average: it stays bit for bit.
    One that was frozen before stays frozen.

    patterns: names with * for anything, several with commas: "up.*, middle.*". Parameters of the
    network go by their own names ("up.0.blocks.0.conv1.weight"), others by their full ones
    ("conditioning.…"). "*" is everything.
    Raises UsageError, naming the parts there are, for a pattern that names nothing.
    """
    wanted = [pattern.strip() for pattern in patterns.split(",") if pattern.strip()]
    known = {_short(name): parameter for name, parameter in module.named_parameters()}
    free = {name: parameter for name, parameter in known.items() if parameter.requires_grad}
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in free):
            raise UsageError(
                f"no parameter is named {pattern!r}; the parts are {_listed(parts(free))}"
            )
    if not wanted:
        raise UsageError(f"no parts are named; the parts are {_listed(parts(free))}, or * for all")
    for name, parameter in free.items():
        if not any(fnmatchcase(name, pattern) for pattern in wanted):
            parameter.requires_grad_(False)
    return [name for name, parameter in known.items() if parameter.requires_grad]


def parts(names: Iterable[str]) -> list[str]:
    """The patterns of the parts that parameters belong to, in order: "enter.*", "down.0.*", …

    A part is a first name, with the number after it where there is one.
    """
    found: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        depth = 2 if len(words) > 2 and words[1].isdigit() else 1
        found[".".join(words[:depth]) + (".*" if len(words) > depth else "")] = None
    return list(found)


def _short(name: str) -> str:
    return name.removeprefix(_PREFIX)


def _listed(names: list[str]) -> str:
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
