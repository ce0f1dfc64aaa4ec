"""Which samples of a batch are not told which of their inputs."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.encoders import Conditioning

ALL = "all"
"""The name under which the share of samples stands that are told nothing at all."""

Shares = float | Mapping[str, float]


class Dropout:
    """Shares of samples that are told nothing, or not told one of their inputs.

    A number is the share told nothing of all that may be dropped (Ho & Salimans 2022, algorithm 1).
    A mapping has that share under "all", and under the name of an input the share of the others
    that is not told it, each input by itself: input k is told to (1 − p_all)·(1 − p_k) of the
    samples. So a network learns what several inputs say together, each alone and none.

    Raises UsageError for a share outside [0, 1], a name the network is not told of, and an input
    that is never dropped.
    """

    def __init__(self, shares: Shares, conditioning: Conditioning) -> None:
        named = dict(shares) if isinstance(shares, Mapping) else {ALL: shares}
        for name, share in named.items():
            if not 0.0 <= share <= 1.0:
                raise UsageError(f"condition_dropout of {name} is {share}; use a share from 0 to 1")
        self.together = named.pop(ALL, 0.0)
        dropped = [name for name in conditioning.names if conditioning.droppable(name)]
        for name in named:
            if name not in dropped:
                takes = ", ".join([*dropped, ALL])
                raise UsageError(f"condition_dropout names {name!r}; what can be dropped: {takes}")
        self.apart = {name: named[name] for name in dropped if name in named}

    def keep(self, names: tuple[str, ...], chance: Tensor, noise: Noise) -> dict[str, Tensor]:
        """Of which samples each input is told, (B,) by name.

        chance: a number on [0, 1) for each sample, (B,), that decides about all inputs together.
        noise: draws the others, and nothing where there are none.
        """
        told = chance >= self.together
        kept = dict.fromkeys(names, told)
        if self.apart:
            chances = noise.uniform(torch.empty(len(chance), len(self.apart)))
            for column, (name, share) in enumerate(self.apart.items()):
                kept[name] = told & (chances[:, column] >= share)
        return kept
