"""What a launcher (`torchrun`, or our own) told this process of those it started with it."""

import os

STORE = "FROMNOISE_STORE"
"""Environment variable: a file by which the processes that we started find each other."""

LOST = 75
"""Exit code of a process that stopped because another was lost; to try again may help."""


def expected() -> int:
    """How many processes were started together, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them, 0 for the first."""
    return int(os.environ.get("RANK", "0")) if expected() > 1 else 0


def supervised() -> bool:
    """Whether it was our own launcher, which sees for itself who dies or hangs, and says so."""
    return STORE in os.environ
