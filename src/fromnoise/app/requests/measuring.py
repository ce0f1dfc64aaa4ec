"""Ask what a run or a model is worth, and what its shapes are."""

from pydantic import Field

from fromnoise.app.requests.fields import argument, json_value
from fromnoise.core.config import Settings


class EvaluateRequest(Settings):
    """Measure a trained run on held-out data; write evaluation.json and report.html into it."""

    run: str = argument(..., "The run folder.")
    samples: int = Field(1000, ge=50, le=100_000, description="Samples to draw for measuring.")
    guidance: float | None = Field(None, description="Guidance scale of the guided samples.")
    steps: int | None = Field(None, ge=1, description="Sampling steps.")
    sampler: str | None = Field(None, description="Sampler.")
    seed: int = Field(0, ge=0, description="Seed of samples and intervals.")
    likelihood: int = Field(
        128, ge=0, description="Held-out samples whose likelihood is measured; 0 leaves it out."
    )
    usefulness: bool = Field(
        False,
        description="Measure only what samples are worth as training data: small models learn "
        "from real pictures, drawn ones and both.",
    )
    scales: str = Field(
        "1,2,3,5", description="Guidance scales whose usefulness is measured, with commas."
    )
    few: int = Field(100, ge=1, description="Real pictures in the small regime of the usefulness.")


class ExplainRequest(Settings):
    """Show what happens inside a model."""

    model: str = argument(..., "A run, a model, or a published network by name.")
    shapes: bool = Field(
        False, description="Every tensor from the prompt to the picture, with its shape."
    )
    prompt: str = Field("a cat", description="Prompt whose tokens are shown.")
    width: int | None = Field(None, ge=1, description="Width of the picture.")
    height: int | None = Field(None, ge=1, description="Height of the picture.")
    as_json: bool = json_value("Say it as JSON.")


class RecipesRequest(Settings):
    """List the recipes, or show one whole."""

    name: str | None = argument(None, "A recipe to show.")


class RunsListRequest(Settings):
    """List the runs in a folder."""

    folder: str = argument("runs", "Folder that holds runs.")


class RunsCompareRequest(Settings):
    """Overlay runs in one page: loss curves, changed settings, samples by step."""

    runs: list[str] = argument(..., "Run folders.")
    out: str = Field("comparison.html", description="Page to write.")
