"""Time, a number per sample, as the vector a network is told."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fromnoise.core.errors import UsageError

Waves = Literal["ddpm", "adm", "closed"]
Convention = Literal["ddpm", "adm", "closed", "fourier", "ncsnpp"]


def sinusoidal(time: Tensor, width: int, convention: Waves = "ddpm") -> Tensor:
    """Sines and cosines of time at geometrically spaced frequencies.

    ddpm: [sin(t ω) | cos(t ω)], ω_i = 10000^(−i / (half − 1));
    adm:  [cos(t ω) | sin(t ω)], ω_i = 10000^(−i / half), for i = 0 … half − 1, half = ⌊width/2⌋;
    closed: the order of adm with the frequencies of ddpm, as diffusers' DiT has it.

    time: (B,), in the units the network was trained with. The arithmetic is that of its dtype, so
        pass float32 to follow networks trained in float32 closely.
    Returns (B, width); an odd width ends in a zero.
    Raises UsageError when the width is too small to hold the frequencies (below 4).
    Reference: Vaswani et al. 2017; the two orders are those of Ho, Jain & Abbeel 2020 and of
    Dhariwal & Nichol 2021.
    """
    if width < 4:
        raise UsageError(f"a time embedding of width {width} is too narrow; use 4 or more")
    half = width // 2
    index = torch.arange(half, dtype=time.dtype, device=time.device)
    last = half if convention == "adm" else half - 1
    angles = time[:, None] * torch.exp(-math.log(10000.0) * index / last)
    pair = (angles.sin(), angles.cos())
    parts = pair if convention == "ddpm" else pair[::-1]
    return nn.functional.pad(torch.cat(parts, dim=1), (0, width % 2))


class Sinusoidal(nn.Module):
    """`sinusoidal` as a layer: (B,) to (B, width)."""

    def __init__(self, width: int, convention: Waves = "ddpm") -> None:
        super().__init__()
        self.width = width
        self.convention: Waves = convention

    def forward(self, time: Tensor) -> Tensor:
        return sinusoidal(time, self.width, self.convention)


class Fourier(nn.Module):
    """Random Fourier features [sin(2π f t) | cos(2π f t)] with fixed f ~ N(0, scale²).

    The frequencies are a saved buffer, not a parameter. Returns (B, width), width even.
    Raises UsageError for an odd width.
    Reference: Tancik et al. 2020; used for the noise level by Song et al. 2021 (scale 16).
    """

    frequencies: Tensor

    def __init__(self, width: int, scale: float = 16.0) -> None:
        super().__init__()
        if width % 2:
            raise UsageError(f"Fourier features come in pairs: width {width} must be even")
        self.register_buffer("frequencies", torch.randn(width // 2) * scale)

    def forward(self, time: Tensor) -> Tensor:
        angles = 2 * math.pi * time[:, None] * self.frequencies.to(time.dtype)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def time_features(width: int, convention: Convention) -> nn.Module:
    """The layer from a time (B,) to features (B, `features_width(width, convention)`).

    ddpm, adm, closed: `sinusoidal`. fourier: width/2 random frequencies. ncsnpp: as many random
    frequencies as width (Song et al. 2021), told the logarithm of the noise level.
    """
    if convention == "fourier" or convention == "ncsnpp":
        return Fourier(features_width(width, convention))
    return Sinusoidal(width, convention)


def features_width(width: int, convention: Convention) -> int:
    """How many features a convention makes: each frequency of ncsnpp gives two."""
    return 2 * width if convention == "ncsnpp" else width


class TimeEmbedding(nn.Module):
    """Features of time through Linear, SiLU, Linear: (B,) to (B, out).

    The features are taken in float32, or in float64 where the layer is float64, whatever the
    weights' precision: in bfloat16 most of 1000 time steps coincide.
    """

    def __init__(self, width: int, out: int, convention: Convention = "ddpm") -> None:
        super().__init__()
        self.features = time_features(width, convention)
        self.first = nn.Linear(features_width(width, convention), out)
        self.second = nn.Linear(out, out)

    def forward(self, time: Tensor) -> Tensor:
        dtype = self.first.weight.dtype
        features = self.features(time.to(torch.promote_types(dtype, torch.float32)))
        embedded: Tensor = self.second(silu(self.first(features.to(dtype))))
        return embedded


def positions(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of place for every cell of a grid, row by row: (height·width, channels).

    [sin(x ω) | cos(x ω) | sin(y ω) | cos(y ω)] with the column x and the row y counted from 0 and
    ω_i = 10000^(−4i / channels) for i = 0 … channels/4 − 1. In float64.
    Raises UsageError unless channels is a multiple of 4.
    Reference: Vaswani et al. 2017; in two dimensions, He et al. 2022 (MAE), Peebles & Xie 2023.
    """
    if channels % 4:
        raise UsageError(f"positions in two dimensions need a multiple of 4, not {channels}")
    index = torch.arange(channels // 4, dtype=torch.float64)
    frequencies = torch.exp(-math.log(10000.0) * index / (channels // 4))
    rows = torch.arange(height, dtype=torch.float64).repeat_interleave(width)
    columns = torch.arange(width, dtype=torch.float64).repeat(height)
    parts = [place[:, None] * frequencies for place in (columns, rows)]
    return torch.cat([wave for part in parts for wave in (part.sin(), part.cos())], dim=1)


def coordinates(x: Tensor) -> Tensor:
    """The place of every pixel of x (B, C, *size): (B, dims, *size), −1 to 1 from edge to edge."""
    axes = [torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in x.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.expand(x.shape[0], *grid.shape)
