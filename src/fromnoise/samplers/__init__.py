"""Samplers by the names users know."""

from fromnoise.samplers.base import Sampler, Step, last, sample

__all__ = ["Sampler", "Step", "last", "sample"]
