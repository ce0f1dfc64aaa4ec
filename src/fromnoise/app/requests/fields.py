"""How a field of a request is declared."""

from typing import Any

from pydantic import Field


def argument(default: Any, description: str) -> Any:
    return Field(default, description=description, json_schema_extra={"positional": True})


def json_value(description: str) -> Any:
    return Field(False, description=description, json_schema_extra={"flags": ["--json"]})
