"""Which text belongs to which picture: pairs told from all other pairs of a batch."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.guidance.matcher import Matcher
from fromnoise.training.draws import Draws
from fromnoise.training.objective import Objective, Phase, Samples
from fromnoise.training.settings import ContrastiveSettings
from fromnoise.training.time_sampling import TIME_SAMPLINGS, TimeSampling


class Contrastive(Objective):
    """−½·E[log p(c | x) + log p(x | c)] among a batch, both by softmax of l = e^s·cos(f(x), g(c)).

    Captions that are equal are one caption. A picture is asked which of the batch's distinct
    captions is its own; a caption, for each picture it belongs to, which picture it is, that one
    among the pictures of other captions. So no pair is taken for wrong that is right.

    An image-text model of noisy pictures sees each picture at a time of its own, on `time_sampling`
    (Nichol et al. 2021, GLIDE, section 2.4); another one sees them clean. s is brought back to at
    most ln 100 after each step.

    A batch cannot be split, as every picture is compared with all of it (`splits`).
    Raises UsageError for a network that is no image-text model, and for data without captions.
    Reference: Radford et al. 2021 (CLIP), section 2.3 and figure 3.
    """

    splits = False

    def __init__(self, matcher: Matcher, time_sampling: TimeSampling) -> None:
        super().__init__()
        self.matcher = matcher
        self.time_sampling = time_sampling

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        t, losses = self.losses(batch, draws)
        counts = self.time_sampling.importance(t)
        loss = losses.mean() if counts is None else (counts.to(losses) * losses).mean()
        learns = self.training and self.matcher.net.noisy and self.time_sampling.adaptive
        each = torch.stack([t, losses.detach().to(t)], dim=1) if learns else None
        yield Phase("loss", loss, each=each)

    def observed(self, positions: Tensor, losses: Tensor) -> None:
        self.time_sampling.observe(*losses.unbind(1))

    def after_step(self) -> None:
        self.matcher.net.cool()

    def losses(self, batch: Samples, draws: Draws) -> tuple[Tensor, Tensor]:
        """The times (B,), float64, and the loss of each pair (B,), in nats."""
        if batch.caption is None:
            raise UsageError("this data has no captions, so there is nothing to compare with")
        distinct = list(dict.fromkeys(batch.caption))
        own = torch.tensor([distinct.index(caption) for caption in batch.caption])
        t, pictures = self._seen(batch, draws)
        texts = self.matcher.captions(distinct)
        with torch.autocast(pictures.device.type, enabled=False):
            near = self.matcher.net.scale * pictures.float() @ texts.float().T
            return t, pair_losses(near, own.to(pictures.device))

    def _seen(self, batch: Samples, draws: Draws) -> tuple[Tensor, Tensor]:
        """The times (B,), and the directions of the pictures as they are there."""
        x0 = batch.x.to(self.matcher.net.log_scale.device)
        if not self.matcher.net.noisy:
            return torch.zeros(len(x0), dtype=torch.float64), self.matcher.pictures(x0)
        with torch.autocast(x0.device.type, enabled=False):
            process = self.matcher.reader.process.begin(draws.noise, x0)
            t = self.time_sampling(draws, process.clock).to(x0.device)
            x = process.corrupt(x0, t, draws.noise.normal(x0))
        return t, self.matcher.pictures(x, t)


def pair_losses(near: Tensor, own: Tensor) -> Tensor:
    """½·(−log p(c | x) − log p(x | c)) of each picture (B,).

    near: log-odds (B, U) of pictures and distinct captions. own: the caption of each picture (B,).
    """
    of_pictures = cross_entropy(near, own, reduction="none")
    # Column i: the caption of picture i, with all pictures, but for others of the same caption.
    columns = near[:, own]
    diagonal = torch.eye(len(own), dtype=torch.bool, device=own.device)
    same = (own[:, None] == own[None, :]) & ~diagonal
    others = columns.masked_fill(same, -torch.inf)
    place = torch.arange(len(own), device=near.device)
    of_captions = cross_entropy(others.T, place, reduction="none")
    return (of_pictures + of_captions) / 2.0


def contrastive(
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    settings: ContrastiveSettings,
    levels: int | None,
) -> Contrastive:
    """The objective of an image-text model. UsageError for a network that is none."""
    del levels
    chosen = settings.time_sampling
    kind = {"kind": chosen} if isinstance(chosen, str) else chosen
    return Contrastive(Matcher(denoiser, conditioning), TIME_SAMPLINGS.build(kind))
