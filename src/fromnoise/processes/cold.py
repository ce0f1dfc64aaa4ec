"""Any degradation in place of noise."""

import math
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.operators.families import Family
from fromnoise.processes.base import PROCESSES, Noiseless


@PROCESSES.register("cold")
class Cold(Noiseless):
    """Any degradation in place of noise: x_t = D(x0, t) (Bansal et al. 2022, "Cold Diffusion").

    What is random in D is drawn once per sample (`begin`) and is the same at every time. The prior
    is a Gaussian fitted to D(x0, 1) over data (`fit`), of at most `rank` directions, kept with the
    weights.
    """

    missing = "cold diffusion has no noise; sample it with cold1 or cold2"
    prior_mean: Tensor
    prior_factor: Tensor

    def __init__(self, family: Family, rank: int = 64) -> None:
        super().__init__()
        self.family = family
        self.learned = family.learned
        self.rank = rank
        self.draw: Tensor | None = None
        self.register_buffer("prior_mean", torch.zeros(0))
        self.register_buffer("prior_factor", torch.zeros(0))

    @property
    def end_held(self) -> bool:
        return self.family.end_held

    def begin(self, noise: Noise, like: Tensor) -> "Cold":
        run = Cold(self.family, self.rank)
        run.prior_mean, run.prior_factor = self.prior_mean, self.prior_factor
        run.draw = self.family.draw(noise, like)
        return run

    def fit(self, x0: Tensor, noise: Noise) -> None:
        """Fit the prior to the fully degraded x0 (M, ...): mean and leading directions."""
        degraded = self.family.apply(x0, times(1.0, x0.shape[0]), self.family.draw(noise, x0))
        flat = degraded.detach().flatten(1).double()
        self.prior_mean = flat.mean(0).to(x0.dtype)
        centred = (flat - flat.mean(0)) / math.sqrt(max(len(flat) - 1, 1))
        _, values, directions = torch.linalg.svd(centred, full_matrices=False)
        self.prior_factor = (values[: self.rank, None] * directions[: self.rank]).to(x0.dtype)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The fitted prior has the size of its pictures, which a fresh process does not know yet.
        for name in ("prior_mean", "prior_factor"):
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *rest)

    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return self.family.apply(x0, t, self.draw)

    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_s = x_t − D(x0, t) + D(x0, s) (Bansal et al. 2022, algorithm 2)."""
        return x - self.family.apply(x0, t, self.draw) + self.family.apply(x0, s, self.draw)

    def prior(self, noise: Noise, like: Tensor, t: float = 1.0) -> Tensor:
        if self.prior_mean.numel() != like[0].numel():
            raise UsageError(
                "this cold process has no fitted prior for such pictures; fit it first"
            )
        weights = noise.normal(like).flatten(1)[:, : self.prior_factor.shape[0]]
        flat = self.prior_mean + weights.float() @ self.prior_factor.float()
        return flat.reshape(like.shape).to(like)
