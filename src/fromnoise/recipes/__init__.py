"""Recipes: named functions → `Recipe`, the only place where choices are combined."""

from fromnoise.recipes import digits, pictures, points
from fromnoise.recipes.base import RECIPES, Recipe, SamplingSettings, get

__all__ = ["RECIPES", "Recipe", "SamplingSettings", "digits", "get", "pictures", "points"]
