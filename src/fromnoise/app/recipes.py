"""List the recipes, or show one whole."""

import json

from fromnoise import recipes as shelf
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import RecipesRequest


def recipes(request: RecipesRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise recipes`."""
    if request.name is not None:
        recipe = shelf.get(request.name)
        reporter.say(json.dumps(recipe.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return 0
    width = max(len(name) for name in shelf.RECIPES)
    for name in sorted(shelf.RECIPES):
        reporter.say(f"{name:{width}s}  {shelf.get(name).summary}")
    return 0
