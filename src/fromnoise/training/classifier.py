"""A classifier of noisy samples: which class is it, however little of it is left."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fromnoise.codecs import Codec
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.training.draws import Draws
from fromnoise.training.objective import Objective, Phase, Samples
from fromnoise.training.settings import ClassifierSettings
from fromnoise.training.time_sampling import TIME_SAMPLINGS, TimeSampling


class NoisyClassification(Objective):
    """E[−log p(y | x_t, t)]: the cross-entropy of labels, x_t noisy as in diffusion.

    At every level of noise its least value is at p(y | x_t), whose gradient guides a model of the
    same data (Dhariwal & Nichol 2021, section 4). label_smoothing δ: the target is 1 − δ of the
    label and δ spread evenly over all classes (Szegedy et al. 2016, section 7).
    When it is not training (`eval`), labels are not smoothed.

    The parameterization of `reader` says what the network is told of the time and how x_t comes
    in; its answer is log-odds and is not read as a sample. Raises UsageError for a network that
    draws, and in `phases` for data without labels or with more classes than the network has.
    """

    def __init__(
        self, reader: NetworkDenoiser, time_sampling: TimeSampling, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if reader.net.draws:
            raise UsageError(
                f"a {type(reader.net).__name__} draws samples and reads none; "
                "the objective classifier needs a network classifier"
            )
        self.reader = reader
        self.time_sampling = time_sampling
        self.label_smoothing = label_smoothing

    def behind(self, codec: Codec, encoded: bool = False) -> None:
        self.keep(codec, encoded)

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        t, losses = self.losses(batch, draws)
        counts = self.time_sampling.importance(t)
        loss = losses.mean() if counts is None else (counts.to(losses) * losses).mean()
        learns = self.training and self.time_sampling.adaptive
        each = torch.stack([t, losses.detach().to(t)], dim=1) if learns else None
        yield Phase("loss", loss, each=each)

    def observed(self, positions: Tensor, losses: Tensor) -> None:
        self.time_sampling.observe(*losses.unbind(1))

    def losses(self, batch: Samples, draws: Draws) -> tuple[Tensor, Tensor]:
        """The times (B,), float64, and the cross-entropy of each sample there (B,), in nats."""
        label = self._labels(batch)
        x0 = self.data(batch, next(self.reader.net.parameters()).device)
        with torch.autocast(x0.device.type, enabled=False):
            process = self.reader.process.begin(draws.noise, x0)
            t = self.time_sampling(draws, process.clock)
            noise = draws.noise.normal(x0)
            t = t.to(x0.device)
            x = process.corrupt(x0, t, noise)
        odds = self.reader.output(x, t).to(x0.dtype)
        smoothing = self.label_smoothing if self.training else 0.0
        with torch.autocast(x0.device.type, enabled=False):
            losses = cross_entropy(
                odds, label.to(x0.device), reduction="none", label_smoothing=smoothing
            )
        return t, losses

    def _labels(self, batch: Samples) -> Tensor:
        known = self.reader.net.out_channels
        if batch.label is None:
            raise UsageError("this data has no labels, so there is nothing to classify")
        if int(batch.label.max()) >= known:
            raise UsageError(
                f"the data has a class {int(batch.label.max())}, and the network knows "
                f"{known}; set `classes` of the network to those of the data"
            )
        return batch.label


def classifier(
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    settings: ClassifierSettings,
    levels: int | None,
) -> NoisyClassification:
    """The objective of a classifier. UsageError for a network that draws, or is told something."""
    del levels
    if conditioning.names:
        raise UsageError(
            "a classifier is told nothing but the time, and this one "
            f"{', '.join(conditioning.names)}; leave out `encoders`"
        )
    chosen = settings.time_sampling
    kind = {"kind": chosen} if isinstance(chosen, str) else chosen
    return NoisyClassification(denoiser, TIME_SAMPLINGS.build(kind), settings.label_smoothing)
