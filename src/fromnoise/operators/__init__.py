"""Degradations y = A(x): operators with adjoints and spectra, and families of them in time."""

from fromnoise.operators.base import (
    OPERATORS,
    LinearOperator,
    Operator,
    SpectralOperator,
    Svd,
    get,
)
from fromnoise.operators.basis import blur_gains, dct, frequencies, heat, idct
from fromnoise.operators.blurs import GaussianBlur, KernelBlur, uniform_blur
from fromnoise.operators.downsampling import Downsample
from fromnoise.operators.families import (
    FAMILIES,
    Blur,
    Downsampling,
    Fading,
    FadingToMean,
    Family,
    LearnableBlur,
    Masking,
    get_family,
)
from fromnoise.operators.masks import Box, Mask, mask, random_boxes, soft_holes
from fromnoise.operators.pointwise import LUMA, Fade, FadeTo, Grayscale, Identity

__all__ = [
    "FAMILIES",
    "LUMA",
    "OPERATORS",
    "Blur",
    "Box",
    "Downsample",
    "Downsampling",
    "Fade",
    "FadeTo",
    "Fading",
    "FadingToMean",
    "Family",
    "GaussianBlur",
    "Grayscale",
    "Identity",
    "KernelBlur",
    "LearnableBlur",
    "LinearOperator",
    "Mask",
    "Masking",
    "Operator",
    "SpectralOperator",
    "Svd",
    "blur_gains",
    "dct",
    "frequencies",
    "get",
    "get_family",
    "heat",
    "idct",
    "mask",
    "random_boxes",
    "soft_holes",
    "uniform_blur",
]
