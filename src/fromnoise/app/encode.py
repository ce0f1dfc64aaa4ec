"""Write the latents of every picture of a data set, for models behind that autoencoder."""

from pathlib import Path

import torch

from fromnoise.app.behind import trained
from fromnoise.app.making import asked_data, made_of
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import DataEncodeRequest
from fromnoise.codecs import Learned
from fromnoise.core.errors import UsageError
from fromnoise.core.files import check_file
from fromnoise.core.tensors import fingerprint
from fromnoise.data.encoded import write_encoded
from fromnoise.interop.loading import load

_BATCH = 64


def data_encode(request: DataEncodeRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise data encode`.

    The latents are the codec's own of the pictures as they are: scaled, and not drawn at random.
    """
    model = load(request.run)
    codec = trained(model.codec)
    if not isinstance(codec, Learned):
        raise UsageError(
            f"{request.run} works on pixels and makes no latents; give the run of an autoencoder, "
            "e.g. of photos-kl"
        )
    out = Path(request.out or Path(request.run) / "latents.safetensors")
    check_file(out)
    dataset = asked_data(model, request.run, request.data)
    dataset = dataset.pictured or dataset
    if dataset.groups() is not None:
        raise UsageError(
            f"the pictures of {dataset.name} have many sizes, and a file holds latents of one; "
            "name them with --data, and they are brought to that of the model"
        )
    latents = made_of(dataset, codec.eval().encode, reporter, _BATCH)
    kept = latents.to(torch.bfloat16) if request.half else latents
    write_encoded(out, kept, dataset, model.card.name, fingerprint(dict(codec.state_dict())))
    shape = " x ".join(str(size) for size in latents.shape[1:])
    reporter.say(f"latents of {len(latents)} pictures, {shape} each: {out}")
    return 0
