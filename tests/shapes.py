"""The type checker of the tests: it checks tensor shapes, and leaves every other type alone.

The tests hand wrong types to public functions on purpose, to see the errors users would see.
"""

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def _is_shape(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(_is_shape(part) for part in get_args(hint))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its shape annotations checked at every call."""
    hints = getattr(function, "__annotations__", {})
    shapes = {name: hint for name, hint in hints.items() if _is_shape(hint)}
    if not shapes:
        return function
    function.__annotations__ = shapes
    made: Callable[..., Any] = beartype(function)
    made.__annotations__ = hints
    return made
