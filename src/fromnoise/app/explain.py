"""What happens inside a model, shown: for now the shapes of its tensors."""

import json
from pathlib import Path

from fromnoise import nets
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import ExplainRequest
from fromnoise.app.sample import shape_of
from fromnoise.core.errors import UsageError
from fromnoise.explain.shapes import Shapes, model_shapes, network_shapes
from fromnoise.interop.skeleton import skeleton

_SIDE = 64
"""Height and width of what a network by itself is shown over, unless asked otherwise."""


def explain(request: ExplainRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise explain MODEL`."""
    if not request.shapes:
        raise UsageError("say what to explain; --shapes shows every tensor with its shape")
    found = shapes_of(request)
    if request.as_json:
        reporter.say(json.dumps({"model": request.model, **found.plain()}, indent=2))
        return 0
    for line in found.lines():
        reporter.say(line)
    return 0


def shapes_of(request: ExplainRequest) -> Shapes:
    """The tensors of a model at hand, or of a published network by its name."""
    name = request.model
    if name in nets.PRESETS and not Path(name).exists():
        net = nets.build(name, device="meta")
        sides = net.only or (request.height or _SIDE, request.width or _SIDE)
        rows = network_shapes(net, (net.in_channels, *sides))
        return Shapes(rows, {"network": sum(p.numel() for p in net.parameters())})
    model = skeleton(name)
    return model_shapes(model, request.prompt, shape_of(model, request))
