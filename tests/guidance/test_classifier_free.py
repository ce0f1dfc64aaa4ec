"""Guidance without a classifier: exact identities and the variance law on Gaussians."""

import pytest
import torch
from torch import Tensor

from fromnoise import grids, schedules
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Denoiser, GaussianDenoiser, MixtureDenoiser, Prediction
from fromnoise.guidance import ClassifierFree
from fromnoise.layers.condition import Condition
from fromnoise.samplers import get, last, sample

SCHEDULE = schedules.ve(0.002, 80.0)


class TwoGaussians(Denoiser):
    """N(0, 1) when told so, N(0, 2) when told nothing; counts the rows it is asked about."""

    def __init__(self) -> None:
        self.told = GaussianDenoiser(0.0, 1.0, SCHEDULE)
        self.null = GaussianDenoiser(0.0, 2.0**0.5, SCHEDULE)
        self.process = self.told.process
        self.rows = 0

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        assert condition is not None
        self.rows += x.shape[0]
        keep = condition.vector["label"][:, :1] > 0
        x0 = torch.where(keep, self.told(x, t).x0, self.null(x, t).x0)
        return Prediction(x0, x, t, self.process)


def told(count: int) -> Condition:
    null = Condition(vector={"label": torch.zeros(count, 1)})
    return Condition(vector={"label": torch.ones(count, 1)}, null=null)


@pytest.mark.parametrize(("scale", "variance"), [(0.0, 2.0), (1.0, 1.0), (2.0, 0.5), (3.0, 0.25)])
def test_the_variance_of_guided_gaussians_is_a_geometric_mean(
    scale: float, variance: float
) -> None:
    """v = v_c^w · v_u^(1−w), exact for the probability-flow ODE."""
    x = torch.tensor([[1.0]], dtype=torch.float64)
    grid = grids.log_snr(SCHEDULE, 400, end=SCHEDULE.time(torch.tensor(12.4)).item())
    end = last(sample(ClassifierFree(TwoGaussians(), scale), get("heun"), grid, x * 80.0, told(1)))
    # The map is linear, so one trajectory from x_T = σ_T gives the standard deviation.
    assert end.item() ** 2 == pytest.approx(variance, rel=2e-3)


def test_a_scale_of_one_costs_one_evaluation_and_changes_no_bit() -> None:
    denoiser = TwoGaussians()
    x = torch.randn(3, 1, dtype=torch.float64)
    grid = grids.karras(SCHEDULE, 5)
    plain = last(sample(denoiser, get("ddim"), grid, x, told(3)))
    spent, denoiser.rows = denoiser.rows, 0
    guided = last(sample(ClassifierFree(denoiser, 1.0), get("ddim"), grid, x, told(3)))
    assert torch.equal(plain, guided)
    assert denoiser.rows == spent
    denoiser.rows = 0
    last(sample(ClassifierFree(denoiser, 2.0), get("ddim"), grid, x, told(3)))
    assert denoiser.rows == 2 * spent


@pytest.mark.parametrize("view", ["eps", "v", "score", "flow", "x0"])
def test_it_is_the_same_affine_map_in_every_space(view: str) -> None:
    mixture = MixtureDenoiser(
        torch.tensor([0.3, 0.7]),
        torch.tensor([[-1.0], [0.6]]),
        torch.tensor([0.3, 0.2]),
        schedules.cosine(),
        labels=torch.tensor([0, 1]),
    )
    x = torch.randn(6, 1, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    one_hot = torch.eye(2)[torch.arange(6) % 2]
    null = Condition(vector={"label": torch.zeros(6, 2)})
    condition = Condition(vector={"label": one_hot}, null=null)
    guided = getattr(ClassifierFree(mixture, 3.0)(x, t, condition), view)
    c, u = getattr(mixture(x, t, condition), view), getattr(mixture(x, t, null), view)
    torch.testing.assert_close(guided, u + 3.0 * (c - u), rtol=1e-11, atol=1e-11)


def test_guidance_by_the_exact_classifier_is_the_same() -> None:
    """score + w·∇log p(c|x) with the exact posterior equals guidance without a classifier."""
    mixture = MixtureDenoiser(
        torch.tensor([0.3, 0.7]),
        torch.tensor([[-1.0], [0.6]]),
        torch.tensor([0.3, 0.2]),
        schedules.cosine(),
        labels=torch.tensor([0, 1]),
    )
    x = torch.randn(6, 1, dtype=torch.float64, requires_grad=True)
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    null = Condition(vector={"label": torch.zeros(6, 2)})
    condition = Condition(vector={"label": torch.eye(2)[torch.zeros(6).long()]}, null=null)
    # log p(c|x) = log p(x|c) − log p(x) + log p(c); the last does not depend on x.
    log_odds = mixture.log_prob(x, t, condition) - mixture.log_prob(x, t)
    gradient = torch.autograd.grad(log_odds.sum(), x)[0]
    x = x.detach()
    expected = mixture(x, t, null).score + 2.5 * gradient
    guided = ClassifierFree(mixture, 2.5)(x, t, condition).score
    torch.testing.assert_close(guided, expected, rtol=1e-12, atol=1e-12)


def test_each_sample_can_have_its_own_scale() -> None:
    denoiser = TwoGaussians()
    x = torch.randn(3, 1, dtype=torch.float64)
    t = torch.full((3,), 0.5, dtype=torch.float64)
    scales = torch.tensor([0.5, 1.0, 4.0])
    together = ClassifierFree(denoiser, scales)(x, t, told(3)).x0
    for i, scale in enumerate(scales.tolist()):
        alone = ClassifierFree(denoiser, scale)(x[i : i + 1], t[:1], told(1)).x0
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_a_negative_condition_takes_the_place_of_the_null() -> None:
    denoiser = TwoGaussians()
    x = torch.randn(2, 1, dtype=torch.float64)
    t = torch.full((2,), 0.5, dtype=torch.float64)
    bare = Condition(vector={"label": torch.ones(2, 1)})
    away = ClassifierFree(denoiser, 3.0, negative=bare)(x, t, bare).x0
    torch.testing.assert_close(away, denoiser(x, t, bare).x0)


def test_guidance_without_a_null_is_refused() -> None:
    condition = Condition(vector={"label": torch.ones(2, 1)})
    x, t = torch.zeros(2, 1), torch.full((2,), 0.5, dtype=torch.float64)
    with pytest.raises(UsageError, match="null"):
        ClassifierFree(TwoGaussians(), 2.0)(x, t, condition)
    with pytest.raises(UsageError, match="null"):
        ClassifierFree(TwoGaussians(), 2.0)(x, t, None)
