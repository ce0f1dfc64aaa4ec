"""A small joint distribution of tokens and its exact denoiser: what laws of masks are tested on."""

import itertools

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.layers.condition import Condition
from fromnoise.processes import Absorbing, hidden


class Exact(Denoiser):
    """log p(x_l | what is shown) of each token, for `chances` of all K^N words of N tokens."""

    def __init__(self, codes: int, length: int, mask: str = "linear", seed: int = 0) -> None:
        self.process = Absorbing(mask)  # type: ignore[arg-type]
        words = itertools.product(range(codes), repeat=length)
        self.words = torch.tensor(list(words))
        generator = torch.Generator().manual_seed(seed)
        raw = torch.rand(len(self.words), generator=generator, dtype=torch.float64) ** 3
        self.chances = raw / raw.sum()
        self.codes, self.length = codes, length

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        fits = (self.words[None] == x.argmax(1)[:, None]) | hidden(x)[:, 0][:, None]
        weights = fits.all(2) * self.chances
        shares = weights / weights.sum(1, keepdim=True)
        each = one_hot(self.words, self.codes).double()
        belief = torch.einsum("bw,wnk->bkn", shares, each)
        return Prediction(belief.clamp(min=1e-300).log(), x, t, self.process)

    def drawn(self, count: int) -> Tensor:
        """Words of the distribution as tokens (count, K, N)."""
        generator = torch.Generator().manual_seed(1)
        index = torch.multinomial(self.chances, count, replacement=True, generator=generator)
        return one_hot(self.words[index], self.codes).double().movedim(-1, 1)

    @property
    def entropy(self) -> float:
        return float(-(self.chances * self.chances.log()).sum())

    def independent(self) -> Tensor:
        """The chance of each word, were its tokens independent."""
        each = one_hot(self.words, self.codes).double()
        single = torch.einsum("w,wnk->nk", self.chances, each)
        return torch.einsum("wnk,nk->wn", each, single).prod(1)

    def chi_square(self, x: Tensor, chances: Tensor) -> float:
        """Σ (found − expected)²/expected of words x (B, K, N)."""
        place = (x.argmax(1) * self.codes ** torch.arange(self.length - 1, -1, -1)).sum(1)
        found = torch.bincount(place, minlength=len(chances)).double()
        expected = len(x) * chances
        return float(((found - expected) ** 2 / expected).sum())


class Together(Noise):
    """One generator for the whole batch: quicker where there are thousands of samples."""

    def __init__(self, seed: int, count: int) -> None:
        super().__init__([seed] * 1)
        self.seeds = (seed,) * count

    def normal(self, like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=self._generators[0])
        return drawn.to(like)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self._generators[0]).to(like)
