"""The models at hand, found without reaching anything: the cache's, the package's, the runs."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fromnoise.core import strictjson
from fromnoise.core.errors import FileError
from fromnoise.interop import builtin, hub

Where = Literal["cache", "package", "run", "folder", "file"]

CARD = "README.md"
PARTIAL = ".part"
"""How the name of a file ends that is still being fetched."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_CARD = 2**20
FAMILIES = {
    "StableDiffusionPipeline": "Stable Diffusion",
    "StableDiffusionImg2ImgPipeline": "Stable Diffusion",
    "StableDiffusionInpaintPipeline": "Stable Diffusion inpainting",
    "StableDiffusionDepth2ImgPipeline": "Stable Diffusion depth",
    "StableDiffusionUpscalePipeline": "Stable Diffusion x4 upscaler",
    "StableDiffusionImageVariationPipeline": "Stable Diffusion image variations",
    "StableDiffusionXLPipeline": "Stable Diffusion XL",
    "StableDiffusionXLImg2ImgPipeline": "Stable Diffusion XL",
    "StableDiffusionXLInpaintPipeline": "Stable Diffusion XL inpainting",
    "LDMTextToImagePipeline": "latent diffusion, text",
    "LDMPipeline": "latent diffusion",
    "DiTPipeline": "DiT",
}
"""Pipelines by their class, as people call them; other classes keep their name."""


@dataclass(frozen=True)
class Shelved:
    """A model at hand.

    path: the folder or file of what would be opened, or None where nothing of it is whole. root:
    what it takes on the disk. revision: the commit, of the cache only. partial: whether a pull of
    it was cut short.
    """

    name: str
    where: Where
    path: Path | None
    root: Path
    revision: str | None = None
    partial: bool = False

    @property
    def bytes(self) -> int:
        """On the disk, all revisions together."""
        return size_of(self.root)

    @property
    def family(self) -> str:
        """What kind of model it is, by its configuration."""
        return "nothing whole" if self.path is None else family(self.path)

    @property
    def licence(self) -> str | None:
        """What its card says."""
        return None if self.path is None else licence(self.path)


def shelf() -> list[Shelved]:
    """Every model at hand by name: the package's, the runs, the cache."""
    own = [
        Shelved(n, "package", builtin.folder() / n, builtin.folder() / n) for n in builtin.names()
    ]
    runs = [Shelved(run, "run", newest(Path(run)), Path(run)) for run in hub.runs()]
    return [*own, *runs, *sorted(cached(), key=lambda one: one.name)]


def cached() -> Iterator[Shelved]:
    """The models in the hub's cache, whole or not."""
    root = hub.cache()
    if not root.is_dir():
        return
    for folder in sorted(root.glob("models--*")):
        if folder.is_dir() and not folder.is_symlink():
            yield of_folder(folder)


def of_folder(folder: Path) -> Shelved:
    """The model in a folder of the cache, at the commit that is its `main`, else the latest."""
    name = folder.name.removeprefix("models--").replace("--", "/")
    snapshots = folder / "snapshots"
    there = [p for p in snapshots.iterdir() if p.is_dir()] if snapshots.is_dir() else []
    commits = {path.name: path for path in there}
    commit = reference(folder, "main")
    if commit not in commits and commits:
        commit = max(commits, key=lambda one: commits[one].stat().st_mtime)
    path = commits.get(commit or "")
    partial = any((folder / "blobs").glob(f"*{PARTIAL}")) if (folder / "blobs").is_dir() else False
    return Shelved(name, "cache", path, folder, commit if path else None, partial)


def reference(folder: Path, revision: str) -> str | None:
    """The commit that a branch or tag was when it was fetched; None where it was not."""
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def newest(run: Path) -> Path | None:
    """The model folder of a run's last checkpoint, unchecked; None where there is none yet."""
    found = sorted((run / "checkpoints").glob("step-*/model"))
    return found[-1] if found else None


def size_of(root: Path) -> int:
    """The bytes of a file, or of all files below a folder, linked ones not counted."""
    if root.is_file():
        return root.stat().st_size
    total = 0
    for place, _, files in os.walk(root):
        for name in files:
            path = Path(place, name)
            if not path.is_symlink():
                total += path.stat().st_size
    return total


def family(path: Path) -> str:
    """What kind of model a folder or a file holds, in a few words."""
    if path.is_file():
        from fromnoise.interop.single_file import recognised

        return recognised(path).family.name
    index = _json(path / "model_index.json").get("_class_name")
    if index:
        return FAMILIES.get(str(index), str(index).removesuffix("Pipeline"))
    config = _json(path / "config.json")
    if config.get("_class_name") or config.get("model_type"):
        return str(config.get("_class_name") or config.get("model_type"))
    own = _json(path / "model.json")
    if not own:
        return "weights"
    net, codec = (own.get(part, {}).get("kind", "?") for part in ("net", "codec"))
    told = ", ".join(own.get("encoders", {})) or "nothing"
    return f"{net} over {'pixels' if codec == 'identity' else f'latents ({codec})'}, told {told}"


def licence(path: Path) -> str | None:
    """The licence that the card of a model names: `license` in the YAML before its README."""
    import yaml

    try:
        with (path / CARD).open("rb") as file:
            text = file.read(_MOST_CARD).decode("utf-8", "replace")
    except OSError:
        return None
    found = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.S)
    if found is None:
        return None
    try:
        card = yaml.safe_load(found[1])
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    if not isinstance(card, dict):
        return None
    named = card.get("license_name") if card.get("license") in (None, "other") else card["license"]
    said = named or card.get("license")
    return " ".join(str(said).split())[:80] if said else None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none that can be read."""
    try:
        value = strictjson.loads(path.read_bytes(), str(path), finite=False)
    except (OSError, FileError):
        return {}
    return value if isinstance(value, dict) else {}
