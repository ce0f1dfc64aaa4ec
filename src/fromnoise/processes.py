"""A process says how data is corrupted: Gaussian noise, blur and noise, any degradation, masks.

`corrupt` goes from data to time t, `move` goes from any time to any other given a belief about
x0, and `prior` draws the start of sampling. What holds for noise in one basis holds for each
frequency of another: `analyse` and `synthesise` go to the basis in which x_t = α·x0 + σ·ε holds
coefficient by coefficient, and back.
"""

import functools
import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.special import ndtr

from fromnoise.core.config import Kinds
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.operators.basis import dct, frequencies, idct
from fromnoise.operators.families import FAMILIES, Family
from fromnoise.schedules import SCHEDULES, Scales, Schedule, flow

PROCESSES = Kinds("process", uses=(SCHEDULES, FAMILIES))

Level = float | Tensor
"""A coefficient at one time: a number, or one for each frequency (H, W), float64."""


class Process(nn.Module, ABC):
    """How data is corrupted over time t in [0, 1]."""

    config: dict[str, Any]
    noisy = True
    """Whether there is noise in it: scales, levels and a schedule."""

    @property
    def end_held(self) -> bool:
        """Whether what training changes in it leaves x_1, and so the prior, as it was fitted."""
        return True

    @abstractmethod
    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_t given x0 (B, ...), t (B,) and standard normal noise of x0's shape."""

    @abstractmethod
    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_s given x_t and a belief about x0; s may lie on either side of t.

        Without noise the move keeps the noise that x and x0 imply (DDIM, cold diffusion's
        algorithm 2). With the true x0, what comes out is distributed as x_s given x0.
        """

    @abstractmethod
    def prior(self, noise: Noise, like: Tensor, t: float = 1.0) -> Tensor:
        """A start of sampling at time t, of the shape and type of `like` (B, ...)."""

    @abstractmethod
    def reference(self, t: Tensor) -> Scales:
        """The scales (B,) a network is told of, and its input is scaled by."""

    @abstractmethod
    def scales(self, t: Tensor, like: Tensor) -> Scales:
        """α and σ at t (B,), float64, broadcastable to `like`, in the basis of `analyse`.

        Raises UsageError for a process without noise.
        """

    def reading(self, t: Tensor, like: Tensor) -> Scales:
        """The scales a network's output is read with: those of `scales` where there is noise."""
        return self.scales(t, like)

    @abstractmethod
    def levels(self, t: float) -> tuple[Level, Level]:
        """α and σ at one time, for samplers. Raises UsageError for a process without noise."""

    @property
    @abstractmethod
    def schedule(self) -> Schedule:
        """The schedule of its noise. Raises UsageError for a process without noise."""

    @property
    def clock(self) -> Schedule:
        """The schedule that grids are laid on: that of its noise, where there is noise."""
        return self.schedule

    def share(self, t: Tensor) -> Tensor:
        """The share (B,) of tokens that is masked at t (B,), float64.

        Raises UsageError for a process that masks no tokens.
        """
        raise UsageError(
            f"a {type(self).__name__.lower()} process masks no tokens; unmask, unmask_even and "
            "maskgit draw models of tokens only"
        )

    def fit(self, x0: Tensor, noise: Noise) -> None:
        """Learn from data (M, ...) what the prior needs to know of it; most need nothing."""
        del x0, noise

    def begin(self, noise: Noise, like: Tensor) -> "Process":
        """The process of one run: what is random once per sample (a mask, say) is drawn here."""
        del noise, like
        return self

    def analyse(self, x: Tensor) -> Tensor:
        """To the basis in which the process acts coefficient by coefficient."""
        return x

    def synthesise(self, z: Tensor) -> Tensor:
        """Back from the basis of `analyse`."""
        return z


