"""Opening a pipeline of diffusers, whatever its class."""

from pathlib import Path

from fromnoise.core.errors import FileError
from fromnoise.interop import diffusers_folder, latent_folder
from fromnoise.interop.diffusers_folder import INDEX
from fromnoise.model import Model

CLASSES = (*diffusers_folder.PIPELINES, *latent_folder.PIPELINES)
"""The classes that are read, by name."""


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a pipeline of diffusers."""
    return (folder / INDEX).is_file()


def open_pipeline(folder: Path) -> Model:
    """The model of a pipeline folder.

    Raises FileError naming the file and the key for a class that is not read, an option there is
    nothing here for, a part that is missing, and weights that are missing, damaged, pickled or of
    another network.
    """
    name = diffusers_folder.json_object(folder / INDEX).get("_class_name")
    if name in latent_folder.PIPELINES:
        return latent_folder.open_latent(folder)
    if name in diffusers_folder.PIPELINES:
        return diffusers_folder.open_pipeline(folder)
    raise FileError(f"{folder / INDEX}: {name} is not read; these are: {', '.join(CLASSES)}")
