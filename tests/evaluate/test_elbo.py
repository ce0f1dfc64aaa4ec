"""The bound of an autoencoder, measured: what it is for a linear one, and what more draws do."""

import math

import pytest
import torch
from nets.test_vae import linear

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.evaluate import Labelled, evidence, measure_evidence
from fromnoise.nets import build


def test_more_draws_bound_more_tightly_and_none_exceeds_the_likelihood() -> None:
    net, x, exact = linear(0.6)
    many = x.expand(500, -1)
    found = [evidence(net, many, Noise(0, 500), draws=k).importance.mean() for k in (1, 4, 32)]
    assert found[0] < found[1] < found[2] < exact + 0.05
    one = evidence(net, many, Noise(0, 500), draws=1)
    assert one.bound.mean().item() == pytest.approx(found[0].item(), abs=0.3)
    parts = one.reconstruction + torch.stack(one.kl).sum(0)
    torch.testing.assert_close(-parts, one.bound)


def test_at_the_exact_posterior_one_draw_says_it_all() -> None:
    net, x, exact = linear(1.0)
    found = evidence(net, x, Noise(0, 1), draws=3)
    torch.testing.assert_close(found.importance, exact)
    with pytest.raises(UsageError, match="1 or more"):
        evidence(net, x, Noise(0, 1), draws=0)


def test_bits_count_the_levels_of_the_data() -> None:
    """All levels of one number: their probabilities, each bounded from below, sum to at most 1."""
    torch.manual_seed(0)
    net = build({"kind": "vae", "shape": [1], "width": 8, "depth": 1}).double()
    levels = Labelled(torch.linspace(-1, 1, 17, dtype=torch.float64)[:, None])
    ((key, estimate),) = measure_evidence(net, levels, lambda _: None, 17, draws=200)
    assert key == "bits_per_dim"
    assert set(estimate.more["parts"]) == {"reconstruction", "kl"}
    found = evidence(net, levels.x, Noise(0, 17), None, 17, draws=500)
    total = torch.exp(found.importance).sum().item()
    assert 0.9 < total < 1.1
    assert estimate.value == pytest.approx(-found.bound.mean().item() / math.log(2), rel=0.2)
