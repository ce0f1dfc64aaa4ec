"""The hierarchical variational autoencoder: noise that decides, and noise that fills in."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts
from fromnoise.nets.generator import NOTHING, Stack
from fromnoise.nets.vae import Autoencoder, Output, Passage, Posterior

Choose = Callable[[int, Tensor], Tensor]
"""(the group, what is decided so far (B, width)) → the group's noise (B, size)."""


class HVAE(Autoencoder):
    """The noise in groups, each with a prior learned of those before: z₂ = μ(z₁) + σ(z₁)·ε₂.

    The posterior is found bottom-up and top-down at once: features of the picture, and what is
    decided so far, tell where in its prior each group lies. Told relative to the prior, as
    q(ε₂|x, z₁), its divergence is that of two Gaussians one of which is standard.

    shape: of a sample. groups: how many of its numbers each group has, the deciding first.
    width, depth: of every part. dropout: probability in [0, 1). accepts: vectors all are told.
    Raises UsageError for groups that are not all the numbers.
    Reference: Sønderby et al. 2016, "Ladder Variational Autoencoders"; Vahdat & Kautz 2020,
    "NVAE" (the posterior relative to the prior, section 3.2).
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        groups: Sequence[int] = (16, 48),
        width: int = 256,
        depth: int = 1,
        dropout: float = 0.0,
        accepts: Accepts = NOTHING,
    ) -> None:
        super().__init__(shape, width, depth, accepts)
        if sum(groups) != self.numbers or min(groups, default=0) < 1:
            raise UsageError(
                f"groups {tuple(groups)} do not share out the {self.numbers} numbers of a sample"
            )
        self.groups = tuple(groups)

        def stack(ins: int, outs: int) -> Stack:
            return Stack(ins, outs, width, depth, accepts, dropout)

        self.up = stack(self.numbers, width)
        self.posteriors = nn.ModuleList(stack(2 * width, 2 * n) for n in self.groups)
        self.priors = nn.ModuleList(stack(width, 2 * n) for n in self.groups)
        self.down = nn.ModuleList(stack(width + n, width) for n in self.groups)
        self.leave = stack(width, 2 * self.numbers)

    def through(self, x: Tensor, noise: Tensor, condition: Condition) -> Passage:
        vectors = self.vectors(len(x), condition)
        seen = self.up(self.flat(x), vectors)
        parts = self._parts(noise)
        drawn, kl, ratios = [], [], []

        def choose(group: int, decided: Tensor) -> Tensor:
            both = torch.cat([seen, decided], dim=1)
            posterior = Posterior.of(self.posteriors[group](both, vectors))
            eps = posterior.draw(parts[group])
            drawn.append(eps)
            kl.append(posterior.kl())
            ratios.append(posterior.log_ratio(eps))
            return eps

        output = self._descend(len(x), choose, vectors)
        noise = self.picture(torch.cat(drawn, dim=1))
        return Passage(noise, output, tuple(kl), torch.stack(ratios).sum(0))

    def output(self, noise: Tensor, condition: Condition) -> Output:
        parts = self._parts(noise)
        vectors = self.vectors(noise.shape[0], condition)
        return self._descend(noise.shape[0], lambda group, _: parts[group], vectors)

    def _parts(self, noise: Tensor) -> list[Tensor]:
        ends = [sum(self.groups[: i + 1]) for i in range(len(self.groups) - 1)]
        return list(torch.tensor_split(self.flat(noise), ends, dim=1))

    def _descend(self, batch: int, choose: Choose, vectors: dict[str, Tensor]) -> Output:
        """Decide group after group, then the picture: the same way for samples and for data."""
        weight = next(self.parameters())
        decided = weight.new_zeros(batch, self.width)
        for group in range(len(self.groups)):
            mean, log_std = self.priors[group](decided, vectors).chunk(2, dim=1)
            z = mean + torch.exp(log_std.clamp(-4.0, 4.0)) * choose(group, decided)
            decided = decided + self.down[group](torch.cat([decided, z], dim=1), vectors)
        return self._output(self.leave(decided, vectors))
