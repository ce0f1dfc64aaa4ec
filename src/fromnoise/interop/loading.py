"""Opening models: a run, a model folder, and what other tools write."""

from pathlib import Path

from fromnoise.core.errors import FileError
from fromnoise.core.files import refuse_pickle
from fromnoise.model import Model, load_model
from fromnoise.training.checkpoint import latest_model

__all__ = ["load"]


def load(source: str | Path) -> Model:
    """Open a model by its path: a run folder, its checkpoint, or a model folder.

    Raises FileError when nothing is there, or what is there is corrupt, or a pickle.
    """
    path = Path(source)
    if not path.exists():
        raise FileError(
            f"{source}: no such file or folder; train one with `fromnoise train digits`"
        )
    if path.is_file():
        refuse_pickle(path)
        raise FileError(f"{path} is a file; give the folder that holds model.json")
    if (path / "model.json").exists():
        return load_model(path)
    if (path / "checkpoints").is_dir():
        model = load_model(latest_model(path))
        # The run, not the checkpoint: a later one takes the place of this one.
        model.source = str(source)
        return model
    raise FileError(f"{path} holds neither model.json nor checkpoints; it is no model or run")
