"""Distances between two sets of samples: Fréchet, kernel, precision and recall, nearest neighbours.

Each works on features (N, F) of any kind (`features.py` names them), in float64, and gives an
`Estimate` with a 95 % interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.evaluate.intervals import Estimate, bootstrap, mean, wilson

NEAR_QUANTILE = 0.01
FLAG_SHARE = 0.1


def frechet_from_moments(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """The squared 2-Wasserstein distance of two Gaussians, by their means and covariances.

    ‖μ_a − μ_b‖² + tr(C_a + C_b − 2·(C_a·C_b)^½).
    tr (C_a·C_b)^½ is the sum of the singular values of C_a^½·C_b^½, the roots by eigenvalues: exact
    for singular covariances too, where a matrix square root of the product is not.
    (Dowson & Landau 1982; as a measure of pictures Heusel et al. 2017, eq. 6.)
    """
    gap = (mean_a - mean_b).double()
    cross: Tensor = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    distance = gap @ gap + cov_a.double().trace() + cov_b.double().trace() - 2 * cross
    return max(float(distance), 0.0)


def frechet_distance(real: Tensor, fake: Tensor, seed: int = 0, resamples: int = 200) -> Estimate:
    """The Fréchet distance of features real (N, F) and fake (M, F), with a bootstrap interval.

    Lower is better. It falls with the number of samples: compare at equal numbers only.
    """
    real, fake = _pair(real, fake)
    value = frechet_from_moments(*_moments(real), *_moments(fake))

    def of(a: Tensor, b: Tensor) -> float:
        return frechet_from_moments(*_moments(real, a), *_moments(fake, b))

    low, high = bootstrap(of, value, (len(real), len(fake)), seed, resamples)
    return Estimate(value, max(low, 0.0), high, len(fake))


def kid(real: Tensor, fake: Tensor, seed: int = 0, resamples: int = 200) -> Estimate:
    """The kernel distance: the unbiased estimate of MMD² with k(a, b) = (a·b/F + 1)³.

    mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) − 2·mean k(x_i, y_j): 0 on average for equal
    distributions, so it may be negative (Bińkowski et al. 2018, section 4). In the bootstrap a
    sample drawn twice is not paired with itself.
    """
    real, fake = _pair(real, fake)
    within_real, within_fake = (_kernel(a, a).fill_diagonal_(0) for a in (real, fake))
    across = _kernel(real, fake)

    def of(a: Tensor, b: Tensor) -> float:
        both = a @ across @ b / (a.sum() * b.sum())
        return (_off_diagonal(within_real, a) + _off_diagonal(within_fake, b) - 2 * both).item()

    value = of(*(torch.ones(len(a), dtype=torch.float64) for a in (real, fake)))
    low, high = bootstrap(of, value, (len(real), len(fake)), seed, resamples)
    return Estimate(value, low, high, len(fake))


@dataclass(frozen=True)
class Manifolds:
    """How far two sets of samples cover each other, each a share with its interval.

    precision: of samples within the real manifold; recall: of real data within the samples'.
    density: how many real neighbourhoods a sample lies in, over k; it may exceed 1.
    coverage: of real data whose neighbourhood holds a sample.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def manifolds(real: Tensor, fake: Tensor, k: int = 3) -> Manifolds:
    """Precision and recall with balls reaching to the k-th nearest neighbour within each set.

    A point is in a set's manifold when it lies within ‖x_i − NN_k(x_i)‖ of some x_i of it
    (Kynkäänniemi et al. 2019, eq. 1 and 2; density and coverage: Naeem et al. 2020, eq. 4 and 6).
    The intervals of shares are Wilson's, with the other set held as it is.
    Raises UsageError for fewer than k + 1 samples.
    """
    real, fake = _pair(real, fake)
    if not 1 <= k < min(len(real), len(fake)):
        raise UsageError(f"k {k} needs more than {k} samples on both sides")
    across = distances(real, fake)
    in_real = across <= _radii(real, k)[:, None]
    in_fake = across <= _radii(fake, k)[None, :]
    told = {"k": k}
    return Manifolds(
        precision=_share(in_real.any(0), told),
        recall=_share(in_fake.any(1), told),
        density=mean(in_real.double().sum(0) / k, told),
        coverage=_share(in_real.any(1), told),
    )


def nearest_train_distance(
    train: Tensor, held_out: Tensor, fake: Tensor, levels: int | None = None
) -> Estimate:
    """How near samples come to the training data: mean over samples of min_i ‖x − train_i‖₂.

    train, held_out, fake: samples (N, ...) in [−1, 1]; real data that was not trained on is the
    yardstick. `more` holds, besides the held-out mean:
    exact_copies: samples equal to a training sample (to the data's own `levels` where given);
    near_copies: the share nearer than all but 1 % of held-out data, with its interval;
    near_threshold: that distance; copying: whether near copies are surely above a tenth, or
    exact copies surely above those that held-out data has of it.
    """
    own, base = (nearest(train, x) for x in (fake, held_out))
    threshold = torch.quantile(base, NEAR_QUANTILE).item()
    near = _share(own <= threshold)
    exact, usual = (_share(copies(train, x, levels)) for x in (fake, held_out))
    found = mean(own)
    copying = (near.low or 0.0) > FLAG_SHARE or (exact.low or 0.0) > (usual.high or 1.0)
    more = {
        "held_out": mean(base),
        "median": own.median().item(),
        "held_out_median": base.median().item(),
        "exact_copies": round(exact.value * len(fake)),
        "near_copies": near,
        "near_threshold": threshold,
        "copying": bool(copying),
    }
    return Estimate(found.value, found.low, found.high, len(fake), more)


def nearest(train: Tensor, x: Tensor) -> Tensor:
    """The Euclidean distance (B,) of each x (B, ...) to the nearest of train (N, ...)."""
    train, x = _pair(train.flatten(1), x.flatten(1))
    return torch.cat([distances(train, part).amin(0) for part in torch.split(x, 1024)])


def copies(train: Tensor, x: Tensor, levels: int | None = None) -> Tensor:
    """Whether each x (B, ...) equals a training sample once both are rounded to the levels (B,)."""
    if levels is not None:
        train, x = (torch.round((v.double() + 1) * (levels - 1) / 2) + 0.0 for v in (train, x))
    known = {row.numpy().tobytes() for row in train.detach().double().flatten(1)}
    rows = x.detach().double().flatten(1)
    return torch.tensor([row.numpy().tobytes() in known for row in rows])


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N, M) between rows, without the cancellation of a matrix product."""
    found: Tensor = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return found


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ShapeError(
            f"need two sets (N, F) of at least 2 rows each and the same F, got "
            f"{tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a.detach().double(), b.detach().double()


def _moments(x: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and covariance (over n − 1) of rows, each counted so many times."""
    counts = torch.ones(len(x), dtype=torch.float64) if counts is None else counts
    centre = counts @ x / counts.sum()
    gap = x - centre
    return centre, (counts[:, None] * gap).T @ gap / (counts.sum() - 1)


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov.double())
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _off_diagonal(kernel: Tensor, counts: Tensor) -> Tensor:
    """The mean over pairs of different samples; the kernel's diagonal is 0."""
    return counts @ kernel @ counts / (counts.sum() ** 2 - (counts**2).sum())


def _radii(x: Tensor, k: int) -> Tensor:
    # The nearest to a point is itself.
    return distances(x, x).kthvalue(k + 1, dim=1).values


def _share(true: Tensor, more: Mapping[str, float] | None = None) -> Estimate:
    return wilson(int(true.sum()), len(true), more)
