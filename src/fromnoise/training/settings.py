"""What can be set about training: every field has a range, a help text and an effect."""

import math
from typing import Any, Literal

from pydantic import Field

from fromnoise.core.config import Settings
from fromnoise.core.errors import UsageError

Choice = str | dict[str, Any]
"""A kind by name, or with its arguments: {"kind": "min_snr", "gamma": 5}."""


class ObjectiveSettings(Settings):
    """What the network is trained to do."""

    weighting: Choice = Field(
        "simple", description="Loss weight: simple, snr, min_snr, p2, edm or elbo."
    )
    time_sampling: Choice = Field(
        "uniform",
        description="How noise levels are drawn: uniform, low_discrepancy, log_normal, "
        "logit_normal or index.",
    )
    condition_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of samples trained without their condition."
    )
    self_conditioning: float = Field(
        0.0, ge=0, le=1, description="Share of samples that are shown the last belief."
    )
    variance_weight: float = Field(
        0.001, ge=0, description="Weight of the bound that trains a learned variance."
    )


class TrainSettings(Settings):
    """How the training loop runs."""

    steps: int | None = Field(1000, ge=1, description="Optimizer steps.")
    epochs: float | None = Field(None, gt=0, description="Passes over the data, in place of steps.")
    batch_size: int = Field(
        128, ge=1, description="Samples in each step, over all processes and micro-steps."
    )
    accumulation: int = Field(
        1, ge=1, description="Micro-steps each batch is split into, to save memory."
    )
    optimizer: Choice = Field("adamw", description="Optimizer by name.")
    learning_rate: float = Field(1e-3, gt=0, description="Learning rate after the warm-up.")
    warmup: int = Field(100, ge=0, description="Steps over which the learning rate rises.")
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="What the learning rate does after the warm-up."
    )
    weight_decay: float = Field(0.0, ge=0, description="Decay of weight matrices.")
    clip: float = Field(1.0, ge=0, description="Largest norm of the gradient; 0 does not clip.")
    ema: float = Field(
        0.999, ge=0, lt=1, description="Decay of the averaged weights that are sampled with."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type the network computes in; bfloat16 pays for large networks."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything random in training.")
    log_every: int = Field(1, ge=1, description="Steps between lines of metrics.jsonl.")
    validate_every: int = Field(
        100, ge=0, description="Steps between losses on held-out data; 0 measures none."
    )
    validation_samples: int = Field(
        512, ge=1, description="Most held-out samples the loss is measured on."
    )
    checkpoint_every: int = Field(
        500, ge=0, description="Steps between checkpoints; 0 saves only at the end."
    )
    keep: int = Field(2, ge=2, description="Newest checkpoints that are kept.")
    sample_every: int = Field(0, ge=0, description="Steps between sample pictures; 0 draws none.")
    workers: int = Field(0, ge=0, le=64, description="Processes that load data ahead.")
    timeout: float = Field(60.0, gt=0, description="Seconds to wait for loaded data.")
    tensorboard: bool = Field(False, description="Write TensorBoard event files as well.")

    def total(self, samples: int) -> int:
        """Optimizer steps in all, for a data set of so many samples.

        Raises UsageError when neither steps nor epochs are given, or there is no data.
        """
        if samples < 1:
            raise UsageError("there is no data to train on; the data set is empty")
        if self.epochs is not None:
            return max(1, math.ceil(self.epochs * samples / self.batch_size))
        if self.steps is None:
            raise UsageError("training needs steps or epochs; set one of them")
        return self.steps


FREE = (
    "summary",
    "paper",
    "figure",
    "sampling",
    "train.log_every",
    "train.validate_every",
    "train.validation_samples",
    "train.checkpoint_every",
    "train.keep",
    "train.sample_every",
    "train.workers",
    "train.timeout",
    "train.tensorboard",
)
"""Keys of a run's configuration that may change when it goes on: the weights do not see them."""

LENGTH = ("train.steps", "train.epochs")
"""Keys that may change as well while the learning rate does not depend on them."""
