"""Write what a network makes of every sample of a data set, for models of vectors."""

from pathlib import Path

import torch

from fromnoise import data
from fromnoise.app.asked import recipe_of
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import DataEmbedRequest
from fromnoise.app.sources import config_of
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
    channels, *size = model.shape
    if request.data is None:
        config = recipe_of(Path(request.run)).data
    else:
        side = size[0] if len(set(size)) == 1 else size
        config = config_of(request.data, size=side, mode="L" if channels == 1 else "RGB")
    dataset = data.load(config)
    parts = []
    with reporter.progress(f"reading {dataset.name}", len(dataset)) as progress, torch.no_grad():
        for first in range(0, len(dataset), _BATCH):
            batch = dataset.batch(range(first, min(first + _BATCH, len(dataset))))
            t = torch.zeros(len(batch), dtype=torch.float64)
            parts.append(model.denoiser.output(batch.x, t))
            progress.advance(first + len(batch))
    vectors = torch.cat(parts)
    write_embedded(out, vectors / vectors.square().mean().sqrt(), dataset, model.card.name)
    reporter.say(f"{len(vectors)} vectors of {vectors.shape[1]} numbers: {out}")
    return 0
