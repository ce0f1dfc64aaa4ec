"""Codecs: what is diffused, and how to get back to data."""

from fromnoise.codecs.base import CODECS, MEASURED, Codec, Identity, Learned, Passage
from fromnoise.codecs.codebook import CODEBOOKS, Codebook, Usage, usage
from fromnoise.codecs.kl import KL
from fromnoise.codecs.presets import PRESETS, build
from fromnoise.codecs.tokens import Tokens
from fromnoise.codecs.vq import VQ

__all__ = [
    "CODEBOOKS",
    "CODECS",
    "KL",
    "MEASURED",
    "PRESETS",
    "VQ",
    "Codebook",
    "Codec",
    "Identity",
    "Learned",
    "Passage",
    "Tokens",
    "Usage",
    "build",
    "usage",
]
