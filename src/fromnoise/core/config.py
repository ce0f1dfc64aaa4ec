"""Configuration at the edge: closed tables of named constructors whose arguments are checked.

A file can name a kind from a table and its plain arguments; it can never name a Python path.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError, validate_call

from fromnoise.core.errors import UsageError, unknown

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=BaseModel)
Preset = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


class Settings(BaseModel):
    """Base of every settings model: unknown keys are refused, values are checked on assignment."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class Configured(Protocol):
    """Anything made by a table of kinds: it remembers how."""

    config: dict[str, Any]


class Kinds(Mapping[str, Callable[..., Any]]):
    """A closed table: kind name to constructor. What it builds remembers its `config`.

    >>> table = Kinds("shape")
    >>> @table.register("square")
    ... class Square:
    ...     def __init__(self, side: int = 1) -> None:
    ...         self.side = side
    >>> table.build({"kind": "square", "side": 3}).config
    {'kind': 'square', 'side': 3}
    """

    def __init__(self, what: str, uses: tuple["Kinds", ...] = ()) -> None:
        """`uses` are the tables that arguments which are themselves kinds may come from."""
        self.what = what
        self._uses = (self, *uses)
        self._table: dict[str, Callable[..., Any]] = {}

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def register(self, name: str) -> Callable[[F], F]:
        """Decorate a function or a class so that its result carries `config`, and list it here."""

        def decorate(constructor: F) -> F:
            made = (
                _remembering_class(name, constructor)
                if inspect.isclass(constructor)
                else _remembering_function(name, constructor)
            )
            self._table[name] = made
            return cast(F, made)

        return decorate

    def build(self, config: Mapping[str, Any]) -> Any:
        """Build from `{"kind": name, argument: value, ...}`.

        Nested kinds come from this table and those it uses.

        Raises UsageError for an unknown kind (with the nearest names), an unknown or missing
        argument, or a value of the wrong type.
        """
        arguments = dict(config)
        name = arguments.pop("kind", None)
        if not isinstance(name, str) or name not in self._table:
            raise unknown(self.what, name, self._table)
        nested = {key: self._nested(value) for key, value in arguments.items()}
        constructor = self._table[name]
        try:
            if not inspect.isclass(constructor):
                return _checked(constructor)(**nested)
            made = constructor.__new__(constructor)
            _checked(constructor.__init__)(made, **nested)
            return made
        except ValidationError as error:
            raise UsageError(f"{self.what} {name!r}: {first_fault(error)}") from None

    def config_of(
        self, name: str | Mapping[str, Any], presets: Mapping[str, Preset]
    ) -> Mapping[str, Any]:
        """A configuration by a preset's name or a bare kind; one that is given stays as it is.

        Raises UsageError for a name that is neither, with the nearest of both.
        """
        if isinstance(name, Mapping):
            return name
        if name in presets:
            preset = presets[name]
            return preset() if callable(preset) else preset
        if name in self:
            return {"kind": name}
        raise unknown(self.what, name, [*presets, *self])

    def _nested(self, value: Any) -> Any:
        if not (isinstance(value, Mapping) and "kind" in value):
            return value
        for table in self._uses:
            if isinstance(value["kind"], str) and value["kind"] in table:
                return table.build(value)
        known = [name for table in self._uses for name in table]
        raise unknown(f"part of a {self.what}", value["kind"], known)


@functools.cache
def _checked(constructor: Callable[..., Any]) -> Callable[..., Any]:
    """The same with its arguments checked; how is worked out once."""
    return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(constructor)


def validated(model: type[S], values: Any, where: str) -> S:
    """A settings model of plain values; UsageError names the place and the first fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{where}: {first_fault(error)}") from None


def first_fault(error: ValidationError) -> str:
    """The first fault of a pydantic error in one line: where, what, and the value given."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"]) or "value"
    kind = fault["type"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {where!r}"
    if kind in ("missing", "missing_argument"):
        return f"{where!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]} (got {fault['input']!r})"


def plain(value: Any) -> Any:
    """A value as JSON takes it: things made by a table become their config, tuples lists."""
    config = getattr(value, "config", None)
    if isinstance(config, dict):
        return config
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(f"a {type(value).__name__} cannot be written into a configuration file")


def _config(name: str, signature: inspect.Signature, *args: Any, **given: Any) -> dict[str, Any]:
    bound = signature.bind(*args, **given)
    bound.apply_defaults()
    return {"kind": name, **{k: plain(v) for k, v in bound.arguments.items()}}


def _remember(made: Any, name: str, signature: inspect.Signature, *args: Any, **given: Any) -> None:
    """Give `made` its `config`, unless a part of it is of the caller's own making.

    Such a thing works like any other; only writing it into a file is refused, by `plain`.
    """
    try:
        config = _config(name, signature, *args, **given)
    except UsageError:
        return
    object.__setattr__(made, "config", config)


def _remembering_function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def build(*args: Any, **given: Any) -> Any:
        made = function(*args, **given)
        _remember(made, name, signature, *args, **given)
        return made

    return build


def _remembering_class(name: str, cls: type) -> type:
    original = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(cls)

    @functools.wraps(original)
    def remember(self: Any, *args: Any, **given: Any) -> None:
        original(self, *args, **given)
        if type(self) is cls:
            _remember(self, name, signature, *args, **given)

    cls.__init__ = remember  # type: ignore[misc]
    return cls