class _Noisy(Process):
    """What every Gaussian process shares, written once in its basis."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule
        # What a schedule learns is trained and saved with the process.
        self.path = schedule.path.weights

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    def reference(self, t: Tensor) -> Scales:
        return self._schedule(t)

    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma = typed(self.scales(t, x0), x0)
        return self.synthesise(alpha * self.analyse(x0) + sigma * self.analyse(noise))

    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_s = α_s·x0 + √(σ_s² − η²)·ε̂ + η·z with ε̂ = (x_t − α_t·x0)/σ_t.

        η = 0 without noise. With noise η² is the variance of q(x_s | x_t, x0) towards the data
        and of q(x_s | x_t) away from it (Song et al. 2021, "DDIM", eq. 12 and 16).
        """
        a, b = self.scales(t, x)
        c, d = self.scales(s, x)
        z, z0 = self.analyse(x), self.analyse(x0)
        inverse = torch.where(b > 0, 1.0 / b, 0.0)
        implied = (z - a.to(x.dtype) * z0) * inverse.to(x.dtype)
        if noise is None:
            return self.synthesise(c.to(x.dtype) * z0 + d.to(x.dtype) * implied)
        # |β| as in q(x_late | x_early): σ_late² − (α_late/α_early)²·σ_early².
        towards = (a * d) <= (c * b)
        late = torch.where(towards, b**2 - _carried(a, d, c), d**2 - _carried(c, b, a)).clamp(min=0)
        fresh = torch.where(towards, late * (d * inverse) ** 2, late)
        kept = torch.sqrt((d**2 - fresh).clamp(min=0))
        c, kept, added = (w.to(x.dtype) for w in (c, kept, torch.sqrt(fresh)))
        return self.synthesise(c * z0 + kept * implied + added * self.analyse(noise))

    def prior(self, noise: Noise, like: Tensor, t: float = 1.0) -> Tensor:
        """√(α² + σ²)·ε: what x_t is for data of mean 0 and variance 1."""
        alpha, sigma = self.scales(times(t, like.shape[0]), like)
        spread = torch.sqrt(alpha**2 + sigma**2).to(like)
        return self.synthesise(spread * self.analyse(noise.normal(like)))


@PROCESSES.register("gaussian")
class Gaussian(_Noisy):
    """x_t = α(t)·x0 + σ(t)·ε for every pixel alike."""

    def scales(self, t: Tensor, like: Tensor) -> Scales:
        alpha, sigma = self._schedule(t)
        shape = (-1,) + (1,) * (like.ndim - 1)
        return Scales(alpha.reshape(shape), sigma.reshape(shape))

    def levels(self, t: float) -> tuple[Level, Level]:
        return self._schedule.at(t)


@PROCESSES.register("spectral")
class Spectral(_Noisy):
    """Blur and coloured noise: α and σ for each frequency of the DCT.

    α_k(t) = α(t)·((1 − d_min)·exp(−λ_k·b(t)²/2) + d_min) with blur width
    b(t) = `blur`·sin²(πt/2) in pixels, and σ_k(t) = σ(t)·n_k with n_k ∝ (1 + λ_k/λ_c)^(−`tilt`/2),
    mean square 1: `tilt` 0 is white noise, above 0 neighbours share noise. Blur with white noise
    is Hoogeboom & Salimans 2023, "Blurring Diffusion Models", eq. 13 to 19.
    """

    def __init__(
        self,
        schedule: Schedule,
        height: int,
        width: int,
        blur: float = 0.0,
        tilt: float = 0.0,
        d_min: float = 0.001,
    ) -> None:
        super().__init__(schedule)
        if blur < 0 or not 0 < d_min < 1:
            raise UsageError(f"blur {blur} must be 0 or more and d_min {d_min} between 0 and 1")
        self.blur, self.d_min, self.size = blur, d_min, (height, width)
        self._frequencies = frequencies(height, width)
        colour = (1.0 + self._frequencies / (math.pi**2 / 16)) ** (-0.5 * tilt)
        self._colour = colour / torch.sqrt((colour**2).mean())

    def _decay(self, t: Tensor) -> Tensor:
        """How much of each frequency is left, (B, 1, H, W)."""
        width = self.blur * torch.sin(0.5 * math.pi * t.double()) ** 2
        exponent = -0.5 * self._frequencies.to(t.device) * width.reshape(-1, 1, 1, 1) ** 2
        return (
            (1.0 - self.d_min) * torch.exp(exponent) + self.d_min if self.blur else exponent.exp()
        )

    def scales(self, t: Tensor, like: Tensor) -> Scales:
        if tuple(like.shape[-2:]) != self.size:
            raise ShapeError(f"this process is for {self.size} pictures, got {tuple(like.shape)}")
        alpha, sigma = self._schedule(t)
        return Scales(
            alpha.reshape(-1, 1, 1, 1) * self._decay(t),
            sigma.reshape(-1, 1, 1, 1) * self._colour.to(t.device),
        )

    def levels(self, t: float) -> tuple[Level, Level]:
        alpha, sigma = self._schedule.at(t)
        return alpha * self._decay_at(t), sigma * self._colour

    @functools.lru_cache(maxsize=4096)  # noqa: B019 (a process lives as long as a run)
    def _decay_at(self, t: float) -> Tensor:
        return self._decay(torch.tensor([t], dtype=torch.float64))[0, 0]

    def analyse(self, x: Tensor) -> Tensor:
        return dct(x)

    def synthesise(self, z: Tensor) -> Tensor:
        return idct(z)


