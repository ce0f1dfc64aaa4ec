"""What can be asked: one model for each verb. Flags, schema and reference derive from these.

`json_schema_extra={"positional": True}` makes a field an argument without a flag; `"flags"` adds
short ones.
"""

from fromnoise.app.requests.data import (
    DataCheckRequest,
    DataEmbedRequest,
    DataEncodeRequest,
    DataPreviewRequest,
)
from fromnoise.app.requests.measuring import (
    EvaluateRequest,
    ExplainRequest,
    RecipesRequest,
    RunsCompareRequest,
    RunsListRequest,
)
from fromnoise.app.requests.models import (
    ConvertRequest,
    ModelsInfoRequest,
    ModelsListRequest,
    ModelsPullRequest,
    ModelsRemoveRequest,
)
from fromnoise.app.requests.sampling import GridRequest, SampleRequest, Sampling
from fromnoise.app.requests.training import EmaRequest, TrainRequest

__all__ = [
    "ConvertRequest",
    "DataCheckRequest",
    "DataEmbedRequest",
    "DataEncodeRequest",
    "DataPreviewRequest",
    "EmaRequest",
    "EvaluateRequest",
    "ExplainRequest",
    "GridRequest",
    "ModelsInfoRequest",
    "ModelsListRequest",
    "ModelsPullRequest",
    "ModelsRemoveRequest",
    "RecipesRequest",
    "RunsCompareRequest",
    "RunsListRequest",
    "SampleRequest",
    "Sampling",
    "TrainRequest",
]
