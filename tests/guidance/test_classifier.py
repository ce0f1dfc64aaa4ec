"""Guidance by a classifier: exact where the classifier is, and the same for every schedule."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fromnoise import nets, schedules
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import FixedNoise
from fromnoise.denoisers import Denoiser, GaussianDenoiser, MixtureDenoiser, NetworkDenoiser
from fromnoise.guidance import ClassifierFree, Guide
from fromnoise.guidance.classifier import classifier
from fromnoise.guidance.noisy_classifier import NoisyClassifier, matched
from fromnoise.layers.condition import Condition
from fromnoise.operators.families import FAMILIES
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import Cold, Gaussian, Spectral
from fromnoise.samplers import get, last, sample
from fromnoise.schedules import Schedule

CLASSES = 3
T = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def mixture(schedule: Schedule) -> MixtureDenoiser:
    """Four round Gaussians in the plane, two of them of one class."""
    return MixtureDenoiser(
        torch.tensor([0.2, 0.3, 0.1, 0.4]),
        torch.tensor([[-1.0, 0.0], [0.6, 0.5], [0.2, -0.7], [0.9, 0.1]]),
        torch.tensor([0.3, 0.2, 0.4, 0.25]),
        schedule,
        labels=torch.tensor([0, 1, 2, 0]),
    )


def told(label: Any, count: int = 6) -> Condition:
    index = torch.as_tensor(label).expand(count)
    null = Condition(vector={"label": torch.zeros(count, CLASSES)})
    return Condition(vector={"label": torch.eye(CLASSES)[index]}, null=null)


def exact(denoiser: MixtureDenoiser) -> Any:
    """log p(x_t, y) of each class: the log-odds of p(y | x_t) but for a constant."""

    def log_odds(x: Tensor, t: Tensor) -> Tensor:
        joint, _ = denoiser._joint(x, t, None)
        columns = [joint[:, denoiser.labels == y].logsumexp(1) for y in range(CLASSES)]
        return torch.stack(columns, dim=1)

    return log_odds


def guided(guide: Guide, denoiser: Denoiser) -> Denoiser:
    return guide(denoiser, lambda x0: x0)


@pytest.mark.parametrize("schedule", [schedules.cosine(), schedules.ve(0.01, 20.0)])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_by_the_exact_classifier_it_is_guidance_without_one(
    schedule: Schedule, scale: float
) -> None:
    denoiser = mixture(schedule)
    label = [0, 1, 2, 2, 1, 0]
    free = ClassifierFree(denoiser, scale)(X, T, told(label))
    found = guided(classifier(exact(denoiser), label, scale, "x_t"), denoiser)(X, T)
    for view in ("x0", "score"):
        seen, expected = getattr(found, view), getattr(free, view)
        torch.testing.assert_close(seen, expected, rtol=1e-12, atol=1e-12)
    # The control: another scale is another belief.
    other = guided(classifier(exact(denoiser), label, scale + 0.5, "x_t"), denoiser)(X, T)
    assert (other.x0 - free.x0).abs().max() > 1e-3


def test_a_whole_walk_is_the_same_too() -> None:
    """At scale 1 it is Bayes' rule: the walk of the model that was told the class."""
    denoiser = mixture(schedules.vp())
    grid = torch.linspace(1.0, 0.0, 9, dtype=torch.float64)
    walk = guided(classifier(exact(denoiser), 2, 1.0, "x_t"), denoiser)
    x = last(sample(walk, get("dpm++2m"), grid, X))
    expected = last(sample(denoiser, get("dpm++2m"), grid, X, told(2)))
    torch.testing.assert_close(x, expected, rtol=1e-10, atol=1e-10)


def test_a_scale_of_zero_changes_no_bit_and_asks_no_classifier() -> None:
    def asked(*given: Tensor) -> Tensor:
        raise AssertionError("asked for nothing")

    denoiser = mixture(schedules.cosine())
    grid = torch.linspace(0.99, 0.0, 5, dtype=torch.float64)
    for scale in (0.0, torch.zeros(6)):
        for through in ("x_t", "x0"):
            still = guided(classifier(asked, 1, scale, through), denoiser)
            x = last(sample(still, get("ddim"), grid, X))
            assert torch.equal(x, last(sample(denoiser, get("ddim"), grid, X)))


