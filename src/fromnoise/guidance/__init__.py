"""Guidance: wrappers that change what a denoiser believes, Denoiser → Denoiser."""

from fromnoise.guidance.auto import AutoGuided, auto
from fromnoise.guidance.base import (
    Ask,
    Decode,
    Guide,
    Informed,
    Named,
    Part,
    Wrapper,
    moved,
    slope,
)
from fromnoise.guidance.classifier import ByClassifier, ClassifierGuided, Unheard, classifier
from fromnoise.guidance.classifier_free import ClassifierFree
from fromnoise.guidance.clip import ByText, TextGuided, clip
from fromnoise.guidance.clipping import Clipped, Thresholded
from fromnoise.guidance.cutouts import Cutouts
from fromnoise.guidance.loss import LossGuided, loss
from fromnoise.guidance.matcher import Matcher
from fromnoise.guidance.named import GUIDES, Load, named, register
from fromnoise.guidance.noisy_classifier import NoisyClassifier
from fromnoise.guidance.pictures import color, similar, symmetry
from fromnoise.guidance.scheduled import Scheduled, Tell, Told
from fromnoise.guidance.self_conditioning import SelfConditioning

__all__ = [
    "GUIDES",
    "Ask",
    "AutoGuided",
    "ByClassifier",
    "ByText",
    "ClassifierFree",
    "ClassifierGuided",
    "Clipped",
    "Cutouts",
    "Decode",
    "Guide",
    "Informed",
    "Load",
    "LossGuided",
    "Matcher",
    "Named",
    "NoisyClassifier",
    "Part",
    "Scheduled",
    "SelfConditioning",
    "Tell",
    "TextGuided",
    "Thresholded",
    "Told",
    "Unheard",
    "Wrapper",
    "auto",
    "classifier",
    "clip",
    "color",
    "loss",
    "moved",
    "named",
    "register",
    "similar",
    "slope",
    "symmetry",
]
