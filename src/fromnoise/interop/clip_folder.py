"""Opening CLIP as transformers saves it: a folder with config.json, weights and a tokenizer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from fromnoise.core.errors import FileError
from fromnoise.core.files import read_json
from fromnoise.core.meta import without_memory
from fromnoise.encoders.clip import CLIPText
from fromnoise.encoders.clip_towers import CLIP
from fromnoise.encoders.clip_vision import CLIPImage, Gives
from fromnoise.encoders.tokenizers import Tokenizer, Vocabulary, read_vocabulary
from fromnoise.interop import clip_keys
from fromnoise.interop.diffusers_folder import weights

_WEIGHTS = "model"
_KINDS = ("clip", "clip_text_model", "clip_vision_model")


def open_text(
    folder: str | Path,
    tokenizer: str | Path | None = None,
    *,
    skip: int = 0,
    normed: bool = True,
    pooled: bool = False,
    width: int | None = None,
) -> CLIPText:
    """The text encoder in a folder: `text_encoder` of a pipeline, or that of a whole CLIP.

    tokenizer: its folder; by default the same one, or `tokenizer` beside it (`tokenizer_2` beside
    `text_encoder_2`). The rest as for `fromnoise.encoders.CLIPText`.
    Raises FileError naming the file for what is missing, damaged, pickled or of another network,
    UsageError for sizes that cannot be.
    """
    folder = Path(folder)
    raw, state = _config(folder), weights(folder, _WEIGHTS)
    projected = pooled and _has(state, "text_projection")
    settings = clip_keys.text_settings(raw, projected, str(folder / "config.json"))
    with without_memory():
        made = CLIPText(settings, skip=skip, normed=normed, pooled=pooled, width=width)
    made.tower.load_state_dict(clip_keys.to_ours(state, made.tower), assign=True)
    if width is not None:
        made.fit = nn.Linear(settings.width, width)
    return made.set_vocabulary(_vocabulary(folder, tokenizer))


def open_image(
    folder: str | Path, *, gives: Gives = "vector", unit: bool = False, width: int | None = None
) -> CLIPImage:
    """The picture encoder in a folder: `image_encoder` of a pipeline, or that of a whole CLIP.

    The rest as for `fromnoise.encoders.CLIPImage`. Raises as `open_text`.
    """
    folder = Path(folder)
    raw, state = _config(folder), weights(folder, _WEIGHTS)
    projected = gives != "patches" and _has(state, "visual_projection")
    settings = clip_keys.vision_settings(raw, projected, str(folder / "config.json"))
    with without_memory():
        made = CLIPImage(settings, gives=gives, unit=unit, width=width)
    made.tower.load_state_dict(clip_keys.to_ours(state, made.tower), assign=True)
    if width is not None:
        made.fit = nn.Linear(settings.projection or settings.width, width)
    return made


def open_clip(folder: str | Path, tokenizer: str | Path | None = None) -> tuple[CLIP, Tokenizer]:
    """Both towers in a folder, and what reads texts for them. Raises as `open_text`."""
    folder = Path(folder)
    raw, state, where = _config(folder), weights(folder, _WEIGHTS), str(folder / "config.json")
    with without_memory():
        made = CLIP(
            clip_keys.text_settings(raw, True, where), clip_keys.vision_settings(raw, True, where)
        )
    made.load_state_dict(clip_keys.to_ours(state, made), assign=True)
    return made.requires_grad_(False), Tokenizer(_vocabulary(folder, tokenizer))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    raw = read_json(path, finite=False)
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind not in _KINDS:
        raise FileError(f"{path}: model_type {kind!r} is no CLIP; it would be {', '.join(_KINDS)}")
    return dict(raw)


def _vocabulary(folder: Path, tokenizer: str | Path | None) -> Vocabulary:
    if tokenizer is not None:
        return read_vocabulary(tokenizer)
    beside = folder.parent / folder.name.replace("text_encoder", "tokenizer")
    own = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    return read_vocabulary(folder if own or folder.name == beside.name else beside)


def _has(names: Iterable[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)
