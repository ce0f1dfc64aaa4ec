"""Codebooks: a vector is replaced by the nearest of a few, which learn where vectors lie."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.config import Kinds
from fromnoise.core.errors import ShapeError, UsageError

CODEBOOKS = Kinds("codebook")
"""Every codebook a configuration file can name, by kind."""

_CHUNK = 16_384
_SMOOTHING = 1e-5


@dataclass(frozen=True)
class Quantized:
    """Vectors (B, D, h, w) replaced by codes.

    vectors: those of the codes; their gradient is handed on to what was replaced. codes: (B, h, w),
    int64. cost: of each picture (B,), what trains the vectors and what is replaced by them.
    """

    vectors: Tensor
    codes: Tensor
    cost: Tensor


@dataclass(frozen=True)
class Usage:
    """How a codebook is used. share: of codes that occur. perplexity: e^H of their frequencies,
    the number of codes that would be as varied if all were equally frequent; from 1 to size."""

    share: float
    perplexity: float


class Codebook(nn.Module, ABC):
    """K vectors of D numbers: e_k for the code k = argmin_k ‖z − e_k‖² (van den Oord et al. 2017).

    The gradient of what is made of e_k goes to z as it is ("straight through": e = z + sg(e − z)).
    How often each code is met is averaged over steps, n_k ← γ·n_k + (1 − γ)·(times in the batch);
    one whose average falls under `restart` times that of even use begins anew at a vector of the
    batch (Dhariwal et al. 2020, "Jukebox", appendix), so that no code stays dead.

    size: K. width: D. beta: weight of ‖z − sg(e)‖², by which z keeps to its code. decay: γ.
    restart: 0 lets codes die. Raises UsageError for values out of range.
    """

    config: dict[str, Any]
    vectors: Tensor
    met: Tensor

    def __init__(self, size: int, width: int, beta: float, decay: float, restart: float) -> None:
        super().__init__()
        if size < 2 or width < 1 or beta < 0 or not 0 <= decay < 1 or not 0 <= restart < 1:
            raise UsageError(
                f"a codebook has a size of 2 or more, a width of 1 or more, beta of 0 or more, and "
                f"decay and restart from 0 to below 1; got {size}, {width}, {beta}, {decay}, "
                f"{restart}"
            )
        self.size, self.width = size, width
        self.beta, self.decay, self.restart = beta, decay, restart
        self.register_buffer("met", torch.ones(size))

    def forward(self, z: Tensor) -> Quantized:
        """Replace vectors z (B, D, h, w). ShapeError for another width."""
        wide = _precise(z)
        codes = self.codes(wide)
        chosen = self.look_up(codes)
        cost = self._cost(wide, chosen).flatten(1).mean(1)
        return Quantized((wide + (chosen - wide).detach()).to(z.dtype), codes, cost)

    @abstractmethod
    def _cost(self, z: Tensor, chosen: Tensor) -> Tensor:
        """What each number of z (B, D, h, w) costs."""

    @torch.no_grad()
    def codes(self, z: Tensor) -> Tensor:
        """The code of the nearest vector, (B, h, w), for vectors (B, D, h, w)."""
        if z.ndim != 4 or z.shape[1] != self.width:
            raise ShapeError(f"this codebook takes (B, {self.width}, h, w), not {tuple(z.shape)}")
        rows = _rows(_precise(z))
        vectors = self.vectors.to(rows)
        # ‖z − e‖² less ‖z‖², which is the same for every e.
        norms = vectors.square().sum(1)
        near = [(norms - 2 * part @ vectors.T).argmin(1) for part in torch.split(rows, _CHUNK)]
        return torch.cat(near).reshape(z.shape[0], *z.shape[2:])

    def look_up(self, codes: Tensor) -> Tensor:
        """The vectors (B, D, h, w) of codes (B, h, w). UsageError for a code there is not."""
        # On the meta device there are no values to look at.
        seen = codes.numel() > 0 and not codes.is_meta
        if seen and not 0 <= int(codes.min()) <= int(codes.max()) < self.size:
            raise UsageError(f"codes go from 0 to {self.size - 1}, not {int(codes.max())}")
        found: Tensor = self.vectors[codes].movedim(-1, 1)
        return found

    @torch.no_grad()
    def start(self, z: Tensor, seed: int) -> None:
        """Begin at vectors of data z (B, D, h, w), each code at one drawn at random."""
        self._begin(torch.arange(self.size, device=z.device), _rows(_precise(z)), seed)

    @torch.no_grad()
    def seen(self, rows: Tensor, seed: int) -> None:
        """Take in the vectors (N, D) of a whole batch after a step; codes that died begin anew."""
        codes = self.codes(rows.T[None, :, :, None]).reshape(-1)
        times = torch.bincount(codes, minlength=self.size).to(self.met)
        # An even share of a batch is 1, whatever the batch.
        self.met.lerp_(times * (self.size / max(len(rows), 1)), 1.0 - self.decay)
        self._move(rows, codes)
        dead = (self.met < self.restart).nonzero().flatten()
        if len(dead):
            self._begin(dead, rows, seed)

    def _move(self, rows: Tensor, codes: Tensor) -> None:
        """Move vectors towards the rows (N, D) that were given their codes (N,)."""
        del rows, codes

    def _begin(self, codes: Tensor, rows: Tensor, seed: int) -> None:
        """Put the vectors of codes where rows lie that are drawn at random."""
        generator = torch.Generator().manual_seed(seed % 2**32)
        drawn = torch.randint(len(rows), (len(codes),), generator=generator)
        self.vectors.data[codes] = rows[drawn].to(self.vectors)
        self.met[codes] = 1.0


@CODEBOOKS.register("gradient")
class Gradient(Codebook):
    """Vectors that learn by gradient: cost ‖sg(z) − e‖² + β·‖z − sg(e)‖² (VQ-VAE, eq. 3).

    They begin uniform in ±1/size, as published ones do. Arguments as of `Codebook`.
    Reference: van den Oord, Vinyals & Kavukcuoglu 2017, "Neural Discrete Representation Learning".
    """

    def __init__(
        self,
        size: int,
        width: int,
        beta: float = 0.25,
        decay: float = 0.99,
        restart: float = 0.0,
    ) -> None:
        super().__init__(size, width, beta, decay, restart)
        self.vectors = nn.Parameter(torch.empty(size, width).uniform_(-1 / size, 1 / size))

    def _cost(self, z: Tensor, chosen: Tensor) -> Tensor:
        return (chosen - z.detach()) ** 2 + self.beta * (z - chosen.detach()) ** 2


@CODEBOOKS.register("ema")
class Averaged(Codebook):
    """Vectors that are the running mean of what was given their code: cost β·‖z − sg(e)‖².

    N_k ← γ·N_k + (1 − γ)·n_k, m_k ← γ·m_k + (1 − γ)·Σ z, e_k = m_k / N_k, with Laplace smoothing of
    N (van den Oord et al. 2017, appendix A.1). Arguments as of `Codebook`.
    """

    sums: Tensor

    def __init__(
        self,
        size: int,
        width: int,
        beta: float = 0.25,
        decay: float = 0.99,
        restart: float = 0.03,
    ) -> None:
        super().__init__(size, width, beta, decay, restart)
        self.register_buffer("vectors", torch.empty(size, width).uniform_(-1 / size, 1 / size))
        self.register_buffer("sums", self.vectors.clone())

    def _cost(self, z: Tensor, chosen: Tensor) -> Tensor:
        return self.beta * (z - chosen.detach()) ** 2

    def _move(self, rows: Tensor, codes: Tensor) -> None:
        added = torch.zeros_like(self.sums).index_add_(0, codes, rows.to(self.sums))
        self.sums.lerp_(added * (self.size / max(len(rows), 1)), 1.0 - self.decay)
        total = self.met.sum()
        counts = (self.met + _SMOOTHING) / (total + self.size * _SMOOTHING) * total
        self.vectors.copy_(self.sums / counts[:, None])

    def _begin(self, codes: Tensor, rows: Tensor, seed: int) -> None:
        super()._begin(codes, rows, seed)
        self.sums[codes] = self.vectors[codes]


def usage(codes: Tensor, size: int) -> Usage:
    """How codes (any shape, int64, from 0 to size − 1) use a codebook of that size."""
    times = torch.bincount(codes.reshape(-1), minlength=size).double()
    if not times.sum():
        raise UsageError("there are no codes whose use could be told")
    share = times / times.sum()
    entropy = -torch.special.xlogy(share, share).sum().item()
    return Usage(share=(times > 0).double().mean().item(), perplexity=math.exp(entropy))


def _precise(z: Tensor) -> Tensor:
    """In float32 at least: the nearest of many needs its digits."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def _rows(z: Tensor) -> Tensor:
    """Vectors (B, D, h, w) as rows (N, D)."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])
