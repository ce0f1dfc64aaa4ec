"""The text encoder of the first latent diffusion: its weights, both ways, and its folder.

Two programs write it: diffusers (`LDMBertModel`) and latent diffusion itself, in a single file.
Both also hold a map to logits, which nothing needs: it is read where all is to be written again
(`diffusers_folder.as_stored`), and passed over otherwise.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from fromnoise.core.config import Settings, validated
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import read_json
from fromnoise.core.meta import without_memory
from fromnoise.encoders.ldm_bert import LDMBert
from fromnoise.encoders.wordpieces import read_word_pieces
from fromnoise.interop.diffusers_folder import kept_as_stored, weights
from fromnoise.interop.diffusers_nets import Config
from fromnoise.interop.layout import Entry, checked, layers, read, write

Program = Literal["diffusers", "compvis"]

PREFIX = "cond_stage_model.transformer."
_KIND = "ldmbert"
_Count = Annotated[int, Field(ge=1)]
# A block's layers: ours, those of diffusers, those of the block's two parts in latent diffusion.
_BLOCK = (
    ("norm1", "self_attn_layer_norm", (0, "0")),
    ("query", "self_attn.q_proj", (0, "1.to_q")),
    ("key", "self_attn.k_proj", (0, "1.to_k")),
    ("value", "self_attn.v_proj", (0, "1.to_v")),
    ("out", "self_attn.out_proj", (0, "1.to_out")),
    ("norm2", "final_layer_norm", (1, "0")),
    ("first", "fc1", (1, "1.net.0.0")),
    ("second", "fc2", (1, "1.net.2")),
)


class BertSettings(Settings):
    """The keys of an `LDMBertModel`'s config.json that shape it, with the values that are ours."""

    vocab_size: _Count = 30_522
    max_position_embeddings: _Count = 77
    encoder_layers: _Count = 32
    encoder_ffn_dim: _Count = 5120
    encoder_attention_heads: _Count = 8
    head_dim: _Count = 64
    activation_function: Literal["gelu"] = "gelu"
    d_model: _Count = 1280
    scale_embedding: Literal[False] = False


def config(raw: Mapping[str, Any], where: str) -> Config:
    """The configuration of our encoder. FileError for an option that ours does not have."""
    known = {key: raw[key] for key in BertSettings.model_fields if key in raw}
    try:
        them = validated(BertSettings, known, where)
    except UsageError as error:
        raise FileError(str(error)) from None
    return {
        "kind": "ldm_bert",
        "vocabulary": them.vocab_size,
        "length": them.max_position_embeddings,
        "width": them.d_model,
        "depth": them.encoder_layers,
        "heads": them.encoder_attention_heads,
        "head_width": them.head_dim,
        "hidden": them.encoder_ffn_dim,
    }


def settings(config: Mapping[str, Any]) -> Config:
    """The config.json of an `LDMBertModel` that is our encoder."""
    return {
        "architectures": ["LDMBertModel"],
        "model_type": _KIND,
        "vocab_size": config["vocabulary"],
        "max_position_embeddings": config["length"],
        "encoder_layers": config["depth"],
        "encoder_ffn_dim": config["hidden"],
        "encoder_attention_heads": config["heads"],
        "head_dim": config["head_width"],
        "activation_function": "gelu",
        "d_model": config["width"],
        "scale_embedding": False,
        "pad_token_id": 0,
    }


def config_of(state: Mapping[str, Tensor], where: str) -> Config:
    """The configuration for the weights of a single file, read off their shapes; heads are 64 wide.

    Raises FileError for weights of something else.
    """
    names = ("token_emb.weight", "pos_emb.emb.weight", *(_theirs(0, part) for part in _SHAPES))
    lacking = [name for name in names if PREFIX + name not in state]
    if lacking:
        raise FileError(f"{where} holds no BERT of latent diffusion: it lacks {PREFIX}{lacking[0]}")
    embedded, positions, query, first = (state[PREFIX + name].shape for name in names)
    start, end = f"{PREFIX}attn_layers.", "1.to_q.weight"
    depth = sum(name.startswith(start) and name.endswith(end) for name in state)
    return {
        "kind": "ldm_bert",
        "vocabulary": embedded[0],
        "length": positions[0],
        "width": embedded[1],
        "depth": depth,
        "heads": query[0] // 64,
        "head_width": 64,
        "hidden": first[0],
    }


