"""Models that come with the package, opened by a name alone."""

from importlib.resources import files
from pathlib import Path

from fromnoise.core.errors import FileError
from fromnoise.model import Model, load_model

_ROOM = "models"


def folder() -> Path:
    """Where the models of the package are; nothing need be there."""
    return Path(str(files("fromnoise"))) / _ROOM


def names() -> list[str]:
    """The models that come with the package, by name."""
    room = folder()
    found = room.iterdir() if room.is_dir() else ()
    return sorted(path.name for path in found if (path / "model.json").is_file())


def is_builtin(name: str) -> bool:
    """Whether a model of that name comes with the package."""
    return name in names()


def load_builtin(name: str) -> Model:
    """The model of that name. FileError where none comes with the package, or it is damaged."""
    if not is_builtin(name):
        known = ", ".join(names()) or "none"
        raise FileError(f"no model {name!r} comes with fromnoise; there is {known}")
    return load_model(folder() / name)
