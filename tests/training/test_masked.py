"""The bound of masked tokens is the entropy for an exact belief, whatever the path of the mask."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tokens import Exact, Together
from torch import Tensor

from fromnoise import nets, processes, schedules
from fromnoise.codecs import CODECS, Identity, Tokens
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Denoiser, NetworkDenoiser, Prediction
from fromnoise.denoisers.tokens import token_bound
from fromnoise.encoders import Conditioning
from fromnoise.evaluate import Labelled, measure_tokens
from fromnoise.layers.condition import Condition
from fromnoise.parameterizations import Tokens as Reading
from fromnoise.training import Draws
from fromnoise.training.masked import MaskedTokens
from fromnoise.training.objectives import objective_of
from fromnoise.training.settings import MaskedSettings

COUNT = 60_000


class Uniform(Denoiser):
    """Every code as likely as any other."""

    def __init__(self, exact: Exact) -> None:
        self.process = exact.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return Prediction(torch.zeros_like(x), x, t, self.process)


@dataclass
class Batch:
    x: Tensor
    label: Tensor | None = None
    caption: list[str] | None = None
    augment: Tensor | None = None
    given: dict[str, Any] = field(default_factory=dict)


def bound(denoiser: Denoiser, x0: Tensor) -> tuple[float, float]:
    """Mean and standard error over times spread evenly."""
    order = torch.randperm(len(x0), generator=torch.Generator().manual_seed(2))
    t = 1 - (order.double() + 0.5) / len(x0)
    found = token_bound(denoiser, x0, t, Together(3, len(x0)).normal(x0[:, :1]))
    return float(found.mean()), float(found.std() / len(x0) ** 0.5)


@pytest.mark.parametrize("mask", ["linear", "cosine"])
def test_for_an_exact_belief_the_bound_is_the_entropy(mask: str) -> None:
    exact = Exact(3, 3, mask)
    x0 = exact.drawn(COUNT)
    value, error = bound(exact, x0)
    assert abs(value - exact.entropy) < 4 * error < 0.15
    # A wrong belief is charged for: here exactly the entropy of knowing nothing.
    worse, error = bound(Uniform(exact), x0)
    assert abs(worse - 3 * math.log(3)) < 4 * error
    assert worse > exact.entropy + 0.2


@pytest.mark.parametrize("mask", ["linear", "cosine"])
def test_the_rate_is_the_slope_of_the_logarithm(mask: str) -> None:
    process = processes.Absorbing(mask)  # type: ignore[arg-type]
    t = torch.linspace(0.05, 1, 20, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(process.share(t).log().sum(), t)
    assert (slope - process.rate(t)).abs().max() < 1e-12
    ends = process.share(torch.tensor([0.0, 1.0]))
    assert ends[0] == 0 and abs(ends[1] - 1) < 1e-15


def test_what_is_measured_is_the_bound() -> None:
    exact = Exact(3, 3)
    x = exact.drawn(1500)
    ((key, found),) = measure_tokens(exact, Labelled(x), lambda known: None, draws=8)
    assert key == "nats_per_token" and found.low is not None and found.high is not None
    assert found.low - 0.02 < exact.entropy / 3 < found.high + 0.02
    assert found.count == 1500 and found.more["tokens"] == 3 and found.more["codes"] == 3


def tiny(weighting: str = "simple") -> tuple[MaskedTokens, Batch]:
    torch.manual_seed(0)
    net = nets.build({
        "kind": "token_transformer", "in_channels": 3, "size": [1, 4], "width": 16, "depth": 1,
        "heads": 2, "features": 8,
    })  # fmt: skip
    denoiser = NetworkDenoiser(net, processes.Absorbing(), Reading())
    settings = MaskedSettings(weighting=weighting)  # type: ignore[arg-type]
    made = objective_of(settings, denoiser, Conditioning({}))
    assert isinstance(made, MaskedTokens)
    x = Exact(3, 4).drawn(256).float()[:, :, None]
    return made, Batch(x)


def loss(objective: MaskedTokens, batch: Batch, step: int = 0) -> Tensor:
    draws = Draws.of_step(0, step, range(len(batch.x)), len(batch.x))
    (phase,) = objective.phases(batch, draws)
    return phase.loss


def test_a_fresh_network_knows_nothing_and_learns() -> None:
    objective, batch = tiny()
    # Its last layer starts at zero: every code is as likely, and half of the tokens are masked.
    assert loss(objective, batch).item() == pytest.approx(0.5 * math.log(3), rel=0.1)
    elbo, _ = tiny("elbo")
    assert loss(elbo, batch).item() == pytest.approx(math.log(3), rel=0.25)
    objective.eval()
    assert torch.equal(loss(objective, batch), loss(elbo, batch))
    objective.train()
    before = loss(objective.eval(), batch, 999).item()
    optimizer = torch.optim.Adam(objective.parameters(), 1e-2)
    objective.train()
    for step in range(150):
        optimizer.zero_grad()
        loss(objective, batch, step).backward()
        optimizer.step()
    after = loss(objective.eval(), batch, 999).item()
    assert Exact(3, 4).entropy / 4 * 0.9 < after < before - 0.05


def test_every_parameter_gets_a_gradient() -> None:
    objective, batch = tiny()
    torch.nn.init.normal_(objective.denoiser.net.leave.weight)  # type: ignore[arg-type, union-attr]
    loss(objective, batch).backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_what_is_shown_is_carried_over() -> None:
    objective, batch = tiny()
    x = batch.x[:2].clone()
    x[:, :, :, 1] = 0
    belief = objective.denoiser(x, torch.full((2,), 0.5, dtype=torch.float64)).x0
    known = [0, 2, 3]
    assert torch.equal(belief.softmax(1)[..., known].round(decimals=6), x[..., known])
    # Of the masked one it is a distribution that rules nothing out.
    assert (belief[..., 1].exp().sum(1) - 1).abs().max() < 1e-6
    assert belief[..., 1].exp().min() > 0.1


def test_what_does_not_fit_is_refused() -> None:
    objective, _ = tiny()
    settings = MaskedSettings()
    net = objective.denoiser.net
    noisy = NetworkDenoiser(net, processes.Gaussian(schedules.flow()), Reading())
    with pytest.raises(UsageError, match="absorbing"):
        objective_of(settings, noisy, Conditioning({}))
    kl = CODECS.build({"kind": "kl", "latent": 2, "widths": [4, 8], "groups": 4, "blocks": 1})
    with pytest.raises(UsageError, match="codebook"):
        objective_of(settings, objective.denoiser, Conditioning({}), codec=kl)
    with pytest.raises(UsageError, match="shapes-vq"):
        Tokens(Identity())
