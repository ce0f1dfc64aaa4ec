"""`fromnoise VERB …`: flags from the request models, errors as one line, exit code 2."""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args

from cyclopts import App, CycloptsError, Parameter, Token, UnusedCliTokensError
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fromnoise import __version__
from fromnoise.app.reporting import Reporter, Silent
from fromnoise.app.verbs import VERBS, carry_out
from fromnoise.core.config import Settings, first_fault
from fromnoise.core.errors import FromNoiseError
from fromnoise.core.group import rank
from fromnoise.core.machine import OUT_OF_MEMORY, is_out_of_memory

_GROUPS = {
    "runs": "List and compare runs.",
    "data": "Check and look at data.",
    "models": "List, fetch, look at and remove models.",
}


def build() -> App:
    """The whole command line."""
    app = App(
        name="fromnoise",
        help="Train, sample, guide and measure diffusion models on your own machine.",
        version=__version__,
        version_flags=["--version"],
        help_format="plaintext",
    )
    groups = {name: App(name=name, help=text, version_flags=[]) for name, text in _GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for verb in VERBS:
        first, _, second = verb.partition(" ")
        (groups[first] if second else app).command(_function(verb), name=second or first)
    return app


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Carry out one command line; returns the exit code. Never shows a traceback for a mistake."""
    return guarded(
        lambda: build()(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
    )


def guarded(work: Callable[[], Any]) -> int:
    """Do something and return its exit code; an error is one line, running out of memory too.

    What several processes were all asked wrongly, the first of them says.
    """
    try:
        result = work()
    except CycloptsError as error:
        return _complain(_plain(error), 2, quiet=rank() > 0)
    except ValidationError as error:
        return _complain(first_fault(error), 2, quiet=rank() > 0)
    except FromNoiseError as error:
        return _complain(str(error), error.exit_code, error.quiet)
    except KeyboardInterrupt:
        return _complain("interrupted", 130, quiet=rank() > 0)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return _complain(OUT_OF_MEMORY, 1)
    return result if isinstance(result, int) else 0


def reporter() -> Reporter:
    """The terminal for the first process; nobody for the others that do the same work."""
    from fromnoise.cli.terminal import Terminal

    return Silent() if rank() else Terminal()


def _complain(message: str, code: int, quiet: bool = False) -> int:
    line = " ".join(message.split())
    if not quiet:
        print(f"fromnoise: error: {line}", file=sys.stderr)
    return code


def _plain(error: CycloptsError) -> str:
    if isinstance(error.__cause__, ValidationError):
        fault = first_fault(error.__cause__)
        argument = error.argument
        return fault if argument is None else fault.replace("value:", f"{argument.name}:", 1)
    if isinstance(error, UnusedCliTokensError):
        left = " ".join(error.unused_tokens or ())
        return f"nothing takes {left}; a flag takes one value, and more by giving it once for each"
    return str(error)


def _function(verb: str) -> Callable[..., int]:
    """A function with one parameter for each field of the verb's request model."""
    model = VERBS[verb][0]
    parameters = [_parameter(name, field) for name, field in model.model_fields.items()]
    signature = inspect.Signature(parameters)

    def command(*args: Any, **given: Any) -> int:
        bound = signature.bind(*args, **given)
        return carry_out(verb, model(**bound.arguments), reporter())

    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__name__ = verb.replace(" ", "_")
    command.__doc__ = inspect.getdoc(model)
    return command


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    extra: dict[str, Any] = dict(field.json_schema_extra or {})  # type: ignore[arg-type]
    positional = bool(extra.get("positional"))
    kind = inspect.Parameter.POSITIONAL_ONLY if positional else inspect.Parameter.KEYWORD_ONLY
    nested = inspect.isclass(field.annotation) and issubclass(field.annotation, Settings)
    flags = (
        None if positional or nested else (f"--{name.replace('_', '-')}", *extra.get("flags", []))
    )
    # A whole number reaches the request model as it was typed: 2.5 is a mistake there, not a 2.
    convert = _as_typed if int in (field.annotation, *get_args(field.annotation)) else None
    told = Parameter(
        name=flags, help=field.description, negative=(), converter=convert, show_default=not nested
    )
    return inspect.Parameter(
        name,
        kind,
        default=inspect.Parameter.empty if field.is_required() else field.default,
        annotation=Annotated[field.annotation, told],
    )


def _as_typed(kind: Any, tokens: Sequence[Token]) -> str:
    del kind
    return tokens[0].value


if __name__ == "__main__":
    main()
