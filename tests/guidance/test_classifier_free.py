"""Guidance without a classifier: exact identities and the variance law on Gaussians."""

import pytest
import torch
from torch import Tensor

from fromnoise import grids, processes, schedules
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Denoiser, GaussianDenoiser, MixtureDenoiser, Prediction
from fromnoise.guidance import ClassifierFree, SelfConditioning
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
    grid = grids.log_snr(SCHEDULE, 200, end=SCHEDULE.time(torch.tensor(12.4)).item())
    end = last(sample(ClassifierFree(TwoGaussians(), scale), get("heun"), grid, x * 80.0, told(1)))
    # The map is linear, so one trajectory from x_T = σ_T gives the standard deviation.
    assert end.item() ** 2 == pytest.approx(variance, abs=1e-3)


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


GRID = grids.karras(SCHEDULE, 10)


def spent(guided: ClassifierFree, x: Tensor) -> tuple[Tensor, int]:
    """Where a run ends, and of how many rows the network was asked."""
    assert isinstance(guided.denoiser, TwoGaussians)
    guided.denoiser.rows = 0
    return last(sample(guided, get("ddim"), GRID, x, told(len(x)))), guided.denoiser.rows


def test_outside_its_interval_guidance_costs_one_evaluation_and_changes_no_bit() -> None:
    x = 80.0 * torch.randn(3, 1, dtype=torch.float64)
    plain, once = spent(ClassifierFree(TwoGaussians(), 1.0), x)
    never = ClassifierFree(TwoGaussians(), 4.0, interval=(0.0, float(GRID[-2]) / 2))
    assert once == 30
    found, rows = spent(never, x)
    assert torch.equal(found, plain)
    assert rows == 30
    # Four of ten steps begin at these times, both ends counted in.
    within = ClassifierFree(TwoGaussians(), 4.0, interval=(float(GRID[5]), float(GRID[2])))
    found, rows = spent(within, x)
    assert rows == 30 + 4 * 3
    assert not torch.equal(found, plain)
    always, rows = spent(ClassifierFree(TwoGaussians(), 4.0), x)
    assert rows == 60
    assert not torch.equal(found, always)


def test_within_an_interval_each_step_is_the_guided_or_the_plain_one() -> None:
    x = torch.randn(3, 1, dtype=torch.float64)
    interval = (0.3, 0.6)
    for t in (0.2, 0.3, 0.45, 0.6, 0.7):
        time = torch.full((3,), t, dtype=torch.float64)
        scale = 4.0 if interval[0] <= t <= interval[1] else 1.0
        found = ClassifierFree(TwoGaussians(), 4.0, interval=interval)(x, time, told(3)).x0
        assert torch.equal(found, ClassifierFree(TwoGaussians(), scale)(x, time, told(3)).x0)
    # Samples at times of their own are each guided or not.
    mixed = torch.tensor([0.2, 0.45, 0.7], dtype=torch.float64)
    found = ClassifierFree(TwoGaussians(), 4.0, interval=interval)(x, mixed, told(3)).x0
    each = torch.tensor([1.0, 4.0, 1.0])
    wanted = ClassifierFree(TwoGaussians(), each)(x, mixed, told(3)).x0
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("interval", [(0.6, 0.3), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_an_interval_is_two_times(interval: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="lower first"):
        ClassifierFree(TwoGaussians(), 2.0, interval=interval)


def test_a_run_that_remembers_begins_anew_where_guidance_does() -> None:
    x = 80.0 * torch.randn(2, 1, dtype=torch.float64)
    interval = (float(GRID[6]), float(GRID[3]))
    remembering = ClassifierFree(SelfConditioning(TwoGaussians()), 3.0, interval=interval)
    found = last(sample(remembering, get("heun"), GRID, x, told(2)))
    plain = ClassifierFree(TwoGaussians(), 3.0, interval=interval)
    # This denoiser takes no notice of its own belief, so the two are the same run.
    assert torch.equal(found, last(sample(plain, get("heun"), GRID, x, told(2))))


class Pictures(Denoiser):
    """A belief for each of two things that it may be told, whatever x is."""

    def __init__(self) -> None:
        self.process = processes.Gaussian(schedules.cosine())
        generator = torch.Generator().manual_seed(0)
        self.beliefs = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        assert condition is not None
        which = (condition.vector["label"][:, 0] > 0).long()
        return Prediction(self.beliefs[which], x, t, self.process)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_rescaling_is_the_published_one_of_x0(share: float) -> None:
    """Lin et al. 2023, equations 14 to 16."""
    found, guided, positive = _rescaled(share)
    spreads = [x.std(dim=(1, 2, 3), keepdim=True) for x in (positive, guided)]
    wanted = share * guided * spreads[0] / spreads[1] + (1 - share) * guided
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    if share == 1.0:
        spread = found.flatten(1).std(1)
        torch.testing.assert_close(spread, positive.flatten(1).std(1), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_rescaling_is_that_of_diffusers() -> None:
    outside = pytest.importorskip(
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"
    ).rescale_noise_cfg
    found, guided, positive = _rescaled(0.7)
    wanted = outside(guided, positive, guidance_rescale=0.7)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def _rescaled(share: float) -> tuple[Tensor, Tensor, Tensor]:
    """What is believed; what it would be without rescaling; and the belief that was told."""
    denoiser, x = Pictures(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    t = torch.full((2,), 0.5, dtype=torch.float64)
    null, positive = (denoiser.beliefs[i].expand(2, -1, -1, -1) for i in (0, 1))
    found = ClassifierFree(denoiser, 5.0, rescale=share)(x, t, told(2)).x0
    return found, null + 5.0 * (positive - null), positive


def test_a_share_of_rescaling_is_one() -> None:
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="not a share"):
            ClassifierFree(Pictures(), 2.0, rescale=share)


def test_guidance_without_a_null_is_refused() -> None:
    condition = Condition(vector={"label": torch.ones(2, 1)})
    x, t = torch.zeros(2, 1), torch.full((2,), 0.5, dtype=torch.float64)
    with pytest.raises(UsageError, match="null"):
        ClassifierFree(TwoGaussians(), 2.0)(x, t, condition)
    with pytest.raises(UsageError, match="null"):
        ClassifierFree(TwoGaussians(), 2.0)(x, t, None)
