"""Ask of data: checked, looked at, embedded, encoded."""

from pydantic import Field

from fromnoise.app.requests.fields import argument
from fromnoise.core.config import Settings


class DataCheckRequest(Settings):
    """Read every picture of a folder or of tar shards, and say what is wrong with which.

    The exit code is 1 when the share of bad pictures is above --max-bad.
    """

    path: str = argument(..., "A folder of pictures, a tar, or a folder or pattern of tars.")
    max_bad: float = Field(0.01, ge=0, le=1, description="Share of bad pictures that is allowed.")
    show: int = Field(5, ge=0, description="Names to list of each kind; all are in the JSON.")
    out: str | None = Field(None, description="Also write all that was found to this JSON file.")


class DataPreviewRequest(Settings):
    """Draw a contact sheet of a data set, evenly taken from all of it."""

    source: str = argument(
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

    run: str = argument(..., "The run of an image-text model or a classifier.")
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

    run: str = argument(..., "The run of an autoencoder, or a model with one.")
    data: str | None = Field(
        None, description="Data to read: by name, folder, tar or file; the run's own by default."
    )
    out: str | None = Field(None, description="File to write; RUN/latents.safetensors by default.")
    half: bool = Field(False, description="Keep latents in bfloat16: half the size.")
