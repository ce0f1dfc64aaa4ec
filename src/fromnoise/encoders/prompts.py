"""Prompts as people write them: weights, chunks, and prompts that change while sampling.

The syntax is that of AUTOMATIC1111's web UI, so that prompts can be carried over. Nothing here
knows a tokenizer or a network: both are handed in.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.texts import NUMBER

UP = 1.1
"""What one pair of round brackets multiplies a weight by; square brackets divide by it."""

LONGEST = 10_000
"""Characters of a prompt at most."""

MOST_CHUNKS = 32
"""Chunks of a prompt at most: their tokens are all attended to in every layer and step."""


class Part(NamedTuple):
    """A piece of a prompt and the weight it counts with."""

    text: str
    weight: float = 1.0


BREAK = Part("")
"""Stands where the prompt says BREAK: what follows starts a new chunk. No other part is empty."""


class Chunk(NamedTuple):
    """Token ids that are encoded together, and the weight of each."""

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


_PIECE = re.compile(
    r"""
    \\(?P<escaped>[()\[\]\\:|]?)        # a backslash goes; a sign of the syntax after it is text
    | (?P<open>[(\[])
    | :(?P<weight>[^\\()\[\]:]*)\)
    | (?P<close>[)\]])
    | (?P<text>[^\\()\[\]:]+ | :)
    """,
    re.X,
)
_OPENING = {")": "(", "]": "["}
_BY = {"(": UP, "[": 1 / UP}
_BREAK = re.compile(r"\bBREAK\b")


def parse(prompt: str) -> tuple[Part, ...]:
    """The parts of a prompt with their weights; neighbours of one weight are one part.

    `(a)` counts 1.1 times, `((a))` 1.21, `(a:1.3)` 1.3 times, `[a]` 1/1.1; they nest and multiply.
    `\\(`, `\\)`, `\\[`, `\\]`, `\\:`, `\\|` and `\\\\` are those signs themselves. The word BREAK
    becomes `BREAK`. A bracket that is never closed reaches to the end; one that was never opened is
    text. After the last colon of a round bracket one word is its weight; several words are text.

    Raises UsageError for a weight that is no finite number and a prompt longer than `LONGEST`.
    Reference: AUTOMATIC1111, stable-diffusion-webui, `parse_prompt_attention` (its examples).
    """
    checked(prompt)
    texts: list[str | None] = []  # None where a new chunk starts
    weights: list[float] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for piece in _PIECE.finditer(prompt):
        kind, value = piece.lastgroup, piece.group(piece.lastgroup or 0)
        added: list[str | None] = []
        scale: tuple[str, float] | None = None
        if kind == "open":
            opened[value].append(len(texts))
        elif kind == "escaped":
            added = [value]
        elif kind == "weight" and opened["("]:
            if len(value.split()) < 2:
                scale = ("(", _weight(value.strip(), prompt))
            else:
                added, scale = _broken(f":{value}"), ("(", UP)
        elif kind == "close" and opened[_OPENING[value]]:
            scale = (_OPENING[value], _BY[_OPENING[value]])
        else:
            added = _broken(piece.group(0))
        texts += added
        weights += [1.0] * len(added)
        if scale is not None:
            _scale(weights, opened[scale[0]].pop(), scale[1])
    for bracket, starts in opened.items():
        for start in starts:
            _scale(weights, start, _BY[bracket])
    return _joined(texts, weights)


def checked(prompt: str) -> str:
    """The prompt. Raises UsageError for what is no text, or longer than `LONGEST`."""
    if not isinstance(prompt, str):
        raise UsageError(f"a prompt is text, not {prompt!r}")
    if len(prompt) > LONGEST:
        raise UsageError(f"a prompt of {len(prompt):,} characters; use at most {LONGEST:,}")
    return prompt


def escaped(text: str) -> str:
    """The text as a prompt that means just this: its signs of the syntax behind backslashes.

    The word BREAK is not protected; it has no escape.
    """
    return re.sub(r"([()\[\]\\:|])", r"\\\1", text)


def _weight(written: str, prompt: str) -> float:
    if NUMBER.fullmatch(written) is None or not math.isfinite(float(written)):
        shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}…"
        raise UsageError(
            f"weight {written!r} in {shown!r} is not a finite number; write (text:1.3), and \\: "
            "for a colon that is meant"
        )
    return float(written)


def _scale(weights: list[float], start: int, by: float) -> None:
    """Multiply the weights from `start` on."""
    for i in range(start, len(weights)):
        weights[i] *= by


def _broken(text: str) -> list[str | None]:
    """A plain text, cut where it says BREAK."""
    pieces: list[str | None] = []
    for i, piece in enumerate(_BREAK.split(text)):
        pieces += [None] if i else []
        pieces.append(piece.lstrip() if i else piece)
    last = len(pieces) - 1
    return [p.rstrip() if p is not None and i < last else p for i, p in enumerate(pieces)]


def _joined(texts: Sequence[str | None], weights: Sequence[float]) -> tuple[Part, ...]:
    # Embeddings are float32: beyond this their squares are not finite.
    for weight in weights:
        if not abs(weight) <= 1e15:
            raise UsageError(f"brackets whose weights multiply to {weight:g}")
    joined: list[Part] = []
    for text, weight in zip(texts, weights, strict=True):
        if text is None:
            joined.append(BREAK)
        elif text and joined and joined[-1] != BREAK and joined[-1].weight == weight:
            joined[-1] = Part(joined[-1].text + text, weight)
        elif text:
            joined.append(Part(text, weight))
    return tuple(joined)


def chunks(
    prompt: str,
    tokenize: Callable[[str], Sequence[int]],
    length: int = 75,
    comma: int | None = None,
    backtrack: int = 20,
) -> tuple[Chunk, ...]:
    """A prompt's tokens and weights in chunks of at most `length`; at least one, maybe empty.

    tokenize: text → ids, without the ids that start and end a sequence. comma: the id of a comma;
    where it is given and one is among the last `backtrack` tokens of a full chunk, what follows it
    moves to the next chunk, so that a phrase stays whole.

    Raises UsageError as `parse`, and for more than `MOST_CHUNKS` chunks.
    Reference: AUTOMATIC1111, stable-diffusion-webui, `tokenize_line`.
    """
    if length < 1:
        raise UsageError(f"chunks of {length} tokens; use 1 or more")
    done: list[Chunk] = []
    ids: list[int] = []
    weights: list[float] = []

    def finish(end: int) -> None:
        if len(done) == MOST_CHUNKS:
            raise UsageError(f"a prompt of more than {MOST_CHUNKS} chunks of {length} tokens")
        done.append(Chunk(tuple(ids[:end]), tuple(weights[:end])))
        del ids[:end], weights[:end]

    for part in parse(prompt):
        if part == BREAK:
            finish(len(ids))
            continue
        for token in tokenize(part.text):
            if len(ids) == length:
                last = _after_comma(ids, comma, backtrack)
                finish(length if last is None or token == comma else last)
            ids.append(token)
            weights.append(part.weight)
    if ids or not done:
        finish(len(ids))
    return tuple(done)


def _after_comma(ids: Sequence[int], comma: int | None, backtrack: int) -> int | None:
    """The place after the last comma, if it is near enough to the end."""
    near = [i for i in range(max(0, len(ids) - backtrack), len(ids)) if ids[i] == comma]
    return near[-1] + 1 if near else None


def framed(
    parts: Sequence[Chunk], length: int, start: int | None, end: int | None, pad: int
) -> tuple[Integer[Tensor, "chunks length"], Float[Tensor, "chunks length"]]:
    """Ids and weights (chunks, length): each chunk between start and end, then padding.

    start, end: None for a tokenizer that has none. What frames and fills counts with weight 1.
    Raises ShapeError for a chunk that does not fit.
    """
    rows = [
        [*([] if start is None else [start]), *part.ids, *([] if end is None else [end])]
        for part in parts
    ]
    longest = max(map(len, rows), default=0)
    if longest > length:
        raise ShapeError(f"a chunk of {longest} tokens with its ends, where {length} fit")
    ids = torch.tensor([[*row, *[pad] * (length - len(row))] for row in rows])
    weights = torch.ones(len(rows), length)
    first = 0 if start is None else 1
    for row, part in zip(weights, parts, strict=True):
        row[first : first + len(part.ids)] = torch.tensor(part.weights)
    return ids, weights


def weighted(
    values: Float[Tensor, "chunks length width"], weights: Float[Tensor, "chunks length"]
) -> Float[Tensor, "chunks length width"]:
    """Output embeddings times their tokens' weights, each chunk's mean brought back.

    z' = w·z · mean(z)/mean(w·z), the means over tokens and width of a chunk. Weights that are all 1
    leave the values as they are, bit for bit; a chunk that would lose its mean keeps its scale.

    Reference: AUTOMATIC1111, stable-diffusion-webui, emphasis "Original". There the mean is over
    the batch; here a sample does not see its neighbours.
    """
    if bool((weights == 1).all()):
        return values
    changed = values * weights.to(values)[..., None]
    before, after = (z.mean(dim=(1, 2), keepdim=True) for z in (values, changed))
    ratio = torch.where(after == 0, torch.ones_like(after), before / after)
    return changed * ratio


def counts(parts: Sequence[Chunk]) -> tuple[int, ...]:
    """How many tokens of the prompt each chunk holds, without start, end and padding."""
    return tuple(len(part.ids) for part in parts)
