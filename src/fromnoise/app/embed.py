"""Write what a network makes of every sample of a data set, for models of vectors."""

from pathlib import Path

import torch
from torch import Tensor

from fromnoise.app.making import asked_data, made_of
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import DataEmbedRequest
from fromnoise.core.errors import UsageError
from fromnoise.core.files import check_file
from fromnoise.data.embedded import write_embedded
from fromnoise.interop.loading import load

_BATCH = 256


def data_embed(request: DataEmbedRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise data embed`.

    The vectors are the network's answer to clean samples, over their root mean square: a number of
    them is of size 1.
    """
    model = load(request.run)
    net = model.denoiser.net
    if net.draws:
        raise UsageError(
            f"{request.run} draws samples; what makes vectors of them is an image-text model or a "
            "classifier, e.g. a run of shapes-clip"
        )
    out = Path(request.out or Path(request.run) / "embeddings.safetensors")
    check_file(out)
    dataset = asked_data(model, request.run, request.data)

    def vector(x: Tensor) -> Tensor:
        return model.denoiser.output(x, torch.zeros(len(x), dtype=torch.float64))

    vectors = made_of(dataset, vector, reporter, _BATCH)
    write_embedded(out, vectors / vectors.square().mean().sqrt(), dataset, model.card.name)
    reporter.say(f"{len(vectors)} vectors of {vectors.shape[1]} numbers: {out}")
    return 0