class _Noiseless(Process):
    """What processes without noise share: a network reads x0 itself, and only the time counts."""

    noisy = False
    missing: str
    """What is said to who asks for noise: what there is in its place."""

    def reference(self, t: Tensor) -> Scales:
        return Scales(torch.ones_like(t), torch.zeros_like(t))

    def reading(self, t: Tensor, like: Tensor) -> Scales:
        one = torch.ones((like.shape[0],) + (1,) * (like.ndim - 1), dtype=torch.float64)
        return Scales(one, torch.zeros_like(one))

    @property
    def clock(self) -> Schedule:
        """Straight lines: with no noise, only the time itself counts."""
        return flow()

    def scales(self, t: Tensor, like: Tensor) -> Scales:
        raise UsageError(self.missing)

    def levels(self, t: float) -> tuple[Level, Level]:
        raise UsageError(self.missing)

    @property
    def schedule(self) -> Schedule:
        raise UsageError(self.missing)


@PROCESSES.register("cold")
class Cold(_Noiseless):
    """Any degradation in place of noise: x_t = D(x0, t) (Bansal et al. 2022, "Cold Diffusion").

    What is random in D is drawn once per sample (`begin`) and is the same at every time. The prior
    is a Gaussian fitted to D(x0, 1) over data (`fit`), of at most `rank` directions, kept with the
    weights.
    """

    missing = "cold diffusion has no noise; sample it with cold1 or cold2"
    prior_mean: Tensor
    prior_factor: Tensor

    def __init__(self, family: Family, rank: int = 64) -> None:
        super().__init__()
        self.family = family
        self.learned = family.learned
        self.rank = rank
        self.draw: Tensor | None = None
        self.register_buffer("prior_mean", torch.zeros(0))
        self.register_buffer("prior_factor", torch.zeros(0))

    @property
    def end_held(self) -> bool:
        return self.family.end_held

    def begin(self, noise: Noise, like: Tensor) -> "Cold":
        run = Cold(self.family, self.rank)
        run.prior_mean, run.prior_factor = self.prior_mean, self.prior_factor
        run.draw = self.family.draw(noise, like)
        return run

    def fit(self, x0: Tensor, noise: Noise) -> None:
        """Fit the prior to the fully degraded x0 (M, ...): mean and leading directions."""
        degraded = self.family.apply(x0, times(1.0, x0.shape[0]), self.family.draw(noise, x0))
        flat = degraded.detach().flatten(1).double()
        self.prior_mean = flat.mean(0).to(x0.dtype)
        centred = (flat - flat.mean(0)) / math.sqrt(max(len(flat) - 1, 1))
        _, values, directions = torch.linalg.svd(centred, full_matrices=False)
        self.prior_factor = (values[: self.rank, None] * directions[: self.rank]).to(x0.dtype)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The fitted prior has the size of its pictures, which a fresh process does not know yet.
        for name in ("prior_mean", "prior_factor"):
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *rest)

    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return self.family.apply(x0, t, self.draw)

    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_s = x_t − D(x0, t) + D(x0, s) (Bansal et al. 2022, algorithm 2)."""
        return x - self.family.apply(x0, t, self.draw) + self.family.apply(x0, s, self.draw)

    def prior(self, noise: Noise, like: Tensor, t: float = 1.0) -> Tensor:
        if self.prior_mean.numel() != like[0].numel():
            raise UsageError(
                "this cold process has no fitted prior for such pictures; fit it first"
            )
        weights = noise.normal(like).flatten(1)[:, : self.prior_factor.shape[0]]
        flat = self.prior_mean + weights.float() @ self.prior_factor.float()
        return flat.reshape(like.shape).to(like)


@PROCESSES.register("absorbing")
class Absorbing(_Noiseless):
    """Tokens disappear behind a mask: at time t each of them is hidden with probability m(t).

    x0 (B, K, ...) is one-hot over K codes, and a masked token is zero in all of them. Once hidden,
    a token stays so: D3PM with an absorbing state (Austin et al. 2021, section 3.1).

    mask: m(t), `linear` t or `cosine` sin(πt/2), which hides early what is left to find at once
    (Chang et al. 2022, "MaskGIT", section 3.3, its γ at 1 − t).
    Tokens are hidden and shown by the first number of the noise, Φ(ε) < m: nothing else is drawn.
    """

    missing = (
        "masked tokens have no noise; sample them with unmask, unmask_even or maskgit, and leave "
        "out guides that need gradients"
    )

    def __init__(self, mask: Literal["linear", "cosine"] = "linear") -> None:
        super().__init__()
        self.mask = mask

    def share(self, t: Tensor) -> Tensor:
        t = t.double()
        return t if self.mask == "linear" else torch.sin(0.5 * math.pi * t)

    def rate(self, t: Tensor) -> Tensor:
        """m'(t)/m(t) (B,): the weight of the likelihood bound (Sahoo et al. 2024, eq. 10)."""
        t = t.double()
        if self.mask == "linear":
            return 1.0 / t
        return 0.5 * math.pi / torch.tan(0.5 * math.pi * t)

    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x0 (B, K, ...) but for what is hidden; a belief counts as its likeliest tokens."""
        tokens = one_hot(x0.argmax(1), x0)
        return torch.where(_below(noise, self.share(t)), 0.0, tokens)

    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_s given x_t and tokens x0 (Sahoo et al. 2024, "MDLM", eq. 6).

        Towards the data each hidden token is shown with probability (m_t − m_s)/m_t, and the
        others stay as they are; away from it each token is hidden with (m_s − m_t)/(1 − m_t).
        Raises UsageError without noise: nothing in x_t says which token comes next.
        """
        if noise is None:
            raise UsageError(self.missing)
        here, there = self.share(t), self.share(s)
        shown = torch.where(here > 0, (here - there) / here.clamp(min=1e-300), 0.0)
        lost = torch.where(here < 1, (there - here) / (1.0 - here).clamp(min=1e-300), 0.0)
        found = torch.where(hidden(x) & _below(noise, shown), x0, x)
        return torch.where(_below(noise, lost), 0.0, found)

    def prior(self, noise: Noise, like: Tensor, t: float = 1.0) -> Tensor:
        """Every token hidden."""
        return torch.zeros_like(like)


