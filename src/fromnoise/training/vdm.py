"""Variational diffusion: the bound on the likelihood in continuous time, schedule and all."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fromnoise.core.densities import cell, normal_kl, normal_log_density
from fromnoise.core.errors import UsageError
from fromnoise.core.tensors import flat_sum, times
from fromnoise.denoisers import Denoiser, NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.layers.condition import Condition
from fromnoise.training.draws import Draws
from fromnoise.training.dropout import Dropout
from fromnoise.training.objective import MAIN, Objective, Phase, Samples, condition_of
from fromnoise.training.settings import VdmSettings

SCHEDULE = "schedule"

FEWER = 4
"""The few weights of a schedule learn from every so many samples: a quarter of the cost."""


class VariationalDiffusion(Objective):
    """−log p(x) ≤ KL(q(x₁|x) ‖ N) − E[log p(x|x_first)] + ½·E_t[γ'(t)·‖ε − ε̂‖²], in bits/dim.

    γ = −log(α²/σ²). As a function of log-SNR the last part depends on γ only through its ends
    (Kingma et al. 2021, eq. 17 and 18), so they train on the bound, and the path between them,
    which changes nothing but how much the estimate varies, on its square: E[L²] = E[L]² + Var[L]
    (section 5.1.1). Times are spread evenly over the batch (appendix I.1).
    Evaluated (`eval`), the loss is the bound, and no condition is dropped.

    levels: of the data, whose probability is then bounded; None for a density.
    Raises UsageError for a process that is not plain noise.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        conditioning: Conditioning,
        settings: VdmSettings,
        levels: int | None,
    ) -> None:
        super().__init__()
        process = denoiser.process
        if not (process.noisy and isinstance(process.levels(0.5)[0], float)):
            raise UsageError("variational diffusion needs plain noise: a gaussian process")
        self.denoiser = denoiser
        self.conditioning = conditioning
        self.dropout = Dropout(settings.condition_dropout, conditioning)
        self.settings = settings
        self.levels = levels

    def groups(self) -> Mapping[str, list[tuple[str, nn.Parameter]]]:
        """What trains on the bound, and what of the schedule trains on its variance."""
        shaping = {id(p) for p in self.denoiser.process.schedule.path.interior}
        named = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        found = {MAIN: [(n, p) for n, p in named if id(p) not in shaping]}
        if shaping and self.settings.learn_schedule:
            found[SCHEDULE] = [(n, p) for n, p in named if id(p) in shaping]
        return found

    def phases(self, batch: Samples, draws: Draws) -> Iterator[Phase]:
        x0 = batch.x.to(next(self.denoiser.net.parameters()).device)
        chance = draws.noise.uniform(torch.empty(len(x0), 1))[:, 0]
        dropout = self.dropout if self.training else None
        condition = condition_of(self.conditioning, batch, chance, dropout, draws.noise)
        condition = None if condition is None else condition.to(x0.device)
        bits = 1.0 / (x0[0].numel() * math.log(2.0))
        walked = self._walked(x0, condition, draws, torch.arange(len(x0)))
        ends = prior_loss(self.denoiser, x0) + self._decoded(x0, draws)
        yield Phase("loss", (bits * (walked + ends)).mean().to(x0.dtype))
        if self.training and SCHEDULE in self.groups():
            squared = bits**2 * self._second_moment(x0, condition, draws)
            yield Phase("second_moment", squared.to(x0.dtype), SCHEDULE)

    def _second_moment(self, x0: Tensor, condition: Condition | None, draws: Draws) -> Tensor:
        """The mean square of `_walked` over every so many samples of the whole step.

        A part of the batch gives its share of that mean, as a mean over the samples it has.
        """
        some = (draws.positions % FEWER == 0).nonzero().flatten()
        if not len(some):
            # A part without any still owes a loss that can be traced back.
            interior = self.denoiser.process.schedule.path.interior
            return torch.stack([0.0 * p.sum() for p in interior]).sum()
        share = -(-draws.total // FEWER) * len(x0) / draws.total
        return self._walked(x0, condition, draws, some).square().sum() / share

    def _walked(
        self, x0: Tensor, condition: Condition | None, draws: Draws, some: Tensor
    ) -> Tensor:
        """The part of the bound between the ends, of the samples at some rows: in nats."""
        first, last = self.denoiser.process.schedule.limits
        t = (first + (last - first) * draws.stratified()).to(x0.device)
        noise = draws.noise.normal(x0)
        some = some.to(x0.device)
        told = None if condition is None else condition.rows(some)
        loss = diffusion_loss(self.denoiser, x0[some], t[some], noise[some], told)
        return (last - first) * loss

    def _decoded(self, x0: Tensor, draws: Draws) -> Tensor:
        process = self.denoiser.process
        alpha, sigma = process.scales(times(process.schedule.limits[0], len(x0)).to(x0.device), x0)
        x = x0.double() + sigma / alpha * draws.noise.normal(x0).double()
        return decoder_loss(x0, x, sigma / alpha, self.levels)


def diffusion_loss(
    denoiser: Denoiser,
    x0: Tensor,
    t: Tensor,
    noise: Tensor,
    condition: Condition | None = None,
) -> Tensor:
    """½·γ'(t)·‖ε − ε̂(x_t, t)‖² (B,): nats of the bound for a unit of time (eq. 17).

    x0 and noise (B, ...), t (B,) where the log-SNR is finite. Its mean over t is the bound's part
    between the two times, ½·∫ mmse d(SNR) for a denoiser that is exact.
    """
    process = denoiser.process
    eps = denoiser(process.corrupt(x0, t, noise), t, condition).eps
    # γ = 2·log(σ/α): half of γ' is the rate of the path.
    return process.schedule.path.rate(t.double()) * flat_sum((noise - eps).double().square())


def prior_loss(denoiser: Denoiser, x0: Tensor) -> Tensor:
    """KL(q(x_last|x0) ‖ N(0, α² + σ²)) (B,), in nats."""
    process = denoiser.process
    alpha, sigma = process.scales(times(process.schedule.limits[1], len(x0)).to(x0.device), x0)
    total = torch.log(alpha**2 + sigma**2)
    return flat_sum(normal_kl(alpha * x0.double(), 2.0 * torch.log(sigma), 0.0, total))


def decoder_loss(x0: Tensor, x: Tensor, ratio: Tensor, levels: int | None) -> Tensor:
    """−log p(x0|x) (B,), in nats, of x = x0 + ratio·ε: by the noise alone, without a network.

    With levels v each is as likely as N(x; v, ratio²) says, normalised over all of them
    (Kingma et al. 2021, eq. 3 of appendix E); without, a density.
    """
    if levels is None:
        return -flat_sum(normal_log_density(x0.double(), x.double(), ratio**2))
    values = torch.linspace(-1.0, 1.0, levels, dtype=torch.float64, device=x.device)
    logits = -0.5 * ((x.double()[..., None] - values) / ratio[..., None]) ** 2
    place = torch.round((x0.double() + 1.0) / cell(levels)).long().clamp(0, levels - 1)
    chosen = logits.log_softmax(-1).gather(-1, place[..., None])[..., 0]
    return -flat_sum(chosen)


def vdm(
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    settings: VdmSettings,
    levels: int | None,
) -> VariationalDiffusion:
    """The objective of variational diffusion. UsageError for a process that is not plain noise."""
    return VariationalDiffusion(denoiser, conditioning, settings, levels)
