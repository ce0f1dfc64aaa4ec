"""What can be asked: one model for each verb. Flags, schema and reference derive from these.

`json_schema_extra={"positional": True}` makes a field an argument without a flag; `"flags"` adds
short ones.
"""

from typing import Any

from pydantic import Field

from fromnoise.core.config import Settings
from fromnoise.training.settings import TrainSettings


def _argument(default: Any, description: str) -> Any:
    return Field(default, description=description, json_schema_extra={"positional": True})


class TrainRequest(Settings):
    """Train a model by a recipe, or go on with a run.

    A run that was interrupted goes on when the same command is given again.
    """

    recipe: str | None = _argument(
        None, "Recipe to follow: a name (`fromnoise recipes`) or a file."
    )
    out: str | None = Field(None, description="Run folder to write; runs/RECIPE by default.")
    resume: str | None = Field(None, description="Run folder to go on with, in place of a recipe.")
    train: TrainSettings = Field(
        TrainSettings(), description="Training settings; those not given are the recipe's."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random in training.")


class SampleRequest(Settings):
    """Draw samples from a model."""

    model: str | None = _argument(None, "A run folder or a model folder.")
    count: int = Field(
        16, ge=1, le=100_000, description="Samples to draw.", json_schema_extra={"flags": ["-n"]}
    )
    label: str | None = Field(
        None, description="Class number or name; several with commas; `all` takes each in turn."
    )
    sampler: str | None = Field(None, description="Sampler, e.g. ddim, euler_a, dpm++2m.")
    steps: int | None = Field(None, ge=1, le=100_000, description="Steps.")
    grid: str | None = Field(None, description="Spacing of the steps, e.g. karras, trailing.")
    guidance: float | None = Field(None, description="Guidance scale; 1 is none.")
    eta: float | None = Field(None, ge=0, description="Noise that DDIM adds: 0 none, 1 as DDPM.")
    seed: int = Field(0, ge=0, description="Sample i is drawn with seed + i.")
    out: str | None = Field(None, description="Folder to write pictures to; samples/ by default.")
    batch_size: int | None = Field(None, ge=1, description="Batch the network is run at.")
    exact: bool = Field(False, description="Run the network in float32 throughout.")
    film: bool = Field(False, description="Also write a film strip of the denoising.")
    replay: str | None = Field(None, description="Draw a written picture again, from its recipe.")


class EvaluateRequest(Settings):
    """Measure a trained run on held-out data; write evaluation.json and report.html into it."""

    run: str = _argument(..., "The run folder.")
    samples: int = Field(1000, ge=50, le=100_000, description="Samples to draw for measuring.")
    guidance: float | None = Field(None, description="Guidance scale of the guided samples.")
    steps: int | None = Field(None, ge=1, description="Sampling steps.")
    sampler: str | None = Field(None, description="Sampler.")
    seed: int = Field(0, ge=0, description="Seed of samples and intervals.")
    likelihood: int = Field(
        128, ge=0, description="Held-out samples whose likelihood is measured; 0 leaves it out."
    )


class DataCheckRequest(Settings):
    """Read every picture of a folder or of tar shards, and say what is wrong with which.

    The exit code is 1 when the share of bad pictures is above --max-bad.
    """

    path: str = _argument(..., "A folder of pictures, a tar, or a folder or pattern of tars.")
    max_bad: float = Field(0.01, ge=0, le=1, description="Share of bad pictures that is allowed.")
    show: int = Field(5, ge=0, description="Names to list of each kind; all are in the JSON.")
    out: str | None = Field(None, description="Also write all that was found to this JSON file.")


class DataPreviewRequest(Settings):
    """Draw a contact sheet of a data set, evenly taken from all of it."""

    source: str = _argument(
        ..., "A data set by name, or a folder, tar, NumPy file, or JSON configuration of one."
    )
    out: str = Field("preview.png", description="Picture to write.")
    count: int = Field(
        64, ge=1, le=10_000, description="Samples to show.", json_schema_extra={"flags": ["-n"]}
    )
    size: int = Field(128, ge=8, le=1024, description="Side to show each sample at, in pixels.")
    columns: int = Field(8, ge=1, description="Samples in a row.")


class RecipesRequest(Settings):
    """List the recipes, or show one whole."""

    name: str | None = _argument(None, "A recipe to show.")


class RunsListRequest(Settings):
    """List the runs in a folder."""

    folder: str = _argument("runs", "Folder that holds runs.")


class RunsCompareRequest(Settings):
    """Overlay runs in one page: loss curves, changed settings, samples by step."""

    runs: list[str] = _argument(..., "Run folders.")
    out: str = Field("comparison.html", description="Page to write.")
