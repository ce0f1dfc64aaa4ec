"""Encoders: raw input → one slot of a condition."""

from fromnoise.encoders.attributes import Attributes
from fromnoise.encoders.augment import Augmentation
from fromnoise.encoders.base import ENCODERS, Encoder
from fromnoise.encoders.clip import CLIPText
from fromnoise.encoders.clip_vision import CLIPImage
from fromnoise.encoders.conditioning import Conditioning
from fromnoise.encoders.label import Label
from fromnoise.encoders.low_resolution import LowResolution
from fromnoise.encoders.maps import ClassChannels, LabelMap
from fromnoise.encoders.picture import Depth, Picture
from fromnoise.encoders.t5 import T5
from fromnoise.encoders.text import Text
from fromnoise.encoders.vector import Vector

__all__ = [
    "ENCODERS",
    "T5",
    "Attributes",
    "Augmentation",
    "CLIPImage",
    "CLIPText",
    "ClassChannels",
    "Conditioning",
    "Depth",
    "Encoder",
    "Label",
    "LabelMap",
    "LowResolution",
    "Picture",
    "Text",
    "Vector",
]
