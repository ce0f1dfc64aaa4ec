"""CLIP's weights as our towers, both ways: the names of transformers, and of OpenAI and OpenCLIP.

transformers writes a text model's names with `text_model.` before them or, from 5.6 on, without;
both are read, and the former are written, which every version reads.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal, cast

from torch import Tensor

from fromnoise.core.config import validated
from fromnoise.core.errors import FileError
from fromnoise.encoders.clip_towers import (
    CLIP,
    TextSettings,
    TextTower,
    VisionSettings,
    VisionTower,
)
from fromnoise.interop.layout import SAME, TURNED, Entry, Form, Fused, checked, layers, read, write

Program = Literal["transformers", "openai"]
Towers = TextTower | VisionTower | CLIP

PLACES = (
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    "conditioner.embedders.0.model.",
)
"""Where the text tower stands in single files of Stable Diffusion 1, 2, XL, and XL's refiner."""

# Constants that are saved beside weights.
_CONSTANTS = ("position_ids", "attn_mask", "input_resolution", "context_length", "vocab_size")
_TEXT_FLAT = ("embeddings.token_embedding.", "embeddings.position_embedding.", "final_layer_norm.")
_VISION_FLAT = ("embeddings.class_embedding", "embeddings.patch_embedding.", "pre_layrnorm.")


def table(module: Towers, program: Program) -> list[Entry]:
    """The names of a tower's parameters, or of both, here and in a program's files.

    Raises FileError for a parameter there is no name for.
    """
    known = list(module.state_dict())
    if isinstance(module, CLIP):
        entries = _tower(module.text, "text.", program) + _tower(module.vision, "vision.", program)
        entries += [Entry(("scale",), ("logit_scale",))]
    else:
        entries = _tower(module, "", program)
    return checked(entries, known, program)


