"""The verbs: what each is asked with and what carries it out, found only when it is used."""

from importlib import import_module
from typing import Any

from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import (
    DataCheckRequest,
    DataPreviewRequest,
    EvaluateRequest,
    RecipesRequest,
    RunsCompareRequest,
    RunsListRequest,
    SampleRequest,
    TrainRequest,
)
from fromnoise.core.config import Settings

VERBS: dict[str, tuple[type[Settings], str]] = {
    "train": (TrainRequest, "train"),
    "sample": (SampleRequest, "sample"),
    "evaluate": (EvaluateRequest, "evaluate"),
    "data check": (DataCheckRequest, "data"),
    "data preview": (DataPreviewRequest, "data"),
    "recipes": (RecipesRequest, "recipes"),
    "runs list": (RunsListRequest, "runs"),
    "runs compare": (RunsCompareRequest, "runs"),
}
"""Verb → its request model and the module of this room that carries it out."""


def carry_out(verb: str, request: Settings, reporter: Reporter) -> int:
    """Do what is asked; returns the exit code."""
    module = import_module(f"fromnoise.app.{VERBS[verb][1]}")
    function: Any = getattr(module, verb.replace(" ", "_"))
    code: int = function(request, reporter)
    return code
