"""Recipes: named functions → `Recipe`, the only place where choices are combined."""

from fromnoise.recipes import (
    autoencoders,
    clip,
    cold,
    digits,
    features,
    finetune,
    guided,
    latent,
    maps,
    neighbours,
    pictures,
    points,
    text,
)
from fromnoise.recipes.base import RECIPES, Recipe, SamplingSettings, get

__all__ = [
    "RECIPES",
    "Recipe",
    "SamplingSettings",
    "autoencoders",
    "clip",
    "cold",
    "digits",
    "features",
    "finetune",
    "get",
    "guided",
    "latent",
    "maps",
    "neighbours",
    "pictures",
    "points",
    "text",
]
