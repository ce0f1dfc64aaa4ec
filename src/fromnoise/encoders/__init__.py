"""Encoders: raw input → one slot of a condition."""

from fromnoise.encoders.augment import Augmentation
from fromnoise.encoders.base import ENCODERS, Encoder
from fromnoise.encoders.conditioning import Conditioning
from fromnoise.encoders.label import Label

__all__ = ["ENCODERS", "Augmentation", "Conditioning", "Encoder", "Label"]
