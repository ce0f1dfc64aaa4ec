"""Ask for training, and for averages of weights."""

from pydantic import Field

from fromnoise.app.requests.fields import argument
from fromnoise.core.config import Settings
from fromnoise.training.settings import TrainSettings


class TrainRequest(Settings):
    """Train a model by a recipe, or go on with a run.

    A run that was interrupted goes on when the same command is given again.
    """

    recipe: str | None = argument(None, "Recipe to follow: a name (`fromnoise recipes`) or a file.")
    out: str | None = Field(None, description="Run folder to write; runs/RECIPE by default.")
    resume: str | None = Field(None, description="Run folder to go on with, in place of a recipe.")
    base: str | None = Field(
        None,
        description="Model to start from: a run, a model folder, or what else can be opened. Its "
        "network takes the place of the recipe's.",
        json_schema_extra={"flags": ["--from"]},
    )
    codec: str | None = Field(
        None,
        description="Run or model whose autoencoder this one is diffused behind: it learns of "
        "latents in place of pixels.",
    )
    data: str | None = Field(
        None,
        description="Other data than the recipe's: a folder of pictures, a tar, a NumPy file, a "
        "data set by name, a JSON configuration of one, or latents of `data encode`.",
    )
    max_bad: float = Field(
        0.01, ge=0, le=1, description="Share of --data that may be unreadable and left out."
    )
    augment: str | None = Field(
        None,
        description="Changes of the training pictures, drawn anew in each epoch, in place of the "
        "recipe's: flip, shift, crop, geometric, or several with commas; `none` for none. Of "
        "geometric and what stands with it the network is told, so that samples show none of it.",
    )
    train: TrainSettings = Field(
        TrainSettings(), description="Training settings; those not given are the recipe's."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random in training.")
    processes: int = Field(1, ge=1, le=256, description="Processes that share each step.")
    restarts: int = Field(
        0, ge=0, description="Times to go on from the last checkpoint after a process was lost."
    )


class EmaRequest(Settings):
    """Choose the length of a run's averaged weights after training.

    The run must have tracked averages (--train.post-hoc).
    """

    run: str = argument(..., "The run folder.")
    std: float | None = Field(
        None, gt=0, le=0.28, description="Width of the average, as a share of the training so far."
    )
    step: int | None = Field(None, ge=1, description="Step it is the average at; the last one.")
    out: str | None = Field(
        None, description="Model folder to write; RUN/averages/std-WIDTH by default."
    )
    sweep: bool = Field(
        False, description="Measure the held-out loss of many widths; write ema.json and ema.png."
    )
