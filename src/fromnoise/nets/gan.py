"""Two networks against each other: one that makes samples, and one that tells them from data."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts
from fromnoise.nets.embed import table
from fromnoise.nets.generator import NOTHING, Flat, Generator, Stack


class GAN(Generator):
    """Noise to a sample by fully connected residual blocks; the last step is a tanh.

    shape: of a sample. width, depth: of the blocks. accepts: vectors they are told.
    Reference: Goodfellow et al. 2014, "Generative Adversarial Nets".
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        width: int = 256,
        depth: int = 3,
        accepts: Accepts = NOTHING,
    ) -> None:
        super().__init__(shape, width, depth, accepts)
        self.body = Stack(self.numbers, self.numbers, width, depth, accepts)

    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        rows = self.body(self.flat(noise), self.vectors(noise.shape[0], condition))
        return self.picture(rows.tanh())


class Discriminator(Flat):
    """How much a sample looks like data: one number, D(x, c) = w·h(x) + Σ_name v_name·(V·h(x)).

    The condition enters by its inner product with the features h (Miyato & Koyama 2018, "cGANs
    with Projection Discriminator", eq. 5); a null of zeros adds nothing. It is told no time.

    shape: of a sample. width, depth: of the leaky linear layers. accepts: vectors it is told.
    """

    draws = False

    def __init__(
        self,
        shape: Sequence[int] = (1, 8, 8),
        width: int = 256,
        depth: int = 3,
        accepts: Accepts = NOTHING,
    ) -> None:
        super().__init__(shape, width, depth, accepts)
        sizes = [self.numbers] + [width] * depth
        self.out_channels = 1
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.leave = nn.Linear(width, 1)
        self.tables = nn.ModuleDict({k: table(size, width) for k, size in accepts.vector.items()})

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        del time
        h = self.flat(x)
        for layer in self.layers:
            h = leaky_relu(layer(h), 0.2)
        answer: Tensor = self.leave(h)[:, 0]
        vectors = self.vectors(len(x), condition)
        for name, embed in self.tables.items():
            answer = answer + (embed(vectors[name].to(h.dtype)) * h).mean(1)
        return answer