@pytest.mark.parametrize("through", ["x_t", "x0"])
def test_each_sample_has_its_own_label_and_scale(through: Any) -> None:
    denoiser = mixture(schedules.cosine())
    clean = lambda x0: torch.cat([x0, x0[:, :1] * x0[:, 1:]], dim=1)  # noqa: E731
    by = exact(denoiser) if through == "x_t" else clean
    label, scales = [0, 1, 2, 2, 1, 0], torch.tensor([0.0, 1.0, 2.0, 0.5, 4.0, 1.0])
    together = guided(classifier(by, label, scales, through), denoiser)(X, T).x0
    for i, scale in enumerate(scales.tolist()):
        one = slice(i, i + 1)
        alone = guided(classifier(by, label[i], scale, through), denoiser)(X[one], T[one]).x0
        torch.testing.assert_close(together[one], alone, rtol=1e-12, atol=1e-12)


def test_mixed_labels_pull_by_their_weights() -> None:
    denoiser = mixture(schedules.cosine())

    def push(label: Any) -> Tensor:
        guide = classifier(exact(denoiser), label, 1.0, "x_t")
        return guided(guide, denoiser)(X, T).x0 - denoiser(X, T).x0

    both = push({0: 0.25, 2: 0.75})
    torch.testing.assert_close(both, 0.25 * push(0) + 0.75 * push(2), rtol=1e-12, atol=1e-12)


def test_it_is_algorithm_2_in_the_noise_and_algorithm_1_in_the_ancestral_step() -> None:
    """ε' = ε − w·σ·∇; the ancestral mean moves by w·β/√(1−β)·∇, which is w·Σ·∇ at small β."""
    schedule = schedules.linear(1000)
    denoiser, scale = mixture(schedule), 3.0
    t = schedule.index_time(torch.tensor([500])).expand(6)
    x = X.clone().requires_grad_()
    log_p = exact(denoiser)(x, t).log_softmax(1)[:, 1].sum()
    (gradient,) = torch.autograd.grad(log_p, x)
    walk = guided(classifier(exact(denoiser), 1, scale, "x_t"), denoiser)
    sigma = schedule(t).sigma[:, None]
    expected = denoiser(X, t).eps - scale * sigma * gradient
    torch.testing.assert_close(walk(X, t).eps, expected, rtol=1e-11, atol=1e-11)

    grid = schedule.index_time(torch.tensor([500, 499]))
    moved, plain = (
        last(sample(one, get("ddpm"), grid, X, noise=FixedNoise([torch.zeros_like(X)] * 2)))
        for one in (walk, denoiser)
    )
    beta = schedule.betas[500].item()
    by = scale * beta / (1 - beta) ** 0.5 * gradient
    torch.testing.assert_close(moved - plain, by, rtol=1e-9, atol=1e-11)


def test_through_the_belief_the_gradient_goes_through_the_denoiser() -> None:
    """For x̂0 = g·x and a logistic reader of a·x̂0, ∇_x log p(1|x̂0) = (1 − p)·g·a."""
    schedule = schedules.cosine()
    denoiser = GaussianDenoiser(0.0, 0.5, schedule)
    direction = torch.tensor([[1.5, -2.0]], dtype=torch.float64)

    def reads(pictures: Tensor) -> Tensor:
        score = (direction * pictures).sum(1, keepdim=True)
        return torch.cat([torch.zeros_like(score), score], dim=1)

    alpha, sigma = (s[:, None] for s in schedule(T))
    gain = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2)
    # What is read is the decoded belief: here twice as large.
    wrong = 1 - torch.sigmoid((direction * 2 * gain * X).sum(1, keepdim=True))
    expected = gain * X + 1.7 * sigma**2 / alpha * wrong * 2 * gain * direction
    found = classifier(reads, 1, 1.7)(denoiser, lambda x0: 2 * x0)(X, T).x0
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_classifier_of_one_schedule_reads_the_noise_of_any_other() -> None:
    """p(y | x_t) depends on x_t/α and σ/α alone."""
    own, other = mixture(schedules.vp()), mixture(schedules.ve(0.01, 20.0))
    x, t = matched(X, T, other.process, own.process)
    seen = exact(own)(x, t).log_softmax(1)
    torch.testing.assert_close(seen, exact(other)(X, T).log_softmax(1), rtol=1e-9, atol=1e-9)
    unscaled = exact(own)(X, t).log_softmax(1)
    assert (unscaled - seen).abs().max() > 0.1
    there = matched(X, T, own.process, Gaussian(schedules.vp()))
    torch.testing.assert_close(there[0], X)
    torch.testing.assert_close(there[1], T)
    # More noise than it ever knew is shown as the most it knows.
    noise, last_time = matched(
        50.0 * X,
        torch.ones_like(T),
        Gaussian(schedules.ve(0.01, 50.0)),
        Gaussian(schedules.ve(0.01, 20.0)),
    )
    assert torch.equal(last_time, torch.ones_like(T))
    torch.testing.assert_close(noise, 20.0 * X, rtol=1e-2, atol=0.0)


