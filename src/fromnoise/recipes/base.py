"""A recipe: every choice of one training run, and how its model is sampled, in one place."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from fromnoise.core.config import Settings
from fromnoise.core.errors import unknown
from fromnoise.recipes.figures import FIGURES
from fromnoise.training.settings import AnyObjective, ObjectiveSettings, TrainSettings

Config = dict[str, Any]


class SamplingSettings(Settings):
    """How the trained model is sampled unless asked otherwise."""

    sampler: str = Field("dpm++2m", description="Sampler by name.")
    grid: str = Field("log_snr", description="Grid by name.")
    steps: int = Field(20, ge=1, description="Steps.")
    guidance: float = Field(1.0, description="Guidance scale; 1 is none.")
    grid_options: Config = Field({}, description="Arguments of that grid.")
    clip: float | None = Field(None, gt=0, description="Range that beliefs are kept in.")


class Recipe(Settings):
    """All that one training run is made of. Parts are configurations from the closed tables."""

    name: str = Field(description="Name of the recipe.")
    summary: str = Field(description="What it trains, in a sentence.")
    paper: str = Field(description="The work it follows.")
    figure: str = Field(
        default_factory=lambda chosen: FIGURES.get(chosen.get("name", ""), ""),
        description="What it reached here, with the command that measured it.",
    )
    data: Config = Field(description="Data set.")
    augment: list[Config] = Field(
        [], description="Changes of the training samples, one after another."
    )
    held_out: float = Field(0.2, gt=0, lt=1, description="Share of the data kept for measuring.")
    net: Config = Field(description="Network.")
    process: Config = Field(description="How data is corrupted.")
    parameterization: Config = Field(description="What the network's output means.")
    learned_variance: bool = Field(False, description="Whether the network also gives a variance.")
    codec: Config = Field({"kind": "identity"}, description="Pixels or latents.")
    codec_from: str | None = Field(
        None, description="Model whose autoencoder it works behind; its codec takes that place."
    )
    encoders: dict[str, Config] = Field({}, description="Inputs it is conditioned on.")
    base: str | None = Field(None, description="Model whose weights it starts from.")
    ancestry: list[dict[str, Any]] = Field(
        [], description="What it was made from, the base first; written when a run begins."
    )
    objective: AnyObjective = Field(ObjectiveSettings(), description="The loss.")
    train: TrainSettings = Field(TrainSettings(), description="The training loop.")
    sampling: SamplingSettings = Field(SamplingSettings(), description="Sampling defaults.")


RECIPES: dict[str, Callable[[], Recipe]] = {}
"""Recipe functions by name."""


def recipe(function: Callable[[], Recipe]) -> Callable[[], Recipe]:
    """List a function that returns a recipe, under the name its recipe has."""
    RECIPES[function.__name__.replace("_", "-")] = function
    return function


def get(name: str) -> Recipe:
    """The recipe of that name; UsageError offers the nearest names."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()
