"""Exact denoisers: distributions whose posterior mean E[x0 | x_t] is known in closed form.

They are for teaching (no training needed to see a sampler work) and for testing (an oracle that
cannot be wrong). All work in float64 inside.
"""

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError
from fromnoise.core.tensors import flat_sum
from fromnoise.denoisers.base import Denoiser, Prediction
from fromnoise.layers.condition import Condition
from fromnoise.processes import Process, as_process
from fromnoise.schedules import Schedule


class GaussianDenoiser(Denoiser):
    """Data x0 ~ N(mean, std²), independent per coefficient of the process's basis.

    E[x0|x] = (α·std²·x + σ²·mean)/(α²·std² + σ²), Var[x0|x] = std²·σ²/(α²·std² + σ²).
    `mean` and `std` broadcast to one sample (C, H, W) in that basis (pixels, unless the process
    is spectral).
    """

    def __init__(
        self, mean: Tensor | float, std: Tensor | float, process: Process | Schedule
    ) -> None:
        self.process = as_process(process)
        self.mean = torch.as_tensor(mean, dtype=torch.float64)
        self.std = torch.as_tensor(std, dtype=torch.float64)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        alpha, sigma = self.process.scales(t, x)
        total = alpha**2 * self.std**2 + sigma**2
        weight, rest = alpha * self.std**2 / total, sigma**2 * self.mean / total
        z = self.process.analyse(x.double())
        x0 = self.process.synthesise(weight * z + rest).to(x.dtype)
        var = (self.std**2 * sigma**2 / total).to(x.dtype)
        return Prediction(x0, x, t, self.process, var=var)

    def log_prob(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_t(x) (B,), in nats, of x_t."""
        alpha, sigma = self.process.scales(t, x)
        var = alpha**2 * self.std**2 + sigma**2
        z = self.process.analyse(x.double())
        return flat_sum(
            -0.5 * (z - alpha * self.mean) ** 2 / var - 0.5 * torch.log(2 * torch.pi * var)
        )


class MixtureDenoiser(Denoiser):
    """Data from a mixture of round Gaussians: weights (K,), means (K, D), standard deviations (K,).

    With V_k = α²·std_k² + σ² and r_k = softmax_k(log w_k + log N(x; α·mean_k, V_k)),
    E[x0|x] = Σ r_k·(mean_k + α·std_k²/V_k·(x − α·mean_k)). Samples are (B, D).
    `labels` (K,) names a class for each component; a condition's `vector["label"]` (B, classes)
    then reweights the components, all zeros meaning no condition.
    """

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        stds: Tensor,
        process: Process | Schedule,
        labels: Tensor | None = None,
    ) -> None:
        self.process = as_process(process)
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.means = torch.as_tensor(means, dtype=torch.float64)
        self.stds = torch.as_tensor(stds, dtype=torch.float64)
        self.labels = labels
        if self.means.ndim != 2 or not (
            self.weights.shape == self.stds.shape == self.means.shape[:1]
        ):
            raise ShapeError(
                f"need weights (K,), means (K, D), stds (K,); got {tuple(self.weights.shape)}, "
                f"{tuple(self.means.shape)}, {tuple(self.stds.shape)}"
            )

    def _joint(self, x: Tensor, t: Tensor, condition: Condition | None) -> tuple[Tensor, Tensor]:
        """log w_k + log N(x; α·mean_k, V_k) (B, K), and V_k (B, K)."""
        alpha, sigma = self.process.scales(t, x)
        var = alpha**2 * self.stds**2 + sigma**2
        gap = x.double()[:, None, :] - alpha[:, :, None] * self.means
        log_normal = -0.5 * gap.square().sum(-1) / var - 0.5 * self.means.shape[1] * torch.log(
            2 * torch.pi * var
        )
        return torch.log(self._weights(condition)) + log_normal, var

    def _weights(self, condition: Condition | None) -> Tensor:
        told = None if condition is None else condition.vector.get("label")
        if told is None or self.labels is None:
            return self.weights / self.weights.sum()
        empty = told.sum(dim=1, keepdim=True) == 0
        chosen = torch.where(empty, 1.0, told.double())[:, self.labels] * self.weights
        return chosen / chosen.sum(dim=1, keepdim=True)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        alpha, sigma = self.process.scales(t, x)
        joint, var = self._joint(x, t, condition)
        share = torch.softmax(joint, dim=1)
        gain = alpha * self.stds**2 / var
        gap = x.double()[:, None, :] - alpha[:, :, None] * self.means
        means = self.means + gain[:, :, None] * gap
        x0 = (share[:, :, None] * means).sum(1)
        within = (share * (self.stds**2 * sigma**2 / var)).sum(1, keepdim=True)
        between = (share[:, :, None] * (means - x0[:, None, :]) ** 2).sum(1)
        return Prediction(x0.to(x.dtype), x, t, self.process, var=(within + between).to(x.dtype))

    def log_prob(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """log p_t(x) (B,), in nats, of x_t."""
        return torch.logsumexp(self._joint(x, t, condition)[0], dim=1)

    def draw(self, count: int, seed: int = 0) -> Tensor:
        """`count` exact samples of x0, float64 (count, D)."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        z = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[which] + self.stds[which, None] * z


class EmpiricalDenoiser(Denoiser):
    """The data set itself as the distribution: x0 is one of M samples (M, ...), equally likely.

    E[x0|x] = Σ softmax_i(−‖x − α·x0_i‖²/2σ²)·x0_i: what a network of unlimited capacity learns,
    and so what it would be to memorise (Karras et al. 2022, appendix B.3).
    """

    def __init__(self, data: Tensor, process: Process | Schedule) -> None:
        self.process = as_process(process)
        self.data = data.double()

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        alpha, sigma = self.process.scales(t, x)
        # At t = 0 the nearest sample, as in the limit.
        sigma = sigma.clamp(min=1e-8)
        z, points = self.process.analyse(x.double()), self.process.analyse(self.data)
        # ‖z − α·p‖²/σ² expanded, so that no (B, M, ...) tensor is made.
        inverse = (1 / sigma**2).expand_as(z).flatten(1)
        gain = (alpha / sigma**2).expand_as(z).flatten(1)
        square = (alpha**2 / sigma**2).expand_as(z).flatten(1)
        flat, p = z.flatten(1), points.flatten(1)
        distance = (
            (inverse * flat**2).sum(1, keepdim=True) - 2 * (gain * flat) @ p.T + square @ (p**2).T
        )
        share = torch.softmax(-0.5 * distance, dim=1)
        data = self.data.flatten(1)
        mean = share @ data
        var = (share @ data**2 - mean**2).clamp(min=0)
        shape = x.shape
        return Prediction(
            mean.reshape(shape).to(x.dtype), x, t, self.process, var=var.reshape(shape).to(x.dtype)
        )
