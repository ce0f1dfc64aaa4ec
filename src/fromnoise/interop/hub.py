"""Models of the Hugging Face hub by name: the local cache first, then a download."""

import re
from pathlib import Path
from typing import Any

from fromnoise.core.errors import FileError

_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?")
_WANTED = ["*.json", "*.safetensors", "*.txt"]


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
    match = _ID.fullmatch(source)
    if match is None:
        raise FileError(f"{source!r} is no name of a model on the hub; it would be owner/name")
    name, revision = match.groups()
    found = _cached(name, revision) or _fetched(name, revision)
    return found, f"{name}@{found.name}"


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


def _cached(name: str, revision: str | None) -> Path | None:
    """The snapshot in the cache, if it has a configuration and the weights it needs."""
    found = _snapshot(name, revision, local=True)
    if found is None or not any((found / start).is_file() for start in _STARTS):
        return None
    # Pickles are refused where they are opened, with the way out.
    held = any(path.suffix in (".safetensors", ".bin") for path in found.rglob("*.*"))
    return found if held else None


def _fetched(name: str, revision: str | None) -> Path:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = _snapshot(name, revision, local=False)
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
        # Sockets, proxies, certificates and disks each raise what they like.
        raise _unreachable(name, error) from None
    if found is None:
        raise _unreachable(name, None)
    return found


_STARTS = ("model_index.json", "config.json")


def _snapshot(name: str, revision: str | None, local: bool) -> Path | None:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    options: dict[str, Any] = {"revision": revision, "local_files_only": local}
    options |= {"cache_dir": constants.HF_HUB_CACHE, "allow_patterns": _WANTED}
    try:
        return Path(snapshot_download(name, **options))
    except LocalEntryNotFoundError:
        return None


def _unreachable(name: str, error: Exception | None) -> FileError:
    why = "" if error is None else f" ({type(error).__name__})"
    return FileError(
        f"{name} is not in the local cache and the hub cannot be reached{why}{_at_hand()}"
    )


def _at_hand() -> str:
    """What could be opened instead."""
    models, local = cached(), runs()
    parts = [f"cached models: {', '.join(models[:12])}"] if models else []
    parts += [f"local runs: {', '.join(local[:12])}"] if local else []
    if not parts:
        return ". Nothing is cached; `fromnoise train digits` makes a model of your own"
    return f". At hand are {'; '.join(parts)}"
