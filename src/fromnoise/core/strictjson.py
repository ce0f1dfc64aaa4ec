"""JSON read strictly: no duplicate keys, no deep nesting, no NaN, and errors that name the line."""

import json
import math
import re
from typing import Any

from fromnoise.core.errors import FileError

MAX_DEPTH = 64
_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}\[\]]', re.DOTALL)


class _Duplicate(ValueError):
    """Two values under one key: which one counts would depend on the reader."""


def loads(data: bytes, what: str, max_depth: int = MAX_DEPTH, finite: bool = True) -> Any:
    """The value of a JSON text; `what` names it (a path) in errors.

    finite: whether NaN and infinities are refused; other programs write them.
    Raises FileError, naming the line, for text that is not UTF-8 or not JSON, a key given twice in
    one object, nesting deeper than `max_depth`, and numbers that are not finite.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError(f"{what}, line {line}: not UTF-8 text; save it as UTF-8") from None
    try:
        number = _finite if finite else float
        value = json.loads(
            text, object_pairs_hook=_unique, parse_float=number, parse_constant=number
        )
    except json.JSONDecodeError as error:
        raise FileError(f"{what}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except _Duplicate as error:
        line = _first_fault(text, max_depth)
        raise FileError(f"{what}, line {line}: {error}; keep one of them") from None
    except RecursionError:
        raise _too_deep(text, what, max_depth) from None
    except ValueError as error:
        raise FileError(f"{what}: {error}") from None
    if _deeper(value, max_depth):
        raise _too_deep(text, what, max_depth)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Duplicate(f"the key {key!r} is given twice")
            seen.add(key)
    return made


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is not finite; JSON has no such value")
    return value


def _deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects nest deeper than `depth`."""
    level = [value]
    for _ in range(depth + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _too_deep(text: str, what: str, max_depth: int) -> FileError:
    line = _first_fault(text, max_depth)
    return FileError(f"{what}, line {line}: nested deeper than {max_depth} levels")


def _first_fault(text: str, max_depth: int) -> int:
    """The line of the first duplicate key or bracket that is too deep."""
    open_keys: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        mark, key, colon = token.group(), token.group(1), token.group(2)
        if mark in ("{", "["):
            open_keys.append(set())
        elif mark in ("}", "]"):
            open_keys.pop()
        elif colon:
            name = json.loads(key)
            if name in open_keys[-1]:
                return _line(text, token.start())
            open_keys[-1].add(name)
        if len(open_keys) > max_depth:
            return _line(text, token.start())
    return 1


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
