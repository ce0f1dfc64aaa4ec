"""The verbs: what each is asked with and what carries it out, found only when it is used."""

from importlib import import_module
from typing import Any

from fromnoise.app.launch import launch, wanted
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import (
    ConvertRequest,
    DataCheckRequest,
    DataEmbedRequest,
    DataEncodeRequest,
    DataPreviewRequest,
    EmaRequest,
    EvaluateRequest,
    ExplainRequest,
    GridRequest,
    ModelsInfoRequest,
    ModelsListRequest,
    ModelsPullRequest,
    ModelsRemoveRequest,
    RecipesRequest,
    RunsCompareRequest,
    RunsListRequest,
    SampleRequest,
    TrainRequest,
)
from fromnoise.core.config import Settings
from fromnoise.core.errors import UsageError
from fromnoise.core.group import expected, rank

VERBS: dict[str, tuple[type[Settings], str]] = {
    "train": (TrainRequest, "train"),
    "sample": (SampleRequest, "sample"),
    "grid": (GridRequest, "grid"),
    "ema": (EmaRequest, "ema"),
    "evaluate": (EvaluateRequest, "evaluate"),
    "explain": (ExplainRequest, "explain"),
    "convert": (ConvertRequest, "convert"),
    "data check": (DataCheckRequest, "data"),
    "data embed": (DataEmbedRequest, "embed"),
    "data encode": (DataEncodeRequest, "encode"),
    "data preview": (DataPreviewRequest, "data"),
    "models info": (ModelsInfoRequest, "models"),
    "models list": (ModelsListRequest, "models"),
    "models pull": (ModelsPullRequest, "models"),
    "models remove": (ModelsRemoveRequest, "models"),
    "recipes": (RecipesRequest, "recipes"),
    "runs list": (RunsListRequest, "runs"),
    "runs compare": (RunsCompareRequest, "runs"),
}
"""Verb → its request model and the module of this room that carries it out."""

SHARED = ("train", "sample")
"""The verbs whose work can be shared by several processes."""


def carry_out(verb: str, request: Settings, reporter: Reporter) -> int:
    """Do what is asked; returns the exit code."""
    if expected() > 1 and verb not in SHARED:
        error = UsageError(f"`{verb}` works in one process; start it without a launcher")
        error.quiet = rank() > 0
        raise error
    match request:
        case TrainRequest() if wanted(request.processes, request.restarts):
            return launch(verb, request, request.processes, reporter, request.restarts)
        case SampleRequest() if wanted(request.processes):
            return launch(verb, request, request.processes, reporter)
    module = import_module(f"fromnoise.app.{VERBS[verb][1]}")
    function: Any = getattr(module, verb.replace(" ", "_"))
    code: int = function(request, reporter)
    return code
