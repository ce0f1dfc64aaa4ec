"""The probability-flow ODE against exact densities."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise import nets, schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import (
    Denoiser,
    EmpiricalDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    NetworkDenoiser,
    Prediction,
)
from fromnoise.evaluate.ode import (
    LostFlow,
    OdeSettings,
    flow_bits_per_dim,
    lifted_bits_per_dim,
    limits,
    log_likelihood,
)
from fromnoise.layers.condition import Condition
from fromnoise.parameterizations import Eps
from fromnoise.processes import Gaussian, Spectral

VP = {
    "linear": schedules.linear(),
    "cosine": schedules.cosine(),
    "vp": schedules.vp(),
    "zero terminal": schedules.zero_terminal_snr(schedules.linear()),
}
OTHERS = {
    "ve": schedules.ve(1e-3, 50.0),
    "edm": schedules.edm(),
    "flow": schedules.flow(),
    "sub_vp": schedules.sub_vp(),
}


def nodes(count: int = 9) -> tuple[Tensor, Tensor]:
    """Points and weights that integrate against N(0, 1)."""
    z, w = np.polynomial.hermite_e.hermegauss(count)
    return torch.tensor(z)[:, None], torch.tensor(w / w.sum())


def gaussian_truth(x: Tensor, mean: float, std: float) -> Tensor:
    return torch.distributions.Normal(mean, std).log_prob(x).sum(1)


@pytest.mark.parametrize("name", [*VP, *OTHERS])
def test_exact_prior_gives_the_true_density_everywhere(name: str):
    denoiser = GaussianDenoiser(0.3, 0.6, (VP | OTHERS)[name])
    z, _ = nodes(5)
    x = 0.3 + 0.6 * z
    found = log_likelihood(denoiser, x, prior=denoiser.log_prob)
    torch.testing.assert_close(found.log_density, gaussian_truth(x, 0.3, 0.6), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", VP)
def test_where_variance_is_preserved_the_standard_prior_is_enough(name: str):
    denoiser = GaussianDenoiser(0.3, 0.6, VP[name])
    z, weights = nodes()
    found = log_likelihood(denoiser, 0.3 + 0.6 * z).log_density @ weights
    truth = -0.5 * math.log(2 * math.pi * math.e * 0.36)
    assert found.item() == pytest.approx(truth, abs=1e-3)


def test_a_wrong_denoiser_is_found_out():
    z, weights = nodes()
    wrong = GaussianDenoiser(0.0, 1.0, schedules.vp())
    found = log_likelihood(wrong, 0.3 + 0.6 * z).log_density @ weights
    # It believes N(0, 1): the mean log density of that, below minus the entropy.
    believed = gaussian_truth(0.3 + 0.6 * z, 0.0, 1.0) @ weights
    assert found.item() == pytest.approx(believed.item(), abs=1e-3)
    assert found < -0.5 * math.log(2 * math.pi * math.e * 0.36) - 0.1


@pytest.mark.parametrize(("tolerance", "allowed"), [(1e-3, 1e-1), (1e-5, 1e-3), (1e-8, 4e-5)])
def test_mixture_density_to_the_tolerance_asked_for(tolerance: float, allowed: float):
    denoiser = MixtureDenoiser(
        torch.tensor([0.3, 0.7]),
        torch.tensor([[-1.0, 0.5], [0.6, -0.2]]),
        torch.tensor([0.3, 0.2]),
        schedules.ve(1e-3, 50.0),
    )
    x = denoiser.draw(6)
    settings = OdeSettings(rtol=tolerance, atol=tolerance)
    found = log_likelihood(denoiser, x, prior=denoiser.log_prob, settings=settings)
    truth = denoiser.log_prob(x, torch.zeros(6, dtype=torch.float64))
    assert (found.log_density - truth).abs().max() < allowed


def test_the_latent_is_the_flow_map_of_the_gaussian():
    denoiser = GaussianDenoiser(0.3, 0.6, schedules.ve(1e-3, 50.0))
    x = torch.tensor([[-0.4], [0.3], [1.2]], dtype=torch.float64)
    settings = OdeSettings(rtol=1e-9, atol=1e-9)
    latent = log_likelihood(denoiser, x, settings=settings).latent
    expected = 0.3 + (x - 0.3) * math.sqrt((0.36 + 2500) / (0.36 + 1e-6))
    torch.testing.assert_close(latent, expected, rtol=1e-6, atol=0)


def test_blur_and_coloured_noise_flow_in_their_own_basis():
    process = Spectral(schedules.vp(), 4, 4, blur=2.0, tilt=1.0)
    denoiser = GaussianDenoiser(0.1, 0.5, process)
    z = 0.1 + 0.5 * Noise(0, 3).normal(torch.zeros(3, 1, 4, 4, dtype=torch.float64))
    found = log_likelihood(denoiser, process.synthesise(z), prior=denoiser.log_prob)
    truth = gaussian_truth(z.flatten(1), 0.1, 0.5)
    assert ((found.log_density - truth) / 16).abs().max() < 1e-3


class Correlated(Denoiser):
    """N(0, cov) with any covariance: its belief mixes the coordinates."""

    def __init__(self, cov: Tensor, schedule: schedules.Schedule) -> None:
        self.process, self.cov = Gaussian(schedule), cov

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        alpha, sigma = self.process.scales(t[:1], x)
        total = alpha**2 * self.cov + sigma**2 * torch.eye(len(self.cov))
        return Prediction(x @ (alpha * self.cov @ torch.linalg.inv(total)).T, x, t, self.process)


def test_correlated_data_by_exact_and_by_random_traces():
    root = Noise(5).normal(torch.zeros(1, 4, 4, dtype=torch.float64))[0]
    cov = root @ root.T + 0.2 * torch.eye(4)
    denoiser = Correlated(cov, schedules.vp())
    x = Noise(0, 5).normal(torch.zeros(5, 4, dtype=torch.float64)) @ root.T
    truth = torch.distributions.MultivariateNormal(torch.zeros(4).double(), cov).log_prob(x)
    exact = log_likelihood(denoiser, x).log_density
    assert ((exact - truth) / 4).abs().max() < 2e-3
    # One row a hundred times, with a hundred probes: unbiased, and not exact.
    rows = x[:1].expand(100, 4).contiguous()
    settings = OdeSettings(probes=1, rtol=1e-4, atol=1e-4)
    random = log_likelihood(denoiser, rows, settings=settings, noise=Noise(0, 100)).log_density
    assert random.std() > 1e-2
    assert (random.mean() - exact[0]).abs() < 4 * random.std() / 10
    again = log_likelihood(denoiser, rows, settings=settings, noise=Noise(0, 100)).log_density
    assert torch.equal(random, again)


class Hadamard(Noise):
    """Draws the rows of a Hadamard matrix one after the other: sign vectors at right angles."""

    def __init__(self, size: int, count: int) -> None:
        super().__init__(0, count)
        matrix = torch.ones(1, 1)
        while len(matrix) < size:
            matrix = torch.kron(matrix, torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        self._rows = list(matrix)

    def uniform(self, like: Tensor) -> Tensor:
        row = self._rows.pop(0).reshape(like.shape[1:])
        return (0.5 + 0.4 * row).expand_as(like).to(like)


def test_traces_of_a_network_with_attention():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nets.build(
            {"kind": "unet", "in_channels": 1, "channels": 8, "multipliers": [1, 2],
             "blocks": 1, "attention": {"at": [2]}, "style": {"groups": 4}}
        )  # fmt: skip
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
    denoiser = NetworkDenoiser(net.double().eval(), schedules.cosine(), Eps())
    x = Noise(0, 2).normal(torch.zeros(2, 1, 4, 4, dtype=torch.float64))
    span = OdeSettings(start=0.3, end=0.5, rtol=1e-3, atol=1e-3)
    exact = log_likelihood(denoiser, x, settings=span)
    # Σ vᵀJv over as many orthogonal sign vectors as dimensions is the trace itself.
    probed = log_likelihood(denoiser, x, settings=replace(span, probes=16), noise=Hadamard(16, 2))
    torch.testing.assert_close(exact.log_density, probed.log_density, atol=1e-9, rtol=0)
    assert all(p.grad is None for p in net.parameters())


LEVELS = torch.linspace(-1, 1, 17, dtype=torch.float64)[:, None]


@pytest.mark.slow
def test_lifted_bits_of_evenly_likely_levels_are_log2_of_their_number():
    denoiser = EmpiricalDenoiser(LEVELS, schedules.ve(0.002, 80.0))
    settings = OdeSettings(start=limits(denoiser.process)[0] * 2)
    found = lifted_bits_per_dim(denoiser, LEVELS, 17, Noise(0, 17), settings=settings).mean()
    assert found.item() == pytest.approx(math.log2(17), abs=5e-3)
    # Spread over its cells, data is where this denoiser believes nothing lies.
    spread = flow_bits_per_dim(denoiser, LEVELS, 17, Noise(0, 17))
    assert spread.mean() > math.log2(17) + 5


def test_lifted_bits_are_a_bound_from_every_start():
    denoiser = EmpiricalDenoiser(LEVELS, schedules.ve(0.002, 80.0))
    x = LEVELS.repeat(20, 1)
    schedule = denoiser.process.schedule
    for sigma in (0.03, 0.08, 0.3):
        start = schedule.time(torch.tensor(-2 * math.log(sigma))).item()
        settings = OdeSettings(start=start, rtol=1e-4, atol=1e-4)
        noise = Noise(0, len(x))
        found = lifted_bits_per_dim(denoiser, x, 17, noise, settings=settings, error=sigma**2)
        assert found.mean() > math.log2(17) - 3 * found.std() / math.sqrt(len(x))


def test_dequantised_bits_of_a_rounded_gaussian():
    # Rounded to steps an eighth of its standard deviation: entropy h(p) − log w to 1e-3.
    levels, std = 129, 1 / 8
    generator = torch.Generator().manual_seed(3)
    x = torch.round(std * torch.randn(400, 1, generator=generator, dtype=torch.float64) * 64) / 64
    denoiser = GaussianDenoiser(0.0, std, schedules.vp())
    settings = OdeSettings(start=1e-5)
    found = flow_bits_per_dim(denoiser, x, levels, Noise(0, 400), settings=settings)
    edges = torch.distributions.Normal(0.0, std)
    mass = edges.cdf(x + 1 / 128) - edges.cdf(x - 1 / 128)
    truth = -torch.log2(mass).mean()
    assert found.mean().item() == pytest.approx(truth.item(), abs=0.02)


class Stiff(Denoiser):
    """A belief many times what it is shown, as a network's may be that is hardly trained.

    The flow falls to 0 at once, and every step must be as short as that fall.
    """

    def __init__(self, factor: float) -> None:
        self.process, self.factor, self.asked = Gaussian(schedules.vp()), factor, 0

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        self.asked += 1
        return Prediction(self.factor * x, x, t, self.process)


def test_a_flow_that_cannot_be_followed_is_given_up():
    x = torch.full((2, 1), 0.3, dtype=torch.float64)
    stiff = Stiff(1e5)
    with pytest.raises(LostFlow, match="after 400 evaluations.*Train longer"):
        log_likelihood(stiff, x, settings=OdeSettings(evaluations=400))
    assert stiff.asked == 400
    assert OdeSettings().evaluations == 4000
    # The control: a belief of data's size is followed well within that.
    calm = Stiff(0.5)
    assert log_likelihood(calm, x).evaluations == calm.asked < 400


def test_times_without_finite_noise_are_refused():
    x = torch.zeros(1, 1, dtype=torch.float64)
    denoiser = GaussianDenoiser(0.0, 1.0, schedules.flow())
    for settings in (OdeSettings(start=0.0), OdeSettings(end=1.0)):
        with pytest.raises(UsageError, match="finite noise"):
            log_likelihood(denoiser, x, settings=settings)
    with pytest.raises(UsageError, match="probes 0"):
        log_likelihood(denoiser, x, settings=OdeSettings(probes=0))
