"""The model a request names: with another autoencoder, or compiled, where that is asked for."""

from typing import Any

from fromnoise.app.requests import Sampling
from fromnoise.core.errors import UsageError
from fromnoise.core.tensors import fingerprint
from fromnoise.interop.autoencoder import SCALING, open_autoencoder
from fromnoise.interop.loading import load
from fromnoise.model import Model


def opened(request: Sampling) -> Model:
    """The model that is to be sampled. Raises as `load`, `autoencoded` and `Model.compile` do."""
    return as_asked(load(str(request.model)), request.vae, request.compile)


def as_asked(model: Model, vae: str | None, compiled: bool) -> Model:
    """The model as `about` says it was run."""
    model = autoencoded(model, vae)
    if compiled:
        model.compile()
    return model


def autoencoded(model: Model, vae: str | None) -> Model:
    """The model with the autoencoder at `vae` in place of its own; itself where there is none.

    Raises UsageError where the model has none, or one of other latents.
    """
    if vae is None:
        return model
    if next(model.codec.parameters(), None) is None:
        raise UsageError(
            f"{model.card.name} draws pixels, so --vae has no place in it; leave it out"
        )
    own = model.codec.config.get("scaling")
    codec = open_autoencoder(vae, own if isinstance(own, float) else SCALING)
    ours, theirs = model.codec.latent_shape(model.shape), codec.latent_shape(model.shape)
    if ours != theirs:
        raise UsageError(
            f"{vae} makes latents of shape {theirs} where {model.card.name} draws {ours}; use an "
            "autoencoder of the same channels and factor"
        )
    model.codec = codec
    model.card.autoencoder = {"source": vae, "fingerprint": fingerprint(dict(codec.state_dict()))}
    return model


def about(model: Model) -> dict[str, Any]:
    """What a picture's recipe says of its model."""
    other = model.card.autoencoder
    return {
        "source": model.source,
        "fingerprint": model.fingerprint,
        "name": model.card.name,
        "vae": other.get("source"),
        "vae_fingerprint": other.get("fingerprint"),
        "compiled": model.compiled,
    }
