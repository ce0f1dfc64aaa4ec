"""Prompts that change while sampling: `[a:b:0.4]`, `[a|b]`, as AUTOMATIC1111 writes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from fromnoise.core.errors import UsageError
from fromnoise.core.texts import NUMBER
from fromnoise.encoders.prompts import checked

DEEPEST = 50
"""Square brackets within each other at most."""


@dataclass(frozen=True)
class _Change:
    """`[before:after:when]`; `when` as written."""

    before: "_Nodes"
    after: "_Nodes"
    when: str

    def last(self, steps: int) -> int:
        """The last step that still sees `before`: a number with a point is a share of the steps."""
        share = float(self.when) * (steps if "." in self.when else 1)
        # Bounded first: int() of an infinite number raises.
        return int(max(0.0, min(share, float(steps))))


@dataclass(frozen=True)
class _Turns:
    """`[a|b|c]`: one after the other, a step each."""

    options: "tuple[_Nodes, ...]"


_Node = str | _Change | _Turns
_Nodes = tuple[_Node, ...]


def schedule(prompt: str, steps: int) -> list[tuple[int, str]]:
    """The prompts of a run of `steps` steps: (until and with this step, counted from 1; prompt).

    `[a:b:0.4]` is a for the first 0.4 of the steps and b from then on; with a whole number,
    `[a:b:8]`, for 8 steps. `[b:0.4]` adds b, `[a::0.4]` takes a away. `[a|b]` takes turns, a step
    each. They nest. Weights stay as written, for `parse`; brackets that are none of these are text.

    Raises UsageError for steps below 1 and brackets deeper than `DEEPEST`.
    Reference: AUTOMATIC1111, stable-diffusion-webui, `get_learned_conditioning_prompt_schedules`.
    """
    if steps < 1:
        raise UsageError(f"a prompt for {steps} steps; use 1 or more")
    nodes = _nodes(checked(prompt), 0, len(prompt), _pairs(prompt), 0)
    ends = sorted({steps, *_ends(nodes, steps)})
    return [(end, "".join(_at(nodes, end, steps))) for end in ends]


def _pairs(prompt: str) -> dict[int, int]:
    """Where each bracket that is closed is closed. Brackets that cross close nothing."""
    closed: dict[int, int] = {}
    opened: list[int] = []
    i = 0
    while i < len(prompt):
        sign = prompt[i]
        if sign == "\\":
            i += 1
        elif sign in "([":
            opened.append(i)
        elif sign in ")]":
            if opened and prompt[opened[-1]] == {")": "(", "]": "["}[sign]:
                closed[opened.pop()] = i
            else:
                opened.clear()
        i += 1
    return closed


def _nodes(prompt: str, start: int, end: int, closed: dict[int, int], depth: int) -> _Nodes:
    """What stands between two places: text and the brackets that change with the step."""
    if depth > DEEPEST:
        raise UsageError(f"a prompt with brackets more than {DEEPEST} deep")
    nodes: list[_Node] = []
    kept = i = start
    while i < end:
        if prompt[i] == "\\":
            i += 2
            continue
        node = None
        if prompt[i] == "[" and i in closed:
            node = _bracket(prompt, i, closed, depth)
        if node is not None:
            nodes += [prompt[kept:i], node]
            kept = closed[i] + 1
            i = kept
        else:
            i += 1
    return (*nodes, prompt[kept:end])


def _bracket(prompt: str, start: int, closed: dict[int, int], depth: int) -> _Node | None:
    """The square bracket that opens at `start`, or None where it is one of weights or text."""
    cuts = list(_signs(prompt, start + 1, closed[start], closed))
    signs = "".join(prompt[cut] for cut in cuts)
    edges = [start, *cuts, closed[start]]
    spans = [(a + 1, b) for a, b in pairwise(edges)]
    inside = (_nodes(prompt, a, b, closed, depth + 1) for a, b in spans)
    if signs and set(signs) == {"|"}:
        return _Turns(tuple(inside))
    when = prompt[slice(*spans[-1])].strip()
    if signs in (":", "::") and NUMBER.fullmatch(when):
        before: _Nodes = next(inside) if signs == "::" else ()
        return _Change(before, next(inside), when)
    return None


def _signs(prompt: str, start: int, end: int, closed: dict[int, int]) -> Iterator[int]:
    """Places of `:` and `|` between two places, outside inner brackets."""
    i = start
    while i < end:
        if prompt[i] == "\\":
            i += 1
        elif i in closed:
            i = closed[i]
        elif prompt[i] in ":|":
            yield i
        i += 1


def _ends(nodes: _Nodes, steps: int) -> Iterator[int]:
    """Steps after which the prompt may change."""
    for node in nodes:
        if isinstance(node, _Turns):
            yield from range(1, steps + 1)
        elif isinstance(node, _Change):
            if node.last(steps) >= 1:
                yield node.last(steps)
            yield from _ends((*node.before, *node.after), steps)


def _at(nodes: _Nodes, step: int, steps: int) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif isinstance(node, _Turns):
            yield from _at(node.options[(step - 1) % len(node.options)], step, steps)
        else:
            yield from _at(node.before if step <= node.last(steps) else node.after, step, steps)
