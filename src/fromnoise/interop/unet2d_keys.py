"""The parameter names of diffusers' `UNet2DModel` and of our `UNet`, both ways.

Only names change: tensors pass through untouched, but for the table of labels, which is
transposed. So the two functions are exact inverses.
"""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from fromnoise.core.errors import FileError

_LABELS = ("embedding.vector.label.weight", "class_embedding.weight")
# Pairs (ours, theirs); # stands for a number and * for the rest, each in the same order in both.
_NAMES: tuple[tuple[str, str], ...] = (
    ("enter.*", "conv_in.*"),
    ("norm.*", "conv_norm_out.*"),
    ("leave.*", "conv_out.*"),
    ("embedding.time.first.*", "time_embedding.linear_1.*"),
    ("embedding.time.second.*", "time_embedding.linear_2.*"),
    _LABELS,
    ("down.#.resample.conv.*", "down_blocks.#.downsamplers.0.conv.*"),
    ("up.#.resample.conv.*", "up_blocks.#.upsamplers.0.conv.*"),
    ("down.#.resample.{}.*", "down_blocks.#.downsamplers.0.{}.*"),
    ("up.#.resample.{}.*", "up_blocks.#.upsamplers.0.{}.*"),
    ("down.#.blocks.#.{}.*", "down_blocks.#.resnets.#.{}.*"),
    ("up.#.blocks.#.{}.*", "up_blocks.#.resnets.#.{}.*"),
    ("middle.blocks.#.{}.*", "mid_block.resnets.#.{}.*"),
    ("down.#.attentions.#.own.{}.*", "down_blocks.#.attentions.#.{}.*"),
    ("up.#.attentions.#.own.{}.*", "up_blocks.#.attentions.#.{}.*"),
    ("middle.attentions.#.own.{}.*", "mid_block.attentions.#.{}.*"),
)
BLOCK = (
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("time", "time_emb_proj"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("shortcut", "conv_shortcut"),
)
ATTENTION = (
    ("norm", "group_norm"),
    ("query", "to_q"),
    ("key", "to_k"),
    ("value", "to_v"),
    ("out", "to_out.0"),
)
# Files written before diffusers 0.15 name the attention's parts differently; read, never written.
_OLD = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))


def _table() -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for ours, theirs in _NAMES:
        parts = ATTENTION if "attentions" in ours else BLOCK
        pairs = parts if "{}" in ours else (("", ""),)
        rows += [(ours.replace("{}", a), theirs.replace("{}", b)) for a, b in pairs]
    return rows


def _compile(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    rules = []
    for pattern, target in pairs:
        expression = re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", "(.+)")
        rules.append((re.compile(expression), target.replace("#", "{}").replace("*", "{}")))
    return rules


_TO_OURS = _compile((theirs, ours) for ours, theirs in _table())
_TO_DIFFUSERS = _compile(_table())


def _rename(name: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, target in rules:
        match = pattern.fullmatch(name)
        if match:
            return target.format(*match.groups())
    raise FileError(f"{name!r} is not a parameter of a U-Net of this kind")


def modern(name: str) -> str:
    """A parameter's name as diffusers writes it today."""
    for old, new in _OLD:
        name = re.sub(rf"(attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
    return name


def _turned(name: str, value: Tensor) -> Tensor:
    return value.T.contiguous() if name in _LABELS else value


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A `UNet2DModel` state dict under our names. Raises FileError for a name it does not know."""
    return {_rename(modern(name), _TO_OURS): _turned(name, value) for name, value in state.items()}


def to_diffusers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `UNet` state dict under the names of `UNet2DModel`.

    The raw vector "label" is its class embedding. Raises FileError for a parameter it has no name
    for (other vectors, cross-attention).
    """
    return {_rename(name, _TO_DIFFUSERS): _turned(name, value) for name, value in state.items()}
