"""Models of the Hugging Face hub by name: the local cache first, then a download."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from fromnoise.core.errors import FileError, FromNoiseError

_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")


def is_id(source: str) -> bool:
    """Whether a text can be the name of a model on the hub: owner/name, or owner/name@revision."""
    return _ID.fullmatch(source) is not None and ".." not in source


def runs() -> list[str]:
    """The runs in ./runs."""
    return sorted(str(path.parent) for path in Path("runs").glob("*/config.json"))


def snapshot(source: str) -> tuple[Path, str]:
    """The folder of a model of the hub, and its name with the commit: owner/name@commit.

    All files are of one commit; only JSON, text and safetensors files are ever fetched. What the
    cache holds is taken as it is, and nothing is reached then; HF_HOME, HF_HUB_CACHE and
    HF_HUB_OFFLINE are heeded.
    Raises FileError when the model is neither cached nor can be fetched; it names what is at hand.
    """
    name, revision = parted(source)
    found = _cached(name, revision) or _fetched(name, revision)
    return found, f"{name}@{found.name}"


def parted(source: str) -> tuple[str, str | None]:
    """owner/name and the revision, or None. Raises FileError for what is no name on the hub."""
    match = _ID.fullmatch(source)
    if match is None or ".." in source:
        raise FileError(f"{source!r} is no name of a model on the hub; it would be owner/name")
    return match[1], match[2]


def cache() -> Path:
    """Where the hub's library keeps what it fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached() -> list[str]:
    """The names of the models in the local cache that hold something to open."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    names = []
    for repo in repos:
        files = {file.file_name for revision in repo.revisions for file in revision.files}
        if repo.repo_type == "model" and files & {"model_index.json", "config.json"}:
            names.append(repo.repo_id)
    return sorted(names)


def held(name: str) -> Path | None:
    """What the cache holds of a model, whole or not; None where it holds nothing."""
    return _snapshot(name, None)


def _cached(name: str, revision: str | None) -> Path | None:
    """The snapshot in the cache, if it has a configuration and the weights it needs."""
    found = _snapshot(name, revision)
    if found is None or not any((found / start).is_file() for start in _STARTS):
        return None
    # Pickles are refused where they are opened, with the way out.
    held = any(path.suffix in (".safetensors", ".bin") for path in found.rglob("*.*"))
    return found if held else None


def _fetched(name: str, revision: str | None) -> Path:
    from fromnoise.interop import pulling

    return pulling.pull(pulling.plan(name, revision))


@contextlib.contextmanager
def asking(name: str, revision: str | None) -> Iterator[None]:
    """What goes wrong when the hub is asked for a model, as one FileError that names a way out."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except FromNoiseError:
        raise
    except GatedRepoError:
        raise FileError(
            f"{name} asks for an agreement first: give it on its page and log in with `hf auth "
            "login`, or use another model"
        ) from None
    except RevisionNotFoundError:
        raise FileError(f"{name} has no revision {revision!r} on the hub") from None
    except RepositoryNotFoundError:
        raise FileError(f"{name} is no model on the hub, or a private one{_at_hand()}") from None
    except Exception as error:
        # Sockets, proxies and certificates each raise what they like.
        raise FileError(
            f"{name} is not in the local cache and the hub cannot be reached "
            f"({type(error).__name__}){_at_hand()}"
        ) from None


_STARTS = ("model_index.json", "config.json")


def _snapshot(name: str, revision: str | None) -> Path | None:
    """What the cache holds of a model, whole or not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(name, revision=revision, local_files_only=True, cache_dir=cache())
        )
    except LocalEntryNotFoundError:
        return None


def _at_hand() -> str:
    """What could be opened instead."""
    models, local = cached(), runs()
    parts = [f"cached models: {', '.join(models[:12])}"] if models else []
    parts += [f"local runs: {', '.join(local[:12])}"] if local else []
    if not parts:
        return ". Nothing is cached; `fromnoise train digits` makes a model of your own"
    return f". At hand are {'; '.join(parts)}"
