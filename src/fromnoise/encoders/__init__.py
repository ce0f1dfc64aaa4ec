"""Encoders: raw input → one slot of a condition."""

from fromnoise.encoders.attributes import Attributes
from fromnoise.encoders.augment import Augmentation
from fromnoise.encoders.base import ENCODERS, Coder, Encoder
from fromnoise.encoders.clip import CLIPText
from fromnoise.encoders.clip_joined import JoinedCLIP
from fromnoise.encoders.clip_vision import CLIPImage
from fromnoise.encoders.conditioning import Conditioning
from fromnoise.encoders.disparity import Disparity
from fromnoise.encoders.inpainting import Inpainting
from fromnoise.encoders.label import Label
from fromnoise.encoders.ldm_bert import LDMBert
from fromnoise.encoders.low_resolution import LowResolution
from fromnoise.encoders.maps import ClassChannels, LabelMap
from fromnoise.encoders.noised import Noised
from fromnoise.encoders.picture import Depth, Picture
from fromnoise.encoders.picture_sizes import PictureSizes
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
    "Coder",
    "Conditioning",
    "Depth",
    "Disparity",
    "Encoder",
    "Inpainting",
    "JoinedCLIP",
    "LDMBert",
    "Label",
    "LabelMap",
    "LowResolution",
    "Noised",
    "Picture",
    "PictureSizes",
    "Text",
    "Vector",
]
