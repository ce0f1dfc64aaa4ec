"""An autoencoder to be diffused behind: what comes back, how it looks, whether it seems real."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from fromnoise.codecs import Codec, Learned
from fromnoise.core.errors import UsageError
from fromnoise.core.tensors import flat_mean
from fromnoise.nets import build
from fromnoise.nets.base import Network
from fromnoise.nets.perceptual import Perceptual, Small
from fromnoise.training.draws import Draws, derive
from fromnoise.training.objective import Objective, Phase, Samples
from fromnoise.training.perceptual import perceptual_of, seeing_loss
from fromnoise.training.settings import AutoencoderSettings

SEEING, AUTOENCODER, DISCRIMINATOR = "seeing", "autoencoder", "discriminator"

_LEAST, _MOST = 1e-4, 1e4
_SEEN = 7


class Reconstruction(Objective):
    """|x − x̂| + w_p·d(x, x̂) + w_z·cost(z) − w_a·λ·D(x̂), and hinge for the discriminator D.

    d: how different they look (`Perceptual`). cost: of the latents, as the codec has it. λ =
    ‖∇_L of the first two‖ / (‖∇_L of D(x̂)‖ + 10⁻⁴) at the weights L of the decoder's last layer,
    where `adaptive`, so that neither drowns the other (Esser, Rombach & Ommer 2021, eq. 7). D is
    stepped after the autoencoder, on the same reconstructions: ½·E[max(0, 1 − D(x))] +
    ½·E[max(0, 1 + D(x̂))].

    A small perceptual network learns in a phase of its own in the first `perceptual_start` steps
    and then stays as it is; d counts from there on. D begins, and counts, after
    `adversarial_start` steps. Neither is part of the model. Evaluated (`eval`), D does not count.
    """

    taken: Tensor

    def __init__(
        self,
        codec: Learned,
        perceptual: Perceptual | None,
        discriminator: Network | None,
        settings: AutoencoderSettings,
    ) -> None:
        super().__init__()
        self.codec: Learned = codec
        self.perceptual = perceptual
        self.discriminator = discriminator
        self.settings = settings
        norms = () if discriminator is None else discriminator.modules()
        mixed = any(isinstance(part, nn.BatchNorm2d) for part in norms)
        # λ and the statistics of a batch norm are of a whole batch.
        self.splits = discriminator is None or not (settings.adaptive or mixed)
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def groups(self) -> Mapping[str, list[tuple[str, nn.Parameter]]]:
        """The parameters of what sees, of the codec, and of the discriminator, where they are."""
        named = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        prefixes = {SEEING: "perceptual.", AUTOENCODER: "codec.", DISCRIMINATOR: "discriminator."}
        found = {
            group: [(n, p) for n, p in named if n.startswith(prefix)]
            for group, prefix in prefixes.items()
        }
        return {group: part for group, part in found.items() if part or group == AUTOENCODER}

    def prepare(self, x: Tensor, seed: int) -> None:
        """Let the codec begin where the data is."""
        self.codec.start(x[:256], seed)

    def rehearse(self, batch: Samples, draws: Draws) -> None:
        """Also what begins to count only later, after hours perhaps."""
        super().rehearse(batch, draws)
        if self.perceptual is not None:
            self.perceptual(batch.x, batch.x)
        if self.discriminator is not None:
            self.judged(self.discriminator, batch.x)

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        x = batch.x.to(next(self.codec.parameters()).device)
        # A size that is no multiple of the factor is refused here: another would come back.
        self.codec.latent_shape(tuple(x.shape[1:]))
        taken = int(self.taken)
        eye = self._learning(taken)
        if eye is not None:
            yield Phase(SEEING, seeing_loss(eye, x, draws.noise), SEEING)
        passage = self.codec.passage(x, draws.noise)
        loss = self.difference(x, passage.made, taken)
        total = loss + self.settings.latent_weight * passage.cost.mean()
        judge = self._judge(taken)
        if judge is not None:
            seems = -self.judged(judge, passage.made).mean()
            weight = self.settings.adversarial_weight * self.balance(loss, seems)
            total = total + weight * seems
        yield Phase(AUTOENCODER, total, AUTOENCODER, passage.seen if self.training else None)
        if judge is not None:
            real, made = self.judged(judge, x), self.judged(judge, passage.made.detach())
            yield Phase(DISCRIMINATOR, hinge(real, made), DISCRIMINATOR)

    def difference(self, x: Tensor, made: Tensor, taken: int) -> Tensor:
        """How far pictures are from what came back, by pixels and by looks, after so many steps."""
        error = x - made
        by_pixel = error.abs() if self.settings.reconstruction == "l1" else error.square()
        loss = flat_mean(by_pixel).mean()
        weight = self.settings.perceptual_weight
        if self.perceptual is None or not weight or taken < self.settings.perceptual_start:
            return loss
        with torch.autocast(x.device.type, enabled=False):
            looks: Tensor = self.perceptual(x, made.to(x.dtype))
            return loss + weight * looks.mean()

    def balance(self, loss: Tensor, seems: Tensor) -> Tensor | float:
        """λ, by which the adversarial loss is multiplied; 1 where it does not adapt."""
        last = self.codec.last
        if not self.settings.adaptive or not last.requires_grad:
            return 1.0
        first, second = (
            torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (loss, seems)
        )
        ratio: Tensor = first / (second + _LEAST)
        return ratio.clamp(max=_MOST).detach()

    def judged(self, judge: Network, x: Tensor) -> Tensor:
        """D(x): above 0 for patches it takes for real."""
        verdict: Tensor = judge(x, x.new_zeros(len(x)))
        return verdict

    def observed(self, positions: Tensor, losses: Tensor) -> None:
        self.codec.seen(losses.to(next(self.codec.parameters()).device), self._seed())

    def after_step(self) -> None:
        self.taken += 1

    def _learning(self, taken: int) -> Small | None:
        """The network that still learns to see, where there is one."""
        percept = None if self.perceptual is None else self.perceptual.percept
        early = taken < self.settings.perceptual_start
        return percept if self.training and early and isinstance(percept, Small) else None

    def _judge(self, taken: int) -> Network | None:
        """The discriminator, where it counts."""
        weight = self.settings.adversarial_weight
        counts = self.training and weight and taken >= self.settings.adversarial_start
        return self.discriminator if counts else None

    def _seed(self) -> int:
        return derive(int(self.taken), _SEEN)


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """½·E[max(0, 1 − D(x))] + ½·E[max(0, 1 + D(x̂))] (Lim & Ye 2017, "Geometric GAN")."""
    return 0.5 * (relu(1.0 - real).mean() + relu(1.0 + made).mean())


def autoencoder(codec: Codec, settings: AutoencoderSettings) -> Reconstruction:
    """The objective of an autoencoder. UsageError for a codec that has nothing to train."""
    if not isinstance(codec, Learned):
        raise UsageError(
            f"a codec {codec.config['kind']!r} has nothing to train; the objective autoencoder "
            "needs a codec kl or vq"
        )
    chosen, weight = settings.perceptual, settings.perceptual_weight
    looks = perceptual_of(chosen, codec.channels) if weight else None
    judge = None if settings.discriminator is None else build(settings.discriminator)
    if judge is not None and (judge.draws or judge.in_channels != codec.channels):
        raise UsageError(
            f"a {type(judge).__name__} of {judge.in_channels} channels is no discriminator of "
            f"pictures of {codec.channels}; use a patch_discriminator with in_channels "
            f"{codec.channels}"
        )
    return Reconstruction(codec, looks, judge, settings)
