"""CLIP's text towers inside a single file: which there are, their sizes, and a vocabulary to them.

A single file holds no vocabulary, and CLIP has one: it is looked for beside the file, and in the
hub's cache.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from fromnoise.core.errors import FileError
from fromnoise.core.meta import without_memory
from fromnoise.encoders.clip import CLIPText
from fromnoise.encoders.clip_towers import TextSettings
from fromnoise.encoders.tokenizers import Vocabulary, read_vocabulary
from fromnoise.interop import clip_keys, hub
from fromnoise.interop.clip_keys import Program

State = Mapping[str, Tensor]

# OpenCLIP fills prompts up with this sign, OpenAI's with the end of a text.
_PAD = "!"
_HEAD = 64
_HELD = (
    ("openai/clip-vit-large-patch14", ""),
    ("stable-diffusion-v1-5/stable-diffusion-v1-5", "tokenizer"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "tokenizer"),
)
"""Repositories whose cache holds the vocabulary, and the folder in them."""


@dataclass(frozen=True)
class Place:
    """One text tower in a single file: the prefix of its names, and whose names follow.

    skipped: whether its last layer is left out. normed, pooled: as for `CLIPText`.
    """

    prefix: str
    program: Program
    skipped: bool = False
    normed: bool = True
    pooled: bool = False

    @property
    def activation(self) -> Literal["gelu", "quick_gelu"]:
        """OpenAI's own, or OpenCLIP's."""
        return "quick_gelu" if self.program == "transformers" else "gelu"


_ONE, _TWO, _FIRST, _SECOND, _ONLY = clip_keys.PLACES
SD1 = Place(_ONE, "transformers")
SD2 = Place(_TWO, "openai", skipped=True)
XL = (
    Place(_FIRST, "transformers", skipped=True, normed=False),
    Place(_SECOND, "openai", skipped=True, normed=False, pooled=True),
)
REFINER = Place(_ONLY, "openai", skipped=True, normed=False, pooled=True)


def text_encoder(shapes: State, place: Place, where: str, whole: bool = True) -> CLIPText:
    """The text encoder at a place, on the meta device.

    whole: whether all published layers are in the file; Stable Diffusion 2 never uses its last, and
    some programs leave it out. Raises FileError for weights of something else.
    """
    part = clip_keys.part(shapes, place.prefix)
    settings = _settings(part, place, where)
    with without_memory():
        return CLIPText(
            settings, skip=int(place.skipped and whole), normed=place.normed, pooled=place.pooled
        )


def fill_text(encoder: CLIPText, tensors: State, place: Place) -> None:
    """Put the weights at a place into an encoder that `text_encoder` made."""
    part = clip_keys.part(tensors, place.prefix)
    encoder.tower.load_state_dict(clip_keys.to_ours(part, encoder.tower), assign=True)


def vocabulary(path: Path, place: Place) -> Vocabulary:
    """The vocabulary for the prompts of a single file.

    Raises FileError that says where to put one, or for one that is damaged.
    """
    for folder in vocabulary_folders(path, _HELD):
        if _holds(folder):
            return _padded(read_vocabulary(folder), place)
    raise FileError(
        f"{path} reads prompts by CLIP's vocabulary, which such a file does not hold: put "
        f"vocab.json and merges.txt, or tokenizer.json, beside it or into {path.parent}/tokenizer, "
        "or pull it once with `fromnoise models pull openai/clip-vit-large-patch14`"
    )


def vocabulary_folders(path: Path, held: Iterable[tuple[str, str]]) -> Iterator[Path]:
    """Where a vocabulary for a single file may lie: beside it, then in the hub's cache.

    held: repositories, and the folder in each.
    """
    yield from (path.parent, path.parent / "tokenizer", path.with_suffix(""))
    for name, inside in held:
        found = hub.held(name)
        if found is not None:
            yield found / inside


def _holds(folder: Path) -> bool:
    pair = (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    return pair or (folder / "tokenizer.json").is_file()


def _padded(read: Vocabulary, place: Place) -> Vocabulary:
    pad = read.end if place.program == "transformers" else _PAD
    return read.model_copy(update={"pad": pad})


def _settings(part: State, place: Place, where: str) -> TextSettings:
    """The sizes of a tower from the shapes of its weights; its heads are 64 wide."""
    ours = clip_keys.program_of(part) == "transformers"
    names = _TRANSFORMERS if ours else _OPENAI
    found = [_ending(part, name, where, place) for name in names]
    (vocabulary, width), (length, _), (hidden, _) = (value.shape for value in found)
    norm = ".layer_norm1.weight" if ours else ".ln_1.weight"
    projection = None
    if place.pooled:
        name = "text_projection.weight" if ours else "text_projection"
        shape = _ending(part, name, where, place).shape
        projection = shape[0] if ours else shape[1]
    return TextSettings(
        vocabulary=vocabulary,
        length=length,
        width=width,
        depth=sum(name.endswith(norm) for name in part),
        heads=max(1, width // _HEAD),
        hidden=hidden,
        activation=place.activation,
        projection=projection,
    )


_TRANSFORMERS = (
    "embeddings.token_embedding.weight",
    "embeddings.position_embedding.weight",
    "layers.0.mlp.fc1.weight",
)
_OPENAI = ("token_embedding.weight", "positional_embedding", "resblocks.0.mlp.c_fc.weight")


def _ending(part: State, name: str, where: str, place: Place) -> Tensor:
    value = next((value for key, value in part.items() if key.endswith(name)), None)
    if value is None:
        raise FileError(f"{where} holds no whole text encoder: it lacks {place.prefix}…{name}")
    return value
