"""Recipes: named functions → `Recipe`, the only place where choices are combined."""

from fromnoise.recipes import cold, digits, finetune, neighbours, pictures, points
from fromnoise.recipes.base import RECIPES, Recipe, SamplingSettings, get

__all__ = [
    "RECIPES",
    "Recipe",
    "SamplingSettings",
    "cold",
    "digits",
    "finetune",
    "get",
    "neighbours",
    "pictures",
    "points",
]
