"""Pages of the guide that are rendered from what they describe: the command line, the recipes.

`python -m fromnoise.app.reference > docs/cli.md` writes the first anew, and
`python -m fromnoise.app.reference recipes > docs/recipes.md` the second.
"""

import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from fromnoise import recipes
from fromnoise.app.verbs import VERBS
from fromnoise.core.config import Settings

_PREFACE = """\
# The command line

This page is rendered from the models that the command line itself is built from
(`python -m fromnoise.app.reference`), so it cannot say anything else than `fromnoise VERB --help`.

```
fromnoise VERB [ARGUMENTS] [--FLAGS]
```

A mistake is one line on standard error and writes nothing. Exit codes: 0 done; 1 trouble while
doing it (a full disk, a loss that is not a number), or a check that failed (a replay that differs);
2 what was asked cannot be; 130 interrupted.
"""

_RECIPES_PREFACE = """\
# Recipes

A recipe is every choice of one training run, and how its model is sampled, in one place: data,
network, [process](cold.md), [parameterization](parameterizations.md), loss, [training](training.md)
settings, [sampler](samplers.md). It is a function in `src/fromnoise/recipes/` that returns plain
settings, so a new one is a few lines, and a run folder holds a copy of its own.

```bash
fromnoise recipes
fromnoise recipes digits-edm > mine.json
fromnoise train ./mine.json --out runs/mine
```

A recipe is data: parts are named by kind from closed tables and cannot name code.

```python
import fromnoise as fn

recipe = fn.recipes.get("digits-edm")
assert recipe.process["schedule"]["kind"] == "edm"
assert recipe.sampling.sampler == "heun" and recipe.sampling.steps == 18
longer = recipe.model_copy(update={"train": recipe.train.model_copy(update={"steps": 3000})})
assert longer.train.steps == 3000 and recipe.train.steps != 3000
```

The figure is what the recipe reached with its own settings and seed 0. The digit recipes share data
and network, so their figures can be compared with each other; they cannot be compared with
published ones, which are of other data.
"""

_PIPE = "\\|"
_UNMEASURED = "not measured yet"
_WORDS = {int: "integer", float: "number", str: "text", bool: "flag", dict: "table"}
_BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}


def reference() -> str:
    """The whole page as Markdown."""
    return "\n".join([_PREFACE, *(_section(verb) for verb in VERBS)])


def recipes_page() -> str:
    """The page of recipes as Markdown: what each trains, the work it follows, what it reached."""
    heading = "| recipe | what it trains | follows | figure |"
    lines = [_RECIPES_PREFACE, heading, "|---|---|---|---|"]
    for recipe in (recipes.get(name) for name in sorted(recipes.RECIPES)):
        row = (f"`{recipe.name}`", recipe.summary, recipe.paper, recipe.figure or _UNMEASURED)
        lines.append(f"| {' | '.join(cell.replace('|', _PIPE) for cell in row)} |")
    return "\n".join([*lines, ""])


def _section(verb: str) -> str:
    model = VERBS[verb][0]
    arguments = [_shown(name, field) for name, field in model.model_fields.items() if _bare(field)]
    lines = [
        f"## {verb}",
        "",
        inspect.cleandoc(model.__doc__ or ""),
        "",
        "```",
        " ".join(["fromnoise", verb, *arguments]),
        "```",
        "",
        "| argument or flag | value | default | |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in _rows(model)),
        "",
    ]
    return "\n".join(lines)


def _rows(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Flag, value, default and help text of each field; those of a nested model with its name."""
    for name, field in model.model_fields.items():
        if inspect.isclass(field.annotation) and issubclass(field.annotation, Settings):
            yield f"`--{prefix}{name}.…`", "", "", _help(field)
            yield from _rows(field.annotation, f"{prefix}{name}.")
            continue
        given = f"`{_shown(name, field)}`" if _bare(field) else _flags(prefix + name, field)
        yield given, _value(field), _default(field), _help(field)


def _help(field: FieldInfo) -> str:
    return (field.description or "").replace("|", _PIPE)


def _bare(field: FieldInfo) -> bool:
    return bool(_extra(field).get("positional"))


def _extra(field: FieldInfo) -> dict[str, Any]:
    return dict(field.json_schema_extra or {})  # type: ignore[arg-type]


def _shown(name: str, field: FieldInfo) -> str:
    word = name.upper().replace("_", "-")
    if get_origin(field.annotation) is list:
        word += "..."
    return word if field.is_required() else f"[{word}]"


def _flags(name: str, field: FieldInfo) -> str:
    return ", ".join(
        f"`{flag}`" for flag in (f"--{name.replace('_', '-')}", *_extra(field).get("flags", []))
    )


def _value(field: FieldInfo) -> str:
    """What may be given, in words: kind and range."""
    bounds = []
    for bound in field.metadata:
        if type(bound) in _BOUNDS:
            attribute, word = _BOUNDS[type(bound)]
            bounds.append(f"{word} {getattr(bound, attribute)}")
    return ", ".join([" or ".join(_kinds(field.annotation)), *bounds])


def _kinds(annotation: Any) -> list[str]:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [f"`{choice}`" for choice in inside]
    if origin in (types.UnionType, Union):
        return [word for part in inside if part is not type(None) for word in _kinds(part)]
    if origin is list:
        return [f"one or more {word}" for word in _kinds(inside[0])]
    return [_WORDS[origin or annotation]]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "" if field.default is None or field.default is False else f"`{field.default}`"


if __name__ == "__main__":
    page = {"cli": reference, "recipes": recipes_page}[(*sys.argv[1:], "cli")[0]]
    sys.stdout.write(page())
