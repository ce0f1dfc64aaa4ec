"""A generator against a discriminator: two losses, two groups of parameters, in turn."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.layers.condition import Condition
from fromnoise.nets import build
from fromnoise.nets.base import Network
from fromnoise.nets.generator import Generator
from fromnoise.training.draws import Draws
from fromnoise.training.dropout import Dropout
from fromnoise.training.objective import Objective, Phase, Samples, condition_of
from fromnoise.training.settings import GanSettings

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


class Adversarial(Objective):
    """First the discriminator D is stepped, then the generator G against what D has become.

    L_D = E[softplus(−D(x))] + E[softplus(D(G(z)))] + (γ/2)·E‖∇ₓD(x)‖² at real x, and
    L_G = E[softplus(−D(G(z)))]: the loss that does not saturate (Goodfellow et al. 2014, section
    3), with the penalty R₁ (Mescheder, Geiger & Nowozin 2018, eq. 9), under which training
    converges. D belongs to the training alone: it is checkpointed with it, and not part of the
    model. Samples are asked for with the labels of the batch. Evaluated (`eval`), there is no
    penalty and no condition is dropped; what is reported then says who is ahead, no more.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        conditioning: Conditioning,
        discriminator: Network,
        settings: GanSettings,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.conditioning = conditioning
        self.dropout = Dropout(settings.condition_dropout, conditioning)
        self.discriminator = discriminator
        self.settings = settings

    def groups(self) -> Mapping[str, list[tuple[str, nn.Parameter]]]:
        """The discriminator's parameters, and all others."""
        named = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        judging = f"{DISCRIMINATOR}."
        return {
            DISCRIMINATOR: [(n, p) for n, p in named if n.startswith(judging)],
            GENERATOR: [(n, p) for n, p in named if not n.startswith(judging)],
        }

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        real = batch.x.to(next(self.denoiser.net.parameters()).device)
        chance = draws.noise.uniform(torch.empty(len(real), 1))[:, 0]
        dropout = self.dropout if self.training else None
        condition = condition_of(self.conditioning, batch, chance, dropout, draws.noise)
        condition = None if condition is None else condition.to(real.device)
        with torch.no_grad():
            fake = self._made(draws, real, condition)
        loss = softplus(-self.judged(real, condition)) + softplus(self.judged(fake, condition))
        if self.training and self.settings.penalty:
            loss = loss + 0.5 * self.settings.penalty * self.slope(real, condition)
        yield Phase(DISCRIMINATOR, loss.mean(), DISCRIMINATOR)
        fake = self._made(draws, real, condition)
        yield Phase(GENERATOR, softplus(-self.judged(fake, condition)).mean(), GENERATOR)

    def judged(self, x: Tensor, condition: Condition | None) -> Tensor:
        """D(x) (B,): above 0 for what it takes for data."""
        verdict: Tensor = self.discriminator(x, x.new_zeros(len(x)), condition)
        return verdict

    def slope(self, x: Tensor, condition: Condition | None) -> Tensor:
        """‖∇ₓD(x)‖² (B,), itself differentiable."""
        leaf = x.detach().requires_grad_()
        verdict = self.judged(leaf, condition).sum()
        (gradient,) = torch.autograd.grad(verdict, leaf, create_graph=True)
        return gradient.square().flatten(1).sum(1)

    def _made(self, draws: Draws, like: Tensor, condition: Condition | None) -> Tensor:
        """Samples of the generator for the same conditions, from fresh noise."""
        t = torch.ones(len(like), dtype=torch.float64, device=like.device)
        return self.denoiser(draws.noise.normal(like), t, condition).x0


def gan(
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    settings: GanSettings,
    levels: int | None,
) -> Adversarial:
    """The objective of a generator. UsageError for a network that draws in many steps."""
    del levels
    if not isinstance(denoiser.net, Generator):
        raise UsageError(
            f"a {type(denoiser.net).__name__} does not draw in one step; "
            "the objective gan needs a network gan"
        )
    return Adversarial(denoiser, conditioning, build(settings.discriminator), settings)
