"""Ask for pictures: what a call of sampling takes, once or over a grid."""

from typing import Literal

from pydantic import Field

from fromnoise.app.requests.fields import argument
from fromnoise.core.config import Settings


class Sampling(Settings):
    """What says how samples are drawn."""

    model: str | None = argument(
        None, "A run or model folder, a folder of diffusers, or owner/name on the hub."
    )
    prompt: str | None = argument(None, "What to draw, in words, where the model reads text.")
    count: int = Field(
        16, ge=1, le=100_000, description="Samples to draw.", json_schema_extra={"flags": ["-n"]}
    )
    label: str | None = Field(
        None,
        description="Class number or name, or weights, 3:0.5+8:0.5; several with commas; `all` "
        "takes each in turn.",
    )
    prior: str | None = Field(
        None,
        description="Model that draws, from the prompt or the label, the vector this one is told.",
    )
    negative: str | None = Field(
        None, description="Prompt, or class, to move away from in place of nothing."
    )
    sampler: str | None = Field(None, description="Sampler, e.g. ddim, euler_a, dpm++2m.")
    steps: int | None = Field(None, ge=1, le=100_000, description="Steps.")
    grid: str | None = Field(None, description="Spacing of the steps, e.g. karras, trailing.")
    guidance: float | None = Field(None, description="Guidance scale; 1 is none.")
    interval: str | None = Field(
        None, description="Times in which guidance acts, e.g. 0.2,0.8; 0 is data and 1 is noise."
    )
    rescale: float = Field(
        0.0, ge=0, le=1, description="Share of guidance that keeps the spread of the unguided."
    )
    guide: list[str] = Field(
        [],
        description="Another guide, NAME:VALUE[:SCALE], e.g. color:blue; once for each, "
        "the first one innermost.",
    )
    threshold: float | None = Field(
        None, gt=0, le=1, description="Dynamic thresholding at this share of values, e.g. 0.995."
    )
    eta: float | None = Field(None, ge=0, description="Noise that DDIM adds: 0 none, 1 as DDPM.")
    seed: int = Field(0, ge=0, description="Sample i is drawn with seed + i.")
    width: int | None = Field(None, ge=1, description="Width in pixels, where it may vary.")
    height: int | None = Field(None, ge=1, description="Height in pixels, where it may vary.")
    input: list[str] = Field(
        [],
        description="What else the model is told, NAME=VALUE by the name of its encoder: a picture "
        'file (depth=room.png), or JSON (attributes={"size": 0.3}); once for each.',
    )
    image: str | None = Field(
        None,
        description="Picture to begin from in place of noise; without --width and --height its "
        "aspect is kept.",
    )
    strength: float | None = Field(
        None, gt=0, le=1, description="Share of the steps run from --image; 0.75 by default."
    )
    hires: float | None = Field(
        None,
        gt=1,
        le=8,
        description="Draw again at so many times the size, from the enlarged picture.",
    )
    hires_strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the second pass's steps that are run; 0.6 by default.",
    )
    hires_steps: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Steps of the second pass's grid; as the first by default.",
    )
    hires_upscaler: Literal["bicubic", "latent"] | None = Field(
        None,
        description="What is enlarged for --hires: the picture, bicubic (default), or latents.",
    )
    clip_skip: int | None = Field(
        None, ge=1, description="Layer of CLIP that prompts are read from, 1 being the last."
    )
    vae: str | None = Field(
        None,
        description="Another autoencoder of the same latents: a model, a folder of diffusers, or a "
        "file.",
    )
    batch_size: int | None = Field(None, ge=1, description="Batch the network is run at.")
    tile: int | None = Field(
        None,
        ge=0,
        description="Latents along a side of the tiles that the autoencoder works in, from 8; 0 is "
        "in one piece. By default tiles are taken where memory is short.",
    )
    exact: bool = Field(False, description="Run the network in float32 throughout.")
    half: bool = Field(False, description="Run the network in bfloat16, small ones too.")
    compile: bool = Field(
        False,
        description="Run the network by torch.compile: minutes at first, for those who draw much.",
    )


class SampleRequest(Sampling):
    """Draw samples from a model."""

    out: str | None = Field(None, description="Folder to write pictures to; samples/ by default.")
    film: bool = Field(False, description="Also write a film strip of the denoising.")
    preview: int | None = Field(
        None,
        ge=1,
        description="Every so many steps, write what the pictures are becoming to preview.png.",
    )
    processes: int = Field(1, ge=1, le=256, description="Processes that share the batches.")
    replay: str | None = Field(None, description="Draw a written picture again, from its recipe.")
    as_dataset: str | None = Field(
        None,
        description="Folder to write a labelled data set into, for any trainer; the same command "
        "goes on with one that was interrupted.",
    )
    classes: str | None = Field(
        None, description="Classes of the data set, by name or number with commas; all by default."
    )
    balance: str | None = Field(
        None,
        description="Folder or data set whose rare classes are drawn more often, so that both "
        "together are even.",
    )
    keep: Literal["all", "reader", "classifier"] = Field(
        "all",
        description="Pictures that are kept: those the reader of shapes finds right, or a "
        "classifier of the run's real data; others are drawn in place of those dropped.",
    )
    formats: str | None = Field(
        None, description="Forms of boxes and masks, with commas: coco, yolo, masks; all that fit."
    )


class GridRequest(Sampling):
    """Draw samples over two settings, one across and one down, on one labelled sheet.

    All other settings, the seed too, are the same in every cell. Beside the sheet a JSON file says
    how each cell was drawn.
    """

    across: str = Field(
        ...,
        description="NAME=VALUE,VALUE,… of the columns: a setting of `sample`, such as "
        "guidance=1,2,4 or sampler=ddim,heun; | in place of commas where a value holds one.",
    )
    down: str | None = Field(None, description="The same of the rows; one row without.")
    count: int = Field(
        1, ge=1, le=100, description="Samples in each cell.", json_schema_extra={"flags": ["-n"]}
    )
    out: str = Field("grid.png", description="PNG to write; the JSON has its name.")
