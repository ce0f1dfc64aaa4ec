"""Codecs: what is diffused, and how to get back to data."""

from fromnoise.codecs.base import CODECS, Codec, Identity
from fromnoise.codecs.kl import KL

__all__ = ["CODECS", "KL", "Codec", "Identity"]
