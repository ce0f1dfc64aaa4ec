"""What text encoders share: prompts as rows of tokens, encoded once each, put together again."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.condition import Condition, Tokens


class Rows(NamedTuple):
    """Chunks as an encoder takes them: ids and the weights they count with, (rows, length)."""

    ids: Tensor
    weights: Tensor


class Told(NamedTuple):
    """What an encoder makes of rows: values (rows, length, width), mask (rows, length) where some
    do not count, pooled (rows, width) where it has one."""

    values: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None


def listed(raw: Any, batch: int) -> list[str]:
    """One prompt for each sample.

    Raises UsageError for what is no text, ShapeError for another number of prompts than samples.
    """
    if not isinstance(raw, str | Sequence):
        raise UsageError(f"a prompt is text, not {raw!r}")
    prompts = [raw] * batch if isinstance(raw, str) else list(raw)
    if len(prompts) != batch:
        raise ShapeError(f"{len(prompts)} prompts given for {batch} samples; give one each")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise UsageError(f"a prompt is text, not {prompt!r}")
    return prompts


def condition(
    name: str, prompts: Sequence[str], rows: Callable[[str], Rows], run: Callable[[Rows], Told]
) -> Condition:
    """The condition of prompts, one a sample: a prompt's chunks one after the other as tokens.

    Alike prompts are encoded once. Where prompts have different numbers of chunks the shorter ones
    are filled up and masked, so that a sample does not see its neighbours' lengths. The vector is
    that of the first chunk.
    """
    distinct = list(dict.fromkeys(prompts))
    framed = [rows(prompt) for prompt in distinct]
    counts = [len(row.ids) for row in framed]
    told = run(Rows(torch.cat([r.ids for r in framed]), torch.cat([r.weights for r in framed])))
    place = torch.tensor([distinct.index(prompt) for prompt in prompts], device=told.values.device)
    values = _lines(told.values, counts)[place]
    mask = None
    if told.mask is not None or len(set(counts)) > 1:
        ones = torch.ones(told.values.shape[:2], dtype=torch.bool, device=told.values.device)
        mask = _lines(ones if told.mask is None else told.mask, counts)[place]
    vector = {}
    if told.pooled is not None:
        firsts = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
        vector[name] = told.pooled[firsts.to(place.device)][place]
    return Condition(vector=vector, tokens=Tokens(values, mask))


def _lines(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Each prompt's rows as one line, the shorter ones filled with zeros."""
    lines = [part.flatten(0, 1) for part in torch.split(rows, list(counts))]
    return pad_sequence(lines, batch_first=True)
