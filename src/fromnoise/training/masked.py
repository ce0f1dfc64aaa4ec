"""What masked tokens were: cross-entropy, with the weight that makes it a bound, or without."""

from collections.abc import Iterator

import torch
from torch import Tensor

from fromnoise.codecs import Codec, Tokens
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.denoisers.tokens import missed
from fromnoise.encoders import Conditioning
from fromnoise.processes import Absorbing
from fromnoise.training.draws import Draws
from fromnoise.training.dropout import Dropout
from fromnoise.training.objective import Objective, Phase, Samples, condition_of
from fromnoise.training.settings import MaskedSettings


class MaskedTokens(Objective):
    """E_t[w(t)·Σ_masked −log p(x_l | x_t)]/N in nats for each of N tokens, t spread over the batch.

    With w = m'(t)/m(t), `elbo`, its mean bounds −log p(x)/N and does not depend on the path of the
    mask's share m (Sahoo et al. 2024, "MDLM", eq. 10; Austin et al. 2021, section 3.4). With w = 1,
    `simple`, every masked token counts alike (Chang et al. 2022, "MaskGIT", eq. 3).
    Evaluated (`eval`), the loss is the bound, and no condition is dropped.

    Raises UsageError for a process that does not mask.
    """

    def __init__(
        self, denoiser: NetworkDenoiser, conditioning: Conditioning, settings: MaskedSettings
    ) -> None:
        super().__init__()
        if not isinstance(denoiser.process, Absorbing):
            raise UsageError(
                f"the objective masked needs the process absorbing, not a "
                f"{type(denoiser.process).__name__.lower()} one"
            )
        self.process = denoiser.process
        self.denoiser = denoiser
        self.conditioning = conditioning
        self.dropout = Dropout(settings.condition_dropout, conditioning)
        self.settings = settings

    def behind(self, codec: Codec, encoded: bool = False) -> None:
        if not isinstance(codec, Tokens):
            raise UsageError(
                f"masked tokens need a codec with a codebook, not a {type(codec).__name__} one; "
                "train one with `fromnoise train shapes-vq`"
            )
        self.keep(codec, encoded)

    def data(self, batch: Samples, device: torch.device) -> Tensor:
        x = super().data(batch, device)
        return self.codec.of_latents(x) if self.encoded and isinstance(self.codec, Tokens) else x

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        x0 = self.data(batch, next(self.denoiser.net.parameters()).device)
        chance = draws.noise.uniform(torch.empty(len(x0), 1))[:, 0]
        t = (1.0 - draws.stratified()).to(x0.device)
        noise = draws.noise.normal(x0[:, :1])
        dropout = self.dropout if self.training else None
        condition = condition_of(
            self.conditioning, batch, chance, dropout, draws.noise, x0.shape[2:]
        )
        condition = None if condition is None else condition.to(x0.device)
        x = self.process.corrupt(x0, t, noise)
        output = self.denoiser.output(x, t, condition)
        with torch.autocast(x0.device.type, enabled=False):
            losses = missed(output.to(x0.dtype), x0, x)
            if not self.training or self.settings.weighting == "elbo":
                losses = losses * self.process.rate(t).to(losses)
            yield Phase("loss", losses.mean() / x0[0, 0].numel())


def masked(
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    settings: MaskedSettings,
    levels: int | None,
) -> MaskedTokens:
    """The objective of masked tokens. UsageError for a process that does not mask."""
    del levels
    return MaskedTokens(denoiser, conditioning, settings)