def network(classes: int = CLASSES) -> NetworkDenoiser:
    torch.manual_seed(0)
    net = nets.build(
        {
            "kind": "classifier",
            "in_channels": 1,
            "classes": classes,
            "size": 4,
            "channels": 8,
            "multipliers": [1],
            "blocks": 1,
            "style": {"groups": 4},
        }
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return NetworkDenoiser(net, schedules.cosine(), PARAMETERIZATIONS.build({"kind": "eps"}))


def test_a_network_guides_models_of_its_own_and_of_other_schedules() -> None:
    noisy = NoisyClassifier(network(), ["cat", "dog", "owl"])
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.3, 0.6], dtype=torch.float64)
    for schedule in (schedules.cosine(), schedules.ve(0.01, 20.0)):
        denoiser = GaussianDenoiser(0.0, 0.5, schedule)
        for through in ("x_t", "x0"):
            found = guided(classifier(noisy, ["dog", 2], 1.0, through), denoiser)(x, t)
            assert found.x0.dtype == x.dtype and not found.x0.requires_grad
            leaf = x.clone().requires_grad_()
            shown, zero = denoiser(leaf, t).x0, torch.zeros(2, dtype=torch.float64)
            odds = noisy(leaf, t, denoiser.process) if through == "x_t" else noisy(shown, zero)
            chosen = odds.log_softmax(1)[[0, 1], [1, 2]].sum()
            (gradient,) = torch.autograd.grad(chosen, leaf)
            alpha, sigma = (s.float().reshape(2, 1, 1, 1) for s in schedule(t))
            expected = denoiser(x, t).x0 + sigma**2 / alpha * gradient
            torch.testing.assert_close(found.x0, expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused() -> None:
    noisy = NoisyClassifier(network(), CLASSES)
    with pytest.raises(UsageError, match="label 7 is not a class"):
        classifier(noisy, 7)
    with pytest.raises(UsageError, match="label 'cat'"):
        classifier(noisy, [0, "cat"])
    with pytest.raises(UsageError, match="not finite"):
        classifier(noisy, 1, float("nan"))
    with pytest.raises(UsageError, match="limit"):
        classifier(noisy, 1, limit=0.0)
    with pytest.raises(UsageError, match="knows 3 classes, not 4"):
        NoisyClassifier(network(), 4)
    drawing = nets.build({"kind": "unet", "in_channels": 1, "channels": 8, "style": {"groups": 4}})
    with pytest.raises(UsageError, match="draws and does not classify"):
        NoisyClassifier(NetworkDenoiser(drawing, schedules.vp(), network().parameterization), 3)
    x, t = torch.zeros(2, 1, 4, 4), T[:2]
    denoiser = GaussianDenoiser(0.0, 1.0, schedules.cosine())
    with pytest.raises(ShapeError, match="3 labels given for 2"):
        guided(classifier(noisy, [0, 1, 2]), denoiser)(x, t)
    with pytest.raises(ShapeError, match="3 classifier scales for 2"):
        guided(classifier(noisy, 1, torch.ones(3)), denoiser)(x, t)
    blurred = GaussianDenoiser(0.0, 1.0, Spectral(schedules.cosine(), 4, 4, blur=1.0))
    with pytest.raises(UsageError, match="plain noise"):
        guided(classifier(noisy, 1), blurred)(x, t)
    assert guided(classifier(noisy, 1, through="x0"), blurred)(x, t).x0.shape == x.shape
    cold = Cold(FAMILIES.build({"kind": "blur", "steps": 4}))
    with pytest.raises(UsageError, match="plain noise"):
        noisy(x, t, cold)
