"""Guidance: wrappers that change what a denoiser believes, Denoiser → Denoiser."""

from fromnoise.guidance.classifier_free import ClassifierFree

__all__ = ["ClassifierFree"]
