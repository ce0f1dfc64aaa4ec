"""Codecs: what is diffused, and how to get back to data."""

from fromnoise.codecs.base import CODECS, Codec, Identity

__all__ = ["CODECS", "Codec", "Identity"]
