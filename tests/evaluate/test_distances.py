"""Distances against closed forms, other implementations in the same run, and negative controls."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.neighbors import NearestNeighbors
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import maximum_mean_discrepancy, poly_kernel

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.evaluate.distances import (
    copies,
    frechet_distance,
    frechet_from_moments,
    kid,
    manifolds,
    nearest,
    nearest_train_distance,
)


def normal(count: int, size: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, size, generator=generator, dtype=torch.float64)


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    mean_a, mean_b = normal(2, 6, 0)
    std_a, std_b = normal(2, 6, 1).abs()
    found = frechet_from_moments(mean_a, torch.diag(std_a**2), mean_b, torch.diag(std_b**2))
    truth = ((mean_a - mean_b) ** 2).sum() + ((std_a - std_b) ** 2).sum()
    assert found == pytest.approx(truth.item(), abs=1e-8)


def test_frechet_agrees_with_torchmetrics_and_with_a_matrix_square_root():
    x, y = normal(300, 7, 2) @ normal(7, 7, 3), 0.3 + normal(250, 7, 4)
    found = frechet_distance(x, y, resamples=1).value
    moments = [x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T)]
    theirs = _compute_fid(*moments).item()
    root = np.trace(sqrtm(moments[1].numpy() @ moments[3].numpy()).real)
    gap = moments[0] - moments[2]
    direct = (gap @ gap + moments[1].trace() + moments[3].trace()).item() - 2 * root
    assert found == pytest.approx(theirs, rel=1e-9)
    assert found == pytest.approx(direct, rel=1e-9)


def test_frechet_of_singular_covariances_is_exact():
    # Fewer samples than features, and two that span different planes.
    x = normal(5, 40, 5)
    assert frechet_distance(x, x, resamples=1).value < 1e-10 * x.square().sum()
    line = torch.diag(torch.tensor([4.0, 0.0, 0.0]))
    other = torch.diag(torch.tensor([0.0, 9.0, 0.0]))
    assert frechet_from_moments(torch.zeros(3), line, torch.zeros(3), other) == pytest.approx(13)


def test_frechet_in_one_dimension_is_the_squared_wasserstein_distance():
    # y is an affine map of x, so that the distance of the Gaussians is that of the samples.
    x = normal(400, 1, 6)
    y = 1.5 * x + 0.7
    sorted_gap = (x.sort(0).values - y.sort(0).values).square().mean().item()
    assert frechet_distance(x, y, resamples=1).value == pytest.approx(sorted_gap, rel=1 / 390)


@pytest.mark.slow
def test_the_interval_of_a_frechet_distance_covers_its_expectation():
    values = []
    for seed in range(120):
        x, y = normal(80, 3, 1000 + seed), 0.4 + normal(80, 3, 5000 + seed, 1.3)
        values.append(frechet_distance(x, y, seed=seed, resamples=60))
    expected = sum(v.value for v in values) / len(values)
    hits = sum(v.low <= expected <= v.high for v in values)
    # 95 % asked for; 120 trials of an honest 90 % give 100 or fewer once in 200.
    assert hits >= 100


def test_kid_is_the_unbiased_estimate_of_torchmetrics():
    x, y = normal(60, 5, 7), 0.5 + normal(60, 5, 8)
    theirs = maximum_mean_discrepancy(poly_kernel(x, x), poly_kernel(x, y), poly_kernel(y, y))
    assert kid(x, y, resamples=1).value == pytest.approx(theirs.item(), rel=1e-12)


def test_kid_of_equal_distributions_is_zero_on_average_and_its_interval_holds_it():
    found = [kid(normal(60, 4, s), normal(60, 4, 900 + s), s, 80) for s in range(100)]
    values = torch.tensor([f.value for f in found])
    assert values.mean().abs() < 3 * values.std() / 10
    assert values.min() < 0 < values.max()
    assert sum(f.low <= 0 <= f.high for f in found) >= 85
    assert kid(normal(60, 4, 1), 1 + normal(60, 4, 2), 0, 80).low > 0


def test_intervals_repeat_with_their_seed_and_differ_without():
    x, y = normal(50, 3, 9), normal(50, 3, 10)
    first, again, other = (frechet_distance(x, y, seed, 30) for seed in (0, 0, 1))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


def test_manifolds_agree_with_nearest_neighbours_of_scikit_learn():
    real, fake = normal(120, 3, 11).numpy(), (0.6 * normal(90, 3, 12) + 0.5).numpy()
    found = manifolds(torch.tensor(real), torch.tensor(fake), k=5)

    def within(points: np.ndarray, of: np.ndarray) -> np.ndarray:
        # Six neighbours: the first is the point itself.
        radii = NearestNeighbors(n_neighbors=6).fit(of).kneighbors(of)[0][:, -1]
        gaps = np.linalg.norm(points[:, None] - of[None], axis=2)
        return gaps <= radii

    assert found.precision.value == within(fake, real).any(1).mean()
    assert found.recall.value == within(real, fake).any(1).mean()
    assert found.density.value == pytest.approx(within(fake, real).sum(1).mean() / 5)
    assert found.coverage.value == within(fake, real).any(0).mean()


def test_precision_falls_for_noise_and_recall_for_one_repeated_sample():
    real = normal(200, 2, 13)
    alike = manifolds(real, normal(200, 2, 14))
    assert alike.precision.low > 0.85 and alike.recall.low > 0.85
    far = manifolds(real, 20 + normal(200, 2, 15))
    assert far.precision.high < 0.05 and far.recall.high < 0.05
    narrow = manifolds(real, normal(200, 2, 16, 0.05))
    assert narrow.precision.low > 0.95 and narrow.recall.high < 0.3


def test_nearest_is_the_brute_force_minimum():
    train, x = normal(70, 4, 17), normal(30, 4, 18)
    brute = torch.stack([(train - row).norm(dim=1).min() for row in x])
    torch.testing.assert_close(nearest(train, x), brute)


def test_copies_of_training_data_are_flagged_and_held_out_data_is_not():
    levels = 17
    data = torch.round(normal(600, 9, 19).clamp(-1, 1) * 8) / 8
    train, held_out, fresh = data[:300], data[300:450], data[450:]
    stolen = nearest_train_distance(train, held_out, train[:100], levels)
    assert stolen.value == 0.0 and stolen.more["exact_copies"] == 100 and stolen.more["copying"]
    honest = nearest_train_distance(train, held_out, fresh, levels)
    assert not honest.more["copying"] and honest.more["near_copies"].low < 0.02
    assert honest.value == pytest.approx(honest.more["held_out"].value, rel=0.2)
    # Copies with a little noise are no longer exact, and are flagged still.
    blurred = nearest_train_distance(train, held_out, train[:100] + 0.07 * normal(100, 9, 20))
    assert blurred.more["exact_copies"] == 0 and blurred.more["copying"]


def test_copies_compare_levels_not_rounding():
    train = torch.tensor([[-1.0, 0.25, 1.0]])
    near = train + torch.tensor([[1e-3, -0.05, 0.0]])
    assert copies(train, near, 17).tolist() == [True]
    assert copies(train, near, None).tolist() == [False]
    assert copies(train, train + 0.13, 17).tolist() == [False]


def test_wrong_sets_are_refused():
    with pytest.raises(ShapeError, match="same F"):
        frechet_distance(normal(5, 3, 0), normal(5, 4, 0))
    with pytest.raises(UsageError, match="k 5"):
        manifolds(normal(5, 3, 0), normal(9, 3, 0), k=5)
