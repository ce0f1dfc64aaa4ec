"""What can be set about training: every field has a range, a help text and an effect."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from fromnoise.core.config import Settings
from fromnoise.core.errors import UsageError

Choice = str | dict[str, Any]
"""A kind by name, or with its arguments: {"kind": "min_snr", "gamma": 5}."""

Share = Annotated[float, Field(ge=0, le=1)]
Dropped = Share | dict[str, Share]
"""A share of samples, or shares by input: {"all": 0.1, "prompt": 0.2}."""

_DROPPED = (
    "Share of samples trained without their condition; or by input, with `all` for all at once."
)


class ObjectiveSettings(Settings):
    """What the network is trained to do."""

    kind: Literal["denoising"] = Field("denoising", description="What is trained.")
    weighting: Choice = Field(
        "simple", description="Loss weight: simple, snr, min_snr, p2, edm, elbo or sigmoid."
    )
    time_sampling: Choice = Field(
        "uniform",
        description="How noise levels are drawn: uniform, low_discrepancy, log_normal, "
        "logit_normal, index or loss_second_moment.",
    )
    condition_dropout: Dropped = Field(0.0, description=_DROPPED)
    self_conditioning: float = Field(
        0.0, ge=0, le=1, description="Share of samples that are shown the last belief."
    )
    variance_weight: float = Field(
        0.001, ge=0, description="Weight of the bound that trains a learned variance."
    )
    loss: Literal["hybrid", "vlb"] = Field(
        "hybrid",
        description="hybrid (the weighted error, and the bound where a variance is learned) or "
        "vlb (the bound alone).",
    )
    uncertainty: int = Field(
        0, ge=0, description="Features of a learned uncertainty that evens out times; 0 is none."
    )
    input_perturbation: float = Field(
        0.0, ge=0, description="Noise added to the network's input alone, in parts of the noise."
    )
    noise_offset: float = Field(
        0.0, ge=0, description="Noise that is the same for a whole channel, in parts of the noise."
    )


class VdmSettings(Settings):
    """Variational diffusion: the bound itself, over a schedule that may learn."""

    kind: Literal["vdm"] = Field("vdm", description="What is trained.")
    condition_dropout: Dropped = Field(0.0, description=_DROPPED)
    learn_schedule: bool = Field(
        True, description="Train the schedule as well, for a bound that varies less."
    )


class VaeSettings(Settings):
    """A variational autoencoder: reconstruction, and what the latents cost."""

    kind: Literal["vae"] = Field("vae", description="What is trained.")
    condition_dropout: Dropped = Field(0.0, description=_DROPPED)
    beta: float = Field(1.0, ge=0, description="Weight of the divergence; 1 is the bound.")
    warmup: int = Field(0, ge=0, description="Steps over which that weight rises from 0.")
    free_nats: float = Field(
        0.0,
        ge=0,
        description="Divergence of a sample's latents, in each group, that costs nothing.",
    )


class GanSettings(Settings):
    """A generator against a discriminator."""

    kind: Literal["gan"] = Field("gan", description="What is trained.")
    discriminator: dict[str, Any] = Field(description="The network that tells data from samples.")
    condition_dropout: Dropped = Field(0.0, description=_DROPPED)
    penalty: float = Field(
        1.0, ge=0, description="Weight of the discriminator's squared slope at real data."
    )


class ClassifierSettings(Settings):
    """A classifier of noisy samples, told how noisy they are."""

    kind: Literal["classifier"] = Field("classifier", description="What is trained.")
    time_sampling: Choice = Field(
        "low_discrepancy", description="How noise levels are drawn, as for denoising."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each label that is spread over all classes."
    )


class ContrastiveSettings(Settings):
    """An image-text model: which caption belongs to which picture."""

    kind: Literal["contrastive"] = Field("contrastive", description="What is trained.")
    time_sampling: Choice = Field(
        "low_discrepancy",
        description="How noise levels are drawn, as for denoising, for a model of noisy pictures.",
    )


class AutoencoderSettings(Settings):
    """An autoencoder: what comes back, what the latents cost, how it looks, whether it seems real.

    Each part can be switched off: a weight of 0, `perceptual` none, no discriminator.
    """

    kind: Literal["autoencoder"] = Field("autoencoder", description="What is trained.")
    reconstruction: Literal["l1", "l2"] = Field(
        "l1", description="Distance of pixels: absolute (l1) or squared (l2)."
    )
    latent_weight: float = Field(
        1e-6,
        ge=0,
        description="Weight of what latents cost: with kl the divergence, in nats for each number "
        "of the picture; with vq the codebook's loss, for which 1 is usual.",
    )
    perceptual: Choice = Field(
        "small",
        description="What pictures are looked at with: none, small (a network that learns in the "
        'first steps), or {"kind": "run", "path": RUN} of a classifier, or {"kind": "lpips", '
        '"backbone": FILE, "heads": FILE}.',
    )
    perceptual_weight: float = Field(
        1.0, ge=0, description="Weight of how different pictures look."
    )
    perceptual_start: int = Field(
        200, ge=0, description="Steps before that counts, in which a small network learns to see."
    )
    discriminator: dict[str, Any] | None = Field(
        None, description="The network that tells pictures from reconstructions; none without."
    )
    adversarial_weight: float = Field(
        0.5, ge=0, description="Weight of seeming real to the discriminator."
    )
    adversarial_start: int = Field(
        0, ge=0, description="Steps before the discriminator learns and counts."
    )
    adaptive: bool = Field(
        True,
        description="Weigh the adversarial gradient by that of the reconstruction, both at the "
        "decoder's last layer.",
    )


class MaskedSettings(Settings):
    """Masked tokens: what were they?"""

    kind: Literal["masked"] = Field("masked", description="What is trained.")
    weighting: Literal["simple", "elbo"] = Field(
        "simple",
        description="Loss weight: simple (every masked token alike) or elbo (the bound on the "
        "likelihood).",
    )
    condition_dropout: Dropped = Field(0.0, description=_DROPPED)


def _kind(value: Any) -> str:
    # Runs and recipes written before there was a choice do not name theirs.
    named = value.get("kind", "denoising") if isinstance(value, Mapping) else value.kind
    return str(named)


AnyObjective = Annotated[
    Annotated[ObjectiveSettings, Tag("denoising")]
    | Annotated[VdmSettings, Tag("vdm")]
    | Annotated[VaeSettings, Tag("vae")]
    | Annotated[GanSettings, Tag("gan")]
    | Annotated[ClassifierSettings, Tag("classifier")]
    | Annotated[ContrastiveSettings, Tag("contrastive")]
    | Annotated[AutoencoderSettings, Tag("autoencoder")]
    | Annotated[MaskedSettings, Tag("masked")],
    Discriminator(_kind),
]
"""What can be trained, told apart by its `kind`; `objectives` builds each."""


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
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice in place of keeping them, to save memory."
    )
    optimizer: Choice = Field(
        "adamw", description="Optimizer by name: adamw, adafactor, lion or muon."
    )
    parts: str = Field(
        "*",
        description="Parameters that are trained, by name with * for anything, several with "
        "commas: up.*,middle.*; the others stay as they are.",
    )
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
    post_hoc: list[float] = Field(
        [],
        description="Relative widths, up to 0.28, of averages tracked so that a length can be "
        "chosen after training; give it once for each, for 0.05 and for 0.1.",
    )
    snapshot_every: int = Field(50, ge=1, description="Steps between snapshots of those averages.")
    snapshot_precision: Literal["float32", "float16"] = Field(
        "float32", description="Type the snapshots are kept in."
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
    group_timeout: float = Field(
        600.0, gt=0, description="Seconds one process waits for another before training ends."
    )
    tensorboard: bool = Field(False, description="Write TensorBoard event files as well.")

    @field_validator("post_hoc")
    @classmethod
    def _widths(cls, widths: list[float]) -> list[float]:
        for width in widths:
            if not 0 < width <= 0.28:
                raise ValueError(f"a width is above 0 and at most 0.28, not {width}")
        if len({f"{width:g}" for width in widths}) < len(widths):
            raise ValueError("give each width once")
        return widths

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
    "train.gradient_checkpointing",
    "train.log_every",
    "train.validate_every",
    "train.validation_samples",
    "train.checkpoint_every",
    "train.keep",
    "train.snapshot_every",
    "train.snapshot_precision",
    "train.sample_every",
    "train.workers",
    "train.timeout",
    "train.group_timeout",
    "train.tensorboard",
)
"""Keys of a run's configuration that may change when it goes on: the weights do not see them."""

LENGTH = ("train.steps", "train.epochs")
"""Keys that may change as well while the learning rate does not depend on them."""
