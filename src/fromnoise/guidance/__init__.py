"""Guidance: wrappers that change what a denoiser believes, Denoiser → Denoiser."""

from fromnoise.guidance.classifier_free import ClassifierFree
from fromnoise.guidance.clipping import Clipped
from fromnoise.guidance.self_conditioning import SelfConditioning

__all__ = ["ClassifierFree", "Clipped", "SelfConditioning"]
