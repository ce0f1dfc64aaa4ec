"""What can be asked: one model for each verb. Flags, schema and reference derive from these.

`json_schema_extra={"positional": True}` makes a field an argument without a flag; `"flags"` adds
short ones.
"""

from typing import Any, Literal

from pydantic import Field

from fromnoise.core.config import Settings
from fromnoise.training.settings import TrainSettings

Format = Literal[
    "fromnoise", "network", "diffusers", "single-file", "onnx", "torch-export",
    "guided-diffusion", "score-sde", "dit", "safetensors",
]  # fmt: skip


def _argument(default: Any, description: str) -> Any:
    return Field(default, description=description, json_schema_extra={"positional": True})


def _json(description: str) -> Any:
    return Field(False, description=description, json_schema_extra={"flags": ["--json"]})


class TrainRequest(Settings):
    """Train a model by a recipe, or go on with a run.

    A run that was interrupted goes on when the same command is given again.
    """

    recipe: str | None = _argument(
        None, "Recipe to follow: a name (`fromnoise recipes`) or a file."
    )
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


class Sampling(Settings):
    """What says how samples are drawn."""

    model: str | None = _argument(
        None, "A run or model folder, a folder of diffusers, or owner/name on the hub."
    )
    prompt: str | None = _argument(None, "What to draw, in words, where the model reads text.")
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
    exact: bool = Field(False, description="Run the network in float32 throughout.")
    half: bool = Field(False, description="Run the network in bfloat16, small ones too.")


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


class EmaRequest(Settings):
    """Choose the length of a run's averaged weights after training.

    The run must have tracked averages (--train.post-hoc).
    """

    run: str = _argument(..., "The run folder.")
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
    usefulness: bool = Field(
        False,
        description="Measure only what samples are worth as training data: small models learn "
        "from real pictures, drawn ones and both.",
    )
    scales: str = Field(
        "1,2,3,5", description="Guidance scales whose usefulness is measured, with commas."
    )
    few: int = Field(100, ge=1, description="Real pictures in the small regime of the usefulness.")


class ConvertRequest(Settings):
    """Turn a model, or weights of another program, into another format.

    Nothing is written when a name has no place, and each such name is shown. A pickle (.pt, .pth,
    .ckpt, .bin) is only ever read with --from-pickle, in a process of its own.
    """

    source: str = _argument(
        ..., "A run, a model or diffusers folder, a file of weights, or a hub name."
    )
    out: str = _argument(..., "File or folder to write.")
    to: Format | None = Field(
        None,
        description="Format to write; by default safetensors for OUT.safetensors, else fromnoise.",
    )
    half: bool = Field(
        False, description="Round the weights of a model folder to bfloat16: half the size."
    )
    from_pickle: bool = Field(
        False, description="SOURCE is a PyTorch pickle; read it as data, nothing in it is run."
    )
    weights: Literal["auto", "ema", "model"] = Field(
        "auto", description="Which weights of a checkpoint: averaged where it has them, or a kind."
    )
    preset: str | None = Field(
        None, description="Published model the weights are of, e.g. adm-64; else by their shapes."
    )
    flags: str | None = Field(
        None, description="Command line a model of guided-diffusion was trained with: --flags='…'."
    )
    report: str | None = Field(None, description="Also write what was found to this JSON file.")


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


class DataEmbedRequest(Settings):
    """Write what an image-text model or a classifier makes of every sample of a data set.

    Models of such vectors, and of pictures that are told them, train on that file.
    """

    run: str = _argument(..., "The run of an image-text model or a classifier.")
    data: str | None = Field(
        None, description="Data to read: by name, folder, tar or file; the run's own by default."
    )
    out: str | None = Field(
        None, description="File to write; RUN/embeddings.safetensors by default."
    )


class DataEncodeRequest(Settings):
    """Write the latents of every picture of a data set, so that training need not compute them.

    Models behind that autoencoder train on the file with --data: faster, and to the same loss.
    """

    run: str = _argument(..., "The run of an autoencoder, or a model with one.")
    data: str | None = Field(
        None, description="Data to read: by name, folder, tar or file; the run's own by default."
    )
    out: str | None = Field(None, description="File to write; RUN/latents.safetensors by default.")
    half: bool = Field(False, description="Keep latents in bfloat16: half the size.")


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


class ModelsListRequest(Settings):
    """List the models at hand: those that come with the package, the runs, the hub's cache."""

    as_json: bool = _json("Say it as JSON.")


class ModelsInfoRequest(Settings):
    """Say what a model at hand is: files, hashes, licence, and what a run of it will need."""

    model: str = _argument(..., "A model at hand: by its name, or its folder.")
    width: int | None = Field(None, ge=1, description="Width of the pictures of that run.")
    height: int | None = Field(None, ge=1, description="Height of the pictures of that run.")
    batch_size: int = Field(1, ge=1, le=1024, description="Batch of that run.")
    exact: bool = Field(False, description="That run is in float32 throughout.")
    quick: bool = Field(
        False, description="Do not take a step of the network, which says how long a run takes."
    )
    as_json: bool = _json("Say it as JSON.")


class ModelsPullRequest(Settings):
    """Fetch a model of the hub into the cache, whole, at one commit; only safetensors and texts.

    A pull that was cut short goes on. A branch that has moved since stays where it was pulled.
    """

    model: str = _argument(..., "owner/name, or owner/name@revision.")
    variant: str | None = Field(None, description="Kind of weights in place of the plain, as fp16.")
    file: list[str] = Field([], description="Fetch this file only; once for each.")
    update: bool = Field(False, description="Take the commit that the branch has moved to.")


class ModelsRemoveRequest(Settings):
    """Remove a whole model from the hub's cache, with all of its revisions."""

    model: str = _argument(..., "owner/name, as `fromnoise models list` shows it.")


class ExplainRequest(Settings):
    """Show what happens inside a model."""

    model: str = _argument(..., "A run, a model, or a published network by name.")
    shapes: bool = Field(
        False, description="Every tensor from the prompt to the picture, with its shape."
    )
    prompt: str = Field("a cat", description="Prompt whose tokens are shown.")
    width: int | None = Field(None, ge=1, description="Width of the picture.")
    height: int | None = Field(None, ge=1, description="Height of the picture.")
    as_json: bool = _json("Say it as JSON.")
