"""Opening models: a run, a model folder, and what other tools write."""

from pathlib import Path

from fromnoise.core.errors import FileError, nearest
from fromnoise.interop import builtin, diffusers_folder, hub, pipelines
from fromnoise.interop.single_file import open_single
from fromnoise.model import Model, load_model
from fromnoise.training.checkpoint import latest_model

__all__ = ["load"]

_PLACES = frozenset({"runs", "models", "checkpoints", "samples"})
"""First parts of a path that are meant as one, whether or not the folder is there."""

_MARKS = ("model.json", "model_index.json", "config.json", "checkpoints")
_SHOWN = 12


def load(source: str | Path) -> Model:
    """Open a model by its path, by its name on the Hugging Face hub, or one of the package's own.

    `emoji` comes with the package (`builtin.names()` lists them). A path is that of a run folder,
    its checkpoint, a model folder, a folder that diffusers wrote (a pipeline's, or one network's),
    or one safetensors file with a whole Stable Diffusion or latent diffusion. A name is owner/name
    or owner/name@revision; the local cache is looked into first, and nothing is reached where the
    model is in it. A path that is there is a path, and so is all that begins with a folder that is
    there, or with `runs`, `models`, `checkpoints` or `samples`.

    Raises FileError when nothing is there, or what is there is corrupt, a pickle, or of a kind
    that is not read.
    """
    path = Path(source)
    if path.exists():
        return _opened(path, str(source))
    if isinstance(source, str) and builtin.is_builtin(source):
        model = builtin.load_builtin(source)
        model.source = source
        return model
    if isinstance(source, str) and hub.is_id(source) and not _local(path):
        found, name = hub.snapshot(source)
        model = _opened(found, name)
        model.card.name = name.partition("@")[0]
        return model
    missing = f"{source}: {_missing(path)}"
    if isinstance(source, str) and hub.is_id(source) and path.parts[0] not in _PLACES:
        missing += f" (the folder {path.parts[0]} is here; for the hub's, ask from elsewhere)"
    raise FileError(missing)


def _local(path: Path) -> bool:
    """Whether a path that is not there is meant as one, and not as a name on the hub."""
    return path.parts[0] in _PLACES or Path(path.parts[0]).is_dir()


def _missing(path: Path) -> str:
    """What to say of a path that is not there: the nearest that are, beside it and in ./runs."""
    run = path.parts[:1] == ("runs",)
    what = "no such run" if run else "no such file or folder"
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    models = [str(p) for p in beside if any((p / mark).exists() for mark in _MARKS)]
    known = sorted({*models, *hub.runs()})
    # By their last part: the folder they share would make all of them near.
    names = {Path(one).name: one for one in known}
    near = nearest(path.name.partition("@")[0], names)
    if near:
        return f"{what}; did you mean {' or '.join(names[name] for name in near)}?"
    if known:
        return f"{what}; there are {', '.join(known[:_SHOWN])}"
    made = f"RECIPE --out {path}" if run else "digits"
    return f"{what}; train one with `fromnoise train {made}`"


def _opened(path: Path, source: str) -> Model:
    if path.is_file():
        model = open_single(path)
    elif (path / "model.json").exists():
        model = load_model(path)
    elif (path / "checkpoints").is_dir():
        model = load_model(latest_model(path))
    elif pipelines.is_pipeline(path):
        model = pipelines.open_pipeline(path)
    elif diffusers_folder.is_network(path):
        model = diffusers_folder.open_network(path)
    else:
        whole = diffusers_folder.whole_of(path)
        if whole:
            raise FileError(f"{path} is not opened{whole}")
        raise FileError(
            f"{path} holds neither model.json nor checkpoints, and no model_index.json or "
            "config.json of diffusers; it is no model or run"
        )
    # The run, not its checkpoint: a later one takes the place of this one.
    model.source = source
    return model