_SHAPES = ((0, "1.to_q"), (1, "1.net.0.0"))


def _theirs(block: int, part: tuple[int, str], kind: str = ".weight") -> str:
    """A layer of a block in latent diffusion, where each block is two numbered parts."""
    return f"attn_layers.layers.{2 * block + part[0]}.{part[1]}{kind}"


def table(encoder: LDMBert, program: Program = "diffusers") -> list[Entry]:
    """The names of an encoder's parameters here and there; its vocabulary is no part of them."""
    known = [name for name in encoder.state_dict() if name != "vocabulary"]
    ours = program == "diffusers"
    tokens, places = ("embed_tokens", "embed_positions") if ours else ("token_emb", "pos_emb.emb")
    start = "model." if ours else PREFIX
    last = "layer_norm" if ours else "norm"
    pairs = [("embedding", f"{start}{tokens}"), ("norm", f"{start}{last}")]
    pairs.append(("logits", _logits(program)))
    for i in range(len(encoder.tower.blocks)):
        for part, theirs, place in _BLOCK:
            there = f"layers.{i}.{theirs}" if ours else _theirs(i, place, "")
            pairs.append((f"tower.blocks.{i}.{part}", start + there))
    entries = [*layers(pairs, known), Entry(("position",), (f"{start}{places}.weight",))]
    return checked(entries, known, "latent diffusion")


def to_ours(
    state: Mapping[str, Tensor], encoder: LDMBert, program: Program = "diffusers"
) -> dict[str, Tensor]:
    """Their state dict under our names. Raises FileError that names what is missing or surplus."""
    start = f"{_logits(program)}."
    logits = [name for name in state if name.startswith(start)] if encoder.logits is None else []
    return read(table(encoder, program), state, logits)


def to_theirs(
    state: Mapping[str, Tensor], encoder: LDMBert, program: Program = "diffusers"
) -> dict[str, Tensor]:
    """Our state dict under their names: the inverse of `to_ours`, bit for bit."""
    own = {name: value for name, value in state.items() if name != "vocabulary"}
    return write(table(encoder, program), own)


def _logits(program: Program) -> str:
    """The name of the map to logits."""
    return "to_logits" if program == "diffusers" else f"{PREFIX}to_logits"


def fill(encoder: LDMBert, state: Mapping[str, Tensor]) -> None:
    """Put the weights of `to_ours` into an encoder that was made without memory."""
    encoder.load_state_dict({**state, "vocabulary": encoder.vocabulary}, assign=True)
    encoder.requires_grad_(False)


def open_bert(folder: str | Path, tokenizer: str | Path | None = None) -> LDMBert:
    """The encoder in a folder, `bert` of a pipeline of diffusers.

    tokenizer: its folder; by default `tokenizer` beside it.
    Raises FileError naming the file for what is missing, damaged, pickled or of another network.
    """
    folder = Path(folder)
    path = folder / "config.json"
    raw = read_json(path, finite=False)
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or kind != _KIND:
        raise FileError(f"{path}: model_type {kind!r} is no {_KIND}")
    arguments = config(raw, str(path))
    del arguments["kind"]
    state = weights(folder, "model")
    with without_memory():
        made = LDMBert(**arguments, logits=kept_as_stored() and "to_logits.weight" in state)
    beside = folder.parent / "tokenizer" if tokenizer is None else Path(tokenizer)
    ours = to_ours(state, made)
    fill(made.set_vocabulary(read_word_pieces(beside)), ours)
    return made
