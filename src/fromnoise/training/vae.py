"""The variational autoencoder's loss: what is not recovered, and what the latents cost."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.nets.vae import Autoencoder
from fromnoise.training.draws import Draws
from fromnoise.training.dropout import Dropout
from fromnoise.training.objective import Objective, Phase, Samples, condition_of
from fromnoise.training.settings import VaeSettings


class Variational(Objective):
    """E[−log p(x|ε)] + β·Σ_g KL_g, in bits for each dimension (Higgins et al. 2017, eq. 4).

    β = 1 is the bound on −log₂ p(x); during `warmup` steps β rises from 0, so that the latents are
    used before they cost (Sønderby et al. 2016). Where a sample's divergence in a group of latents
    is under `free_nats` it costs that much and is not pressed further: free bits (Kingma et al.
    2016, appendix C.8) for each sample, so that the loss is the same however a batch is split.
    Evaluated (`eval`), the loss is the bound itself, and no condition is dropped.

    levels: of the data, whose probability is then bounded; None for a density.
    """

    taken: Tensor

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        conditioning: Conditioning,
        settings: VaeSettings,
        levels: int | None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.conditioning = conditioning
        self.dropout = Dropout(settings.condition_dropout, conditioning)
        self.settings = settings
        self.levels = levels
        self.register_buffer("taken", torch.zeros(()))

    def after_step(self) -> None:
        self.taken += 1.0

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        x0 = batch.x.to(next(self.denoiser.net.parameters()).device)
        chance = draws.noise.uniform(torch.empty(len(x0), 1))[:, 0]
        noise = draws.noise.normal(x0)
        dropout = self.dropout if self.training else None
        condition = condition_of(self.conditioning, batch, chance, dropout, draws.noise)
        condition = None if condition is None else condition.to(x0.device)
        passage = autoencoder(self.denoiser).passage(x0, noise, condition)
        lost = -passage.output.log_prob(x0, self.levels).mean()
        cost = torch.stack([self._charged(kl).mean() for kl in passage.kl]).sum()
        bits = (lost + self._beta() * cost) / (x0[0].numel() * math.log(2.0))
        yield Phase("loss", bits.to(x0.dtype))

    def _charged(self, kl: Tensor) -> Tensor:
        return kl.clamp(min=self.settings.free_nats) if self.training else kl

    def _beta(self) -> float | Tensor:
        if not self.training:
            return 1.0
        risen = (self.taken + 1.0) / max(self.settings.warmup, 1)
        return self.settings.beta * risen.clamp(max=1.0)


def autoencoder(denoiser: NetworkDenoiser) -> Autoencoder:
    """The network of a denoiser that is an autoencoder. UsageError for any other."""
    if not isinstance(denoiser.net, Autoencoder):
        raise UsageError(
            f"a {type(denoiser.net).__name__} does not say where a picture came from; "
            "the objective vae needs a network vae or hvae"
        )
    return denoiser.net


def vae(
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    settings: VaeSettings,
    levels: int | None,
) -> Variational:
    """The objective of an autoencoder. UsageError for a network that is none."""
    autoencoder(denoiser)
    return Variational(denoiser, conditioning, settings, levels)