def program_of(state: Mapping[str, Any]) -> Program:
    """Whose names these are. Raises FileError for names of neither."""
    if any(".resblocks." in name for name in state):
        return "openai"
    if any(".layers." in name and ".self_attn." in name for name in state):
        return "transformers"
    raise FileError("these are no weights of a CLIP tower: no transformer is named in them")


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What stands behind a prefix in a larger file, such as one of `PLACES`."""
    found = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if not found:
        raise FileError(f"no weights have names that begin with {prefix!r}")
    return found


def to_ours(state: Mapping[str, Tensor], module: Towers) -> dict[str, Tensor]:
    """A state dict of transformers, OpenAI or OpenCLIP under our names.

    module: of the right sizes; the meta device will do. A tower takes its part of a file with both,
    and passes over a projection it does not have. Raises FileError that names the parameters
    missing or not placed, and tensors of another shape.
    """
    program = program_of(state)
    named = _whole_names(state, module) if program == "transformers" else dict(state)
    entries = table(module, program)
    ours = read(entries, _own(named, module, program, entries))
    wanted = module.state_dict()
    for name, value in ours.items():
        if value.shape != wanted[name].shape:
            raise FileError(
                f"{name!r} has shape {tuple(value.shape)} in these weights; this tower needs "
                f"{tuple(wanted[name].shape)}"
            )
    return ours


def to_transformers(state: Mapping[str, Tensor], module: Towers) -> dict[str, Tensor]:
    """Our state dict under the names of transformers, `text_model.` and all: the inverse."""
    return write(table(module, "transformers"), state)


def to_openai(state: Mapping[str, Tensor], module: Towers) -> dict[str, Tensor]:
    """Our state dict under the names of OpenAI's and OpenCLIP's code: the inverse."""
    return write(table(module, "openai"), state)


def text_settings(
    raw: Mapping[str, Any], projected: bool, where: str = "config.json"
) -> TextSettings:
    """The sizes in the config.json of a `CLIPTextModel` (or of a `CLIPModel`, its part).

    projected: whether the weights hold a projection; a config says a width in any case. where:
    names the file in errors. Raises UsageError for sizes that cannot be.
    """
    own = _config(raw, "text_config")
    end = own.get("eos_token_id", 49_407)
    sizes = {
        "vocabulary": own.get("vocab_size", 49_408),
        "length": own.get("max_position_embeddings", 77),
        "width": own.get("hidden_size", 512),
        "depth": own.get("num_hidden_layers", 12),
        "heads": own.get("num_attention_heads", 8),
        "hidden": own.get("intermediate_size", 2048),
        "activation": _activation(own),
        "projection": _projection(raw, own) if projected else None,
        # transformers: 2 was written by mistake for long, and means the largest id.
        "end": None if end == 2 else end,
        "eps": own.get("layer_norm_eps", 1e-5),
    }
    return validated(TextSettings, sizes, where)


def vision_settings(
    raw: Mapping[str, Any], projected: bool, where: str = "config.json"
) -> VisionSettings:
    """The sizes in the config.json of a `CLIPVisionModel` (or of a `CLIPModel`, its part)."""
    own = _config(raw, "vision_config")
    sizes = {
        "size": own.get("image_size", 224),
        "patch": own.get("patch_size", 32),
        "width": own.get("hidden_size", 768),
        "depth": own.get("num_hidden_layers", 12),
        "heads": own.get("num_attention_heads", 12),
        "hidden": own.get("intermediate_size", 3072),
        "activation": _activation(own),
        "projection": _projection(raw, own) if projected else None,
        "eps": own.get("layer_norm_eps", 1e-5),
    }
    return validated(VisionSettings, sizes, where)


def text_config(settings: TextSettings) -> dict[str, Any]:
    """The config.json of a `CLIPTextModel`, `…WithProjection` where the tower projects."""
    projects = settings.projection is not None
    return {
        "architectures": ["CLIPTextModelWithProjection" if projects else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": settings.vocabulary,
        "hidden_size": settings.width,
        "intermediate_size": settings.hidden,
        "projection_dim": settings.projection or settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "max_position_embeddings": settings.length,
        "hidden_act": settings.activation,
        "layer_norm_eps": settings.eps,
        # transformers: 2 stands for the place of the largest id.
        "eos_token_id": 2 if settings.end is None else settings.end,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }


def vision_config(settings: VisionSettings) -> dict[str, Any]:
    """The config.json of a `CLIPVisionModelWithProjection`."""
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "hidden_size": settings.width,
        "intermediate_size": settings.hidden,
        "projection_dim": settings.projection or settings.width,
        "num_hidden_layers": settings.depth,
        "num_attention_heads": settings.heads,
        "image_size": settings.size,
        "patch_size": settings.patch,
        "hidden_act": settings.activation,
        "layer_norm_eps": settings.eps,
    }


def _tower(module: TextTower | VisionTower, ours: str, program: Program) -> list[Entry]:
    text = isinstance(module, TextTower)
    known = {f"{ours}{name}" for name in module.state_dict()}
    foreign = program == "transformers"
    entries = _transformers(ours, text, known) if foreign else _openai(ours, text)
    for i in range(len(module.tower.blocks)):
        place = f"{ours}tower.blocks.{i}"
        if foreign:
            there = f"{'text' if text else 'vision'}_model.encoder.layers.{i}"
            entries += layers([(f"{place}.{a}", f"{there}.{b}") for a, b in _TRANSFORMERS], known)
        else:
            there = f"{'' if text else 'visual.'}transformer.resblocks.{i}"
            entries += layers([(f"{place}.{a}", f"{there}.{b}") for a, b in _OPENAI], known)
            entries += _fused(place, there)
    if f"{ours}projection.weight" in known:
        entries += [_projected(ours, text, program)]
    return entries


_TRANSFORMERS = (
    ("norm1", "layer_norm1"),
    ("query", "self_attn.q_proj"),
    ("key", "self_attn.k_proj"),
    ("value", "self_attn.v_proj"),
    ("out", "self_attn.out_proj"),
    ("norm2", "layer_norm2"),
    ("first", "mlp.fc1"),
    ("second", "mlp.fc2"),
)
_OPENAI = (
    ("norm1", "ln_1"),
    ("out", "attn.out_proj"),
    ("norm2", "ln_2"),
    ("first", "mlp.c_fc"),
    ("second", "mlp.c_proj"),
)


def _transformers(ours: str, text: bool, known: Collection[str]) -> list[Entry]:
    there = f"{'text' if text else 'vision'}_model"
    entries = [
        Entry((f"{ours}position",), (f"{there}.embeddings.position_embedding.weight",)),
    ]
    if text:
        pairs = [("embedding", "embeddings.token_embedding"), ("norm", "final_layer_norm")]
    else:
        entries += [Entry((f"{ours}first",), (f"{there}.embeddings.class_embedding",))]
        pairs = [
            ("enter", "embeddings.patch_embedding"),
            ("before", "pre_layrnorm"),
            ("norm", "post_layernorm"),
        ]
    return entries + layers([(f"{ours}{a}", f"{there}.{b}") for a, b in pairs], known)


def _openai(ours: str, text: bool) -> list[Entry]:
    there = "" if text else "visual."
    one = [("position", "positional_embedding")]
    if text:
        one += [("embedding.weight", "token_embedding.weight")]
        norms = [("norm", "ln_final")]
    else:
        one += [("enter.weight", "conv1.weight"), ("first", "class_embedding")]
        norms = [("before", "ln_pre"), ("norm", "ln_post")]
    one += [(f"{a}.{kind}", f"{b}.{kind}") for a, b in norms for kind in ("weight", "bias")]
    return [Entry((f"{ours}{a}",), (f"{there}{b}",)) for a, b in one]


def _fused(ours: str, theirs: str) -> list[Entry]:
    return [
        Entry(
            tuple(f"{ours}.{name}.{kind}" for name in ("query", "key", "value")),
            (f"{theirs}.attn.in_proj_{kind}",),
            Fused(1, "new"),
        )
        for kind in ("weight", "bias")
    ]


def _projected(ours: str, text: bool, program: Program) -> Entry:
    form: Form = TURNED
    if program == "transformers":
        theirs, form = ("text" if text else "visual") + "_projection.weight", SAME
    else:
        theirs = "text_projection" if text else "visual.proj"
    return Entry((f"{ours}projection.weight",), (theirs,), form)


def _whole_names(state: Mapping[str, Tensor], module: Towers) -> dict[str, Tensor]:
    """Names with `text_model.` or `vision_model.` before them where they lack it."""
    flat = {TextTower: ("text_model.", _TEXT_FLAT), VisionTower: ("vision_model.", _VISION_FLAT)}
    if isinstance(module, CLIP):
        return dict(state)
    prefix, starts = flat[type(module)]
    if not any(name.startswith(starts) for name in state):
        return dict(state)
    bare = ("embeddings.", "encoder.", "final_layer_norm.", "pre_layrnorm.", "post_layernorm.")
    return {f"{prefix}{n}" if n.startswith(bare) else n: v for n, v in state.items()}


def _own(
    state: Mapping[str, Tensor], module: Towers, program: Program, entries: list[Entry]
) -> dict[str, Tensor]:
    """What of a file is this module's: no constants, not the other tower, no unused projection."""
    named = {name for entry in entries for name in entry.theirs}
    other: tuple[str, ...] = ()
    if isinstance(module, TextTower):
        other = ("vision_model.", "visual.", "visual_projection.", "logit_", "text_projection")
    elif isinstance(module, VisionTower):
        other = ("text_model.", "text_projection", "logit_", "visual_projection.", "visual.proj")
        if program == "openai":
            other += ("transformer.", "token_embedding.", "positional_embedding", "ln_final.")
    return {
        name: value
        for name, value in state.items()
        if name in named or not (name.endswith(_CONSTANTS) or name.startswith(other))
    }


def _config(raw: Mapping[str, Any], own: str) -> Mapping[str, Any]:
    inner = raw.get(own)
    return cast(Mapping[str, Any], inner) if isinstance(inner, Mapping) else raw


def _projection(raw: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
    # Of a whole model the outer one counts; of one tower its own.
    return raw.get("projection_dim", own.get("projection_dim", 512))


def _activation(own: Mapping[str, Any]) -> Any:
    name = own.get("hidden_act", "quick_gelu")
    if name not in ("gelu", "quick_gelu"):
        raise FileError(f"a tower with hidden_act {name!r} is not read; use gelu or quick_gelu")
    return name
