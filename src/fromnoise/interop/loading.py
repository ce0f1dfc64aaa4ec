"""Opening models: a run, a model folder, and what other tools write."""

from pathlib import Path

from fromnoise.core.errors import FileError
from fromnoise.core.files import refuse_pickle
from fromnoise.interop import diffusers_folder, hub
from fromnoise.model import Model, load_model
from fromnoise.training.checkpoint import latest_model

__all__ = ["load"]


def load(source: str | Path) -> Model:
    """Open a model by its path, or by its name on the Hugging Face hub.

    A path is that of a run folder, its checkpoint, a model folder, or a folder that diffusers
    wrote: a pipeline's, or one network's. A name is owner/name or owner/name@revision; the local
    cache is looked into first, and nothing is reached where the model is in it. A path that is
    there is a path.

    Raises FileError when nothing is there, or what is there is corrupt, a pickle, or of a kind
    that is not read.
    """
    path = Path(source)
    if path.exists():
        return _opened(path, str(source))
    if isinstance(source, str) and hub.is_id(source):
        found, name = hub.snapshot(source)
        model = _opened(found, name)
        model.card.name = name.partition("@")[0]
        return model
    raise FileError(f"{source}: no such file or folder; train one with `fromnoise train digits`")


def _opened(path: Path, source: str) -> Model:
    if path.is_file():
        refuse_pickle(path)
        raise FileError(f"{path} is a file; give the folder that holds it")
    if (path / "model.json").exists():
        model = load_model(path)
    elif (path / "checkpoints").is_dir():
        model = load_model(latest_model(path))
    elif diffusers_folder.is_pipeline(path):
        model = diffusers_folder.open_pipeline(path)
    elif diffusers_folder.is_network(path):
        model = diffusers_folder.open_network(path)
    else:
        raise FileError(
            f"{path} holds neither model.json nor checkpoints, and no model_index.json or "
            "config.json of diffusers; it is no model or run"
        )
    # The run, not its checkpoint: a later one takes the place of this one.
    model.source = source
    return model
