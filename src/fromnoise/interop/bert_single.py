"""The BERT of latent diffusion inside a single file, and a vocabulary to it.

The vocabulary is that of the published `bert-base-uncased`, which such a file does not hold.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fromnoise.core.errors import FileError, UsageError
from fromnoise.encoders import ENCODERS, LDMBert
from fromnoise.encoders.wordpieces import WordPieces, read_word_pieces
from fromnoise.interop import ldm_bert_keys
from fromnoise.interop.clip_single import vocabulary_folders
from fromnoise.interop.diffusers_folder import built, kept_as_stored

State = Mapping[str, Tensor]

PREFIX = ldm_bert_keys.PREFIX
_FIRST = f"{PREFIX}token_emb.weight"
_LOGITS = f"{PREFIX}to_logits."
_HELD = (
    ("google-bert/bert-base-uncased", ""),
    ("bert-base-uncased", ""),
    ("CompVis/ldm-text2im-large-256", "tokenizer"),
)
"""Repositories whose cache holds the vocabulary, and the folder in them."""


def is_there(names: Mapping[str, Any]) -> bool:
    """Whether a file holds a BERT of latent diffusion."""
    return _FIRST in names


def wanted(name: str) -> bool:
    """Whether a name is one of its weights: its map to logits only where all is to be written."""
    return name.startswith(PREFIX) and (kept_as_stored() or not name.startswith(_LOGITS))


def text_encoder(shapes: State, path: Path) -> LDMBert:
    """The encoder in a file, on the meta device, with its vocabulary.

    Raises FileError for weights of something else, and for a vocabulary that is not found, is
    damaged or does not fit.
    """
    config = ldm_bert_keys.config_of(shapes, str(path))
    logits = f"{_LOGITS}weight" in shapes and kept_as_stored()
    made: LDMBert = built(config | {"logits": logits}, str(path), ENCODERS)
    try:
        return made.set_vocabulary(_vocabulary(path))
    except UsageError as error:
        raise FileError(f"{path}: {error}") from None


def fill_text(encoder: LDMBert, tensors: State) -> None:
    """Put the weights of a file into an encoder that `text_encoder` made."""
    state = {name: tensors[name] for name in tensors if name.startswith(PREFIX)}
    ldm_bert_keys.fill(encoder, ldm_bert_keys.to_ours(state, encoder, "compvis"))


def _vocabulary(path: Path) -> WordPieces:
    for folder in vocabulary_folders(path, _HELD):
        if (folder / "vocab.txt").is_file() or (folder / "tokenizer.json").is_file():
            return read_word_pieces(folder)
    raise FileError(
        f"{path} reads prompts by BERT's vocabulary, which such a file does not hold: put "
        f"vocab.txt, or tokenizer.json, beside it or into {path.parent}/tokenizer, or pull it once "
        "with `fromnoise models pull google-bert/bert-base-uncased --file vocab.txt`"
    )