def hidden(x: Tensor) -> Tensor:
    """Which tokens of x (B, K, ...) are masked, (B, 1, ...)."""
    return (x == 0).all(1, keepdim=True)


def one_hot(codes: Tensor, like: Tensor) -> Tensor:
    """Codes (B, ...) as tokens (B, K, ...) of the shape and type of `like`."""
    return torch.zeros_like(like).scatter_(1, codes[:, None], 1.0)


def _below(noise: Tensor, chance: Tensor) -> Tensor:
    """Φ(ε) < chance (B,) by the first number of ε (B, K, ...) at each place, (B, 1, ...)."""
    first: Tensor = ndtr(noise[:, :1].double())
    return first < chance.to(noise.device).reshape((-1,) + (1,) * (noise.ndim - 1))


def _carried(late: Tensor, sigma: Tensor, early: Tensor) -> Tensor:
    """The early time's noise variance as it is left at the late one: (α_late/α_early·σ)²."""
    return torch.where(late > 0, late * sigma / early, 0.0) ** 2


def typed(scales: Scales, like: Tensor) -> Scales:
    """Scales in the type and on the device of `like`, so that arithmetic keeps its type."""
    return Scales(scales.alpha.to(like), scales.sigma.to(like))


def as_process(process: Process | Schedule) -> Process:
    """Where a denoiser takes a process, a schedule means Gaussian noise on it."""
    return process if isinstance(process, Process) else Gaussian(process)
