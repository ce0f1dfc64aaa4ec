"""Measure a run on held-out data, as befits what it does."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fromnoise.app.asked import recipe_of
from fromnoise.app.evaluate_autoencoder import evaluate_autoencoder
from fromnoise.app.evaluate_classifier import evaluate_classifier
from fromnoise.app.evaluate_image_text import evaluate_image_text
from fromnoise.app.evaluate_maps import evaluate_maps
from fromnoise.app.evaluate_prompts import evaluate_prompts
from fromnoise.app.evaluate_samples import evaluate_samples
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import EvaluateRequest
from fromnoise.app.usefulness import measure_usefulness
from fromnoise.core.errors import UsageError
from fromnoise.data.maps import MAP
from fromnoise.recipes import Recipe


@dataclass(frozen=True)
class Way:
    """One way to measure a run.

    suits: whether it is the one for a recipe and a request. measures: it, in words that follow the
    name of a run. uses: fields of the request that say something here, besides the run; others are
    refused, rather than read past.
    """

    suits: Callable[[Recipe, EvaluateRequest], bool]
    measures: str
    uses: frozenset[str]
    carry_out: Callable[[Path, Recipe, EvaluateRequest, Reporter], int]


def _usefulness(folder: Path, recipe: Recipe, request: EvaluateRequest, reporter: Reporter) -> int:
    del folder, recipe
    return measure_usefulness(request, reporter)


def _latent(recipe: Recipe) -> bool:
    """Whether what is bounded would be latents, which says nothing of the pictures."""
    return recipe.codec["kind"] != "identity" and recipe.objective.kind in ("denoising", "vdm")


_DRAWING = frozenset({"samples", "guidance", "steps", "sampler", "seed"})
_OF_USEFULNESS = frozenset({"scales", "few"})

WAYS = (
    Way(
        lambda recipe, _: recipe.objective.kind == "classifier",
        "classifies and draws no samples",
        frozenset({"seed"}),
        evaluate_classifier,
    ),
    Way(
        lambda recipe, _: recipe.objective.kind == "autoencoder",
        "is measured by what comes back of held-out pictures",
        frozenset({"samples", "seed"}),
        evaluate_autoencoder,
    ),
    Way(
        lambda recipe, _: recipe.objective.kind == "contrastive",
        "compares and draws no samples",
        frozenset({"samples", "seed"}),
        evaluate_image_text,
    ),
    Way(
        lambda _, request: request.usefulness,
        "is measured by its usefulness alone, at each of --scales",
        (_DRAWING - {"guidance"}) | _OF_USEFULNESS | {"usefulness"},
        _usefulness,
    ),
    Way(
        lambda recipe, _: MAP in recipe.encoders,
        "is measured by how well its pictures show their label maps",
        _DRAWING,
        evaluate_maps,
    ),
    Way(
        lambda recipe, _: "prompt" in recipe.encoders,
        "is measured by what of its prompts the pictures show",
        _DRAWING,
        evaluate_prompts,
    ),
    Way(
        lambda recipe, _: _latent(recipe),
        "draws latents, whose likelihood says nothing of pictures, and is measured by its samples",
        _DRAWING,
        evaluate_samples,
    ),
    Way(
        lambda recipe, _: recipe.objective.kind == "gan" or recipe.process["kind"] == "cold",
        "has no likelihood that could be bounded, and is measured by its samples",
        _DRAWING,
        evaluate_samples,
    ),
    Way(
        lambda *_: True,
        "is measured by its samples and its likelihood",
        _DRAWING | {"likelihood"},
        evaluate_samples,
    ),
)
"""The ways there are; the first one that suits is taken."""


def evaluate(request: EvaluateRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise evaluate`."""
    folder = Path(request.run)
    recipe = recipe_of(folder)
    way = next(way for way in WAYS if way.suits(recipe, request))
    _check(way, request)
    return way.carry_out(folder, recipe, request, reporter)


def _check(way: Way, request: EvaluateRequest) -> None:
    """UsageError for the first field given, but for the run, that this way does not use."""
    given = request.model_fields_set - way.uses - {"run"}
    # What only says no to something is not done here either.
    given -= {name for name in ("usefulness", "likelihood") if not getattr(request, name)}
    if not given:
        return
    name = min(given)
    if name in _OF_USEFULNESS and "guidance" in way.uses:
        raise UsageError(f"--{name} is of --usefulness; give that too, or leave it out")
    raise UsageError(f"{request.run} {way.measures}; leave out --{name}")
