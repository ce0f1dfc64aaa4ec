"""The variational autoencoder: noise to a picture, and what noise a picture may have come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fromnoise.core.densities import discretised_log_likelihood, normal_kl, normal_log_density
from fromnoise.core.tensors import flat_sum
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts
from fromnoise.nets.generator import NOTHING, Generator, Stack

LEAST = -6.0
"""The least logarithm of a standard deviation: far under any level, and still a density."""


class Posterior(NamedTuple):
    """q(ε|x) = N(mean, e^(2·log_std)) of rows of noise (B, K), each number for itself."""

    mean: Tensor
    log_std: Tensor

    @classmethod
    def of(cls, row: Tensor) -> "Posterior":
        """From an encoder's answer (B, 2K)."""
        mean, log_std = row.chunk(2, dim=1)
        return cls(mean, log_std.clamp(LEAST, 4.0))

    def draw(self, noise: Tensor) -> Tensor:
        """ε = mean + e^log_std·noise (Kingma & Welling 2014, section 2.4)."""
        return self.mean + torch.exp(self.log_std) * noise

    def kl(self) -> Tensor:
        """KL(q(ε|x) ‖ N(0, 1)) (B,), in nats."""
        return normal_kl(self.mean, 2.0 * self.log_std, 0.0, 0.0).sum(1)

    def log_ratio(self, drawn: Tensor) -> Tensor:
        """log q(ε|x) − log N(ε; 0, 1) (B,) at drawn ε: on average the divergence."""
        eps, one = drawn.double(), torch.ones((), dtype=torch.float64)
        q = normal_log_density(eps, self.mean.double(), torch.exp(2.0 * self.log_std.double()))
        return (q - normal_log_density(eps, torch.zeros_like(one), one)).sum(1)


class Output(NamedTuple):
    """p(x|ε) = N(mean, e^(2·log_std)) for each number of a sample (B, *shape)."""

    mean: Tensor
    log_std: Tensor

    def log_prob(self, x: Tensor, levels: int | None = None) -> Tensor:
        """log p(x|ε) (B,) in nats, float64: a density, or with `levels` their probability."""
        x, mean, log_std = x.double(), self.mean.double(), self.log_std.double()
        if levels is None:
            return flat_sum(normal_log_density(x, mean, torch.exp(2.0 * log_std)))
        return flat_sum(discretised_log_likelihood(x, mean, log_std, levels))


@dataclass(frozen=True)
class Passage:
    """A picture taken to noise and back: what is believed of it, and what that cost.

    noise: the drawn ε (B, *shape). output: p(x|ε) at it. kl: of each group of the noise, the
    first decided first, (B,) in nats. log_ratio: log q(ε|x) − log p(ε) at ε, (B,) in nats.
    """

    noise: Tensor
    output: Output
    kl: tuple[Tensor, ...]
    log_ratio: Tensor


class Autoencoder(Generator, ABC):
    """A generator that also says where a picture came from, so that its likelihood is bounded."""

    @abstractmethod
    def through(self, x: Tensor, noise: Tensor, condition: Condition) -> Passage:
        """Samples x through the noise drawn with `noise` (B, *shape), standard normal."""

    @abstractmethod
    def output(self, noise: Tensor, condition: Condition) -> Output:
        """p(x|ε) at noise ε (B, *shape)."""

    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        """The mean of p(x|ε)."""
        return self.output(noise, condition).mean

    def passage(self, x: Tensor, noise: Tensor, condition: Condition | None) -> Passage:
        """`through`, its input checked as `forward` checks it."""
        told = Condition() if condition is None else condition
        self._check_x(x, x.new_ones(len(x)))
        self._check_slots(told)
        return self.through(x, noise, told)

    def _output(self, row: Tensor) -> Output:
        mean, log_std = row.chunk(2, dim=1)
        return Output(self.picture(mean), self.picture(log_std.clamp(LEAST, 2.0)))


class VAE(Autoencoder):
    """ε ~ N(0, 1), x ~ N(m(ε), s²(ε)); q(ε|x) a Gaussian, all by fully connected residual blocks.

    −log p(x) ≤ E_q[−log p(x|ε)] + KL(q(ε|x) ‖ N(0, 1)). There is as much noise as data, so that
    it is drawn as for a diffusion model; what the data does not need stays noise.

    shape: of a sample. width, depth: of encoder and decoder. dropout: probability in [0, 1).
    accepts: vectors both are told. Raises UsageError for what cannot be.
    Reference: Kingma & Welling 2014, "Auto-Encoding Variational Bayes".
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        accepts: Accepts = NOTHING,
    ) -> None:
        super().__init__(shape, width, depth, accepts)
        sizes = (self.numbers, 2 * self.numbers, width, depth, accepts, dropout)
        self.encoder, self.decoder = Stack(*sizes), Stack(*sizes)

    def through(self, x: Tensor, noise: Tensor, condition: Condition) -> Passage:
        posterior = self.posterior(x, condition)
        rows = posterior.draw(self.flat(noise))
        eps = self.picture(rows)
        output = self.output(eps, condition)
        return Passage(eps, output, (posterior.kl(),), posterior.log_ratio(rows))

    def posterior(self, x: Tensor, condition: Condition) -> Posterior:
        """q(ε|x) of samples x (B, *shape)."""
        return Posterior.of(self.encoder(self.flat(x), self.vectors(len(x), condition)))

    def output(self, noise: Tensor, condition: Condition) -> Output:
        return self._output(self.decoder(self.flat(noise), self.vectors(noise.shape[0], condition)))
