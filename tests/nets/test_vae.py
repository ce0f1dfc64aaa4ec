"""The autoencoders: divergences, a linear one that is exact, one step only, slots."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.condition import Condition
from fromnoise.nets import HVAE, NETS, VAE, Autoencoder, build
from fromnoise.nets.generator import NOTHING
from fromnoise.nets.vae import Output, Passage, Posterior

SMALL = {"shape": [1, 2, 2], "width": 8, "depth": 1, "accepts": {"vector": {"label": 3}}}
KINDS = {
    "vae": {"kind": "vae", **SMALL},
    "hvae": {"kind": "hvae", "groups": [1, 3], **SMALL},
    "three levels": {"kind": "hvae", "groups": [1, 1, 2], **SMALL},
}
every = pytest.mark.parametrize("name", KINDS)


def made(name: str) -> Autoencoder:
    torch.manual_seed(0)
    net = build(KINDS[name])
    assert isinstance(net, Autoencoder)
    return net.double()


def told(batch: int) -> Condition:
    return Condition(vector={"label": torch.eye(3, dtype=torch.float64)[torch.arange(batch) % 3]})


class Linear(Autoencoder):
    """x = W·ε + b + s·noise, whose likelihood and posterior are known: the outside reference."""

    def __init__(self, weight: Tensor, offset: Tensor, std: float, posterior: Posterior) -> None:
        super().__init__((len(offset),), 1, 1, NOTHING)
        self.weight, self.offset, self.std, self.posterior = weight, offset, std, posterior

    def output(self, noise: Tensor, condition: Condition) -> Output:
        mean = noise @ self.weight.T + self.offset
        return Output(mean, torch.full_like(mean, math.log(self.std)))

    def through(self, x: Tensor, noise: Tensor, condition: Condition) -> Passage:
        eps = self.posterior.draw(noise)
        output, ratio = self.output(eps, condition), self.posterior.log_ratio(eps)
        return Passage(eps, output, (self.posterior.kl(),), ratio)


def linear(share: float) -> tuple[Linear, Tensor, Tensor]:
    """Three numbers on a scaled axis each, x given, its exact log p(x); the exact posterior at 1.

    With W diagonal the posterior is N(w·(x − b)/(w² + s²), s²/(w² + s²)), independent by number.
    """
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    offset = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    x, std = torch.tensor([[0.7, -0.4, 1.1]], dtype=torch.float64), 0.3
    total = weight**2 + std**2
    exact = torch.distributions.Normal(offset, total.sqrt()).log_prob(x).sum(1)
    mean, log_std = weight * (x - offset) / total, 0.5 * torch.log(std**2 / total)
    found = Posterior(share * mean, (log_std * share).expand(1, -1))
    return Linear(torch.diag(weight), offset, std, found), x, exact


def bound(net: Autoencoder, x: Tensor, noise: Tensor) -> Tensor:
    passage = net.passage(x, noise, None)
    return passage.output.log_prob(x) - torch.stack(passage.kl).sum(0)


def test_the_bound_is_the_likelihood_at_the_exact_posterior() -> None:
    net, x, exact = linear(1.0)
    noise = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0)).double()
    found = bound(net, x.expand(len(noise), -1), noise)
    assert found.mean().item() == pytest.approx(exact.item(), abs=0.03)
    # With log q/p at the draw in place of the mean divergence, every draw says so exactly.
    passage = net.passage(x.expand(len(noise), -1), noise, None)
    sampled = passage.output.log_prob(x) - passage.log_ratio
    torch.testing.assert_close(sampled, exact.expand(len(noise)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.2])
def test_the_bound_is_below_at_any_other_posterior_by_their_divergence(share: float) -> None:
    net, x, exact = linear(share)
    best = linear(1.0)[0].posterior
    gap = torch.distributions.kl_divergence(
        torch.distributions.Normal(net.posterior.mean, net.posterior.log_std.exp()),
        torch.distributions.Normal(best.mean, best.log_std.exp()),
    ).sum()
    noise = torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0)).double()
    found = bound(net, x.expand(len(noise), -1), noise).mean()
    assert found < exact
    assert (exact - found).item() == pytest.approx(gap.item(), rel=0.03, abs=0.03)


@given(st.floats(-2, 2), st.floats(-2, 1))
@settings(max_examples=10)
def test_the_divergence_is_the_mean_of_the_log_ratio(mean: float, log_std: float) -> None:
    row = torch.tensor([[mean, log_std]], dtype=torch.float64).expand(50_000, -1)
    posterior = Posterior.of(row)
    noise = torch.randn(50_000, 1, generator=torch.Generator().manual_seed(1)).double()
    sampled = posterior.log_ratio(posterior.draw(noise))
    error = 4 * sampled.std().item() / math.sqrt(len(sampled)) + 1e-9
    assert sampled.mean().item() == pytest.approx(posterior.kl()[0].item(), abs=error)


@every
def test_the_sample_is_the_mean_at_that_noise(name: str) -> None:
    net, noise = made(name), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    sample = net(noise, torch.ones(3), told(3))
    assert torch.equal(sample, net.output(noise, told(3)).mean)
    assert sample.shape == (3, 1, 2, 2)


@every
def test_data_and_samples_go_the_same_way_down(name: str) -> None:
    """The noise a picture was taken to makes, as a sample, what was believed of the picture."""
    net, x = made(name), torch.randn(5, 1, 2, 2, dtype=torch.float64)
    passage = net.passage(x, torch.randn_like(x), told(5))
    again = net.output(passage.noise, told(5))
    torch.testing.assert_close(again, passage.output, rtol=1e-12, atol=1e-12)
    assert len(passage.kl) == {"vae": 1, "hvae": 2, "three levels": 3}[name]
    assert all(kl.shape == (5,) and bool((kl >= 0).all()) for kl in passage.kl)
    # The control: other noise makes something else.
    assert not torch.allclose(net.output(x, told(5)).mean, passage.output.mean)


@every
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net, x = made(name), torch.randn(6, 1, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    passage = net.passage(x, torch.randn_like(x), told(6))
    (torch.stack(passage.kl).sum() - passage.output.log_prob(x).sum()).backward()
    dead = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    # The first group's prior is told nothing but the label: its entrance sees zeros.
    assert dead <= {"priors.0.enter.weight"}


@every
def test_it_draws_in_one_step_only(name: str) -> None:
    net, x = made(name), torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    with pytest.raises(UsageError, match="steps=1"):
        net(x, torch.tensor([1.0, 0.5]), told(2))
    with pytest.raises(UsageError, match="lacks vector label"):
        net(x, torch.ones(2), None)
    with pytest.raises(ShapeError, match=r"\(1, 2, 2\)"):
        net(torch.zeros(2, 1, 4, 4, dtype=torch.float64), torch.ones(2), told(2))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="share out the 64"):
        HVAE(groups=(16, 16))
    with pytest.raises(UsageError, match="vectors only"):
        NETS.build({"kind": "vae", "accepts": {"tokens": 4}})
    with pytest.raises(UsageError, match="1 or more"):
        VAE(width=0)
