"""Denoisers: a network read through a parameterization, and exact ones."""

from fromnoise.denoisers.base import Bound, Denoiser, Prediction
from fromnoise.denoisers.exact import EmpiricalDenoiser, GaussianDenoiser, MixtureDenoiser
from fromnoise.denoisers.network import NetworkDenoiser

__all__ = [
    "Bound",
    "Denoiser",
    "EmpiricalDenoiser",
    "GaussianDenoiser",
    "MixtureDenoiser",
    "NetworkDenoiser",
    "Prediction",
]
