"""Models behind an autoencoder: where its codec comes from, and what goes with it."""

from pathlib import Path
from typing import Any

from fromnoise.codecs import Codec, Identity, Learned, Tokens
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.tensors import fingerprint
from fromnoise.data import Dataset
from fromnoise.data.encoded import Encoded
from fromnoise.interop.autoencoder import open_autoencoder
from fromnoise.model import Model
from fromnoise.model.files import load_model
from fromnoise.recipes import RECIPES, Recipe
from fromnoise.training import checkpoint

_MEASURED_ON = 512
Latent = Learned | Tokens
"""What makes the latents that a model learns."""

_TAKEN = ("codec", "codec_from", "net", "sampling", "figure")


def placed(recipe: Recipe, source: str | None, begun: Recipe | None) -> tuple[Recipe, Codec | None]:
    """The recipe behind the autoencoder it names, or `source`; and its codec where it was opened.

    The network gets as many channels as latents have, and beliefs are not kept in the range of
    pixels. begun: the recipe of the run as it began, if it has: then no other folder is needed.
    Raises FileError for an autoencoder that cannot be opened, UsageError where a recipe has no
    place for one.
    """
    name = source or recipe.codec_from
    if name is None:
        return recipe, None
    if begun is not None and begun.codec_from == name:
        return recipe.model_copy(update={key: getattr(begun, key) for key in _TAKEN}), None
    if recipe.objective.kind == "autoencoder":
        raise UsageError(f"{recipe.name} trains an autoencoder itself; leave out --codec")
    codec = _suited(recipe, opened(name))
    changed: dict[str, Any] = {"codec": codec.config, "codec_from": name}
    if source is not None:
        changed |= {"net": _net(recipe, codec), "figure": ""}
        changed["sampling"] = recipe.sampling.model_copy(update={"clip": None})
    return recipe.model_copy(update=changed), codec


def opened(source: str) -> Learned:
    """The codec of an autoencoder. FileError, saying what makes one, when it cannot be opened."""
    try:
        codec = open_autoencoder(source)
    except FileError as error:
        place = Path(source)
        makes = place.parent == Path("runs") and place.name in RECIPES and not place.exists()
        advice = f"; `fromnoise train {place.name}` makes it" if makes else ""
        raise FileError(f"the autoencoder cannot be opened: {error}{advice}") from None
    codec = trained(codec)
    if not isinstance(codec, Learned):
        raise UsageError(f"{source} has a {type(codec).__name__} codec, which makes no latents")
    return codec


def trained(codec: Codec) -> Codec:
    """The codec that was trained: that of the codes, where a model draws codes."""
    return codec.codec if isinstance(codec, Tokens) else codec


def begin(
    model: Model, recipe: Recipe, folder: Path, whole: Dataset, codec: Codec | None
) -> list[str]:
    """Give a new model the weights of its codec; return what there is to say of it.

    A run that has a checkpoint has them there. whole: the data, all of it; codec: where it is open.
    Raises UsageError for a network of other channels than the latents', latents without their
    codec, and latents of another one.
    """
    latent, net = model.codec, model.denoiser.net
    if isinstance(latent, Identity) and whole.pictured is not None:
        raise UsageError(
            f"{whole.name} are latents; name the autoencoder that made them with --codec"
        )
    if isinstance(latent, Identity) or recipe.objective.kind == "autoencoder":
        return []
    channels = latent.latent_shape(model.shape)[0]
    if net.in_channels != channels:
        raise UsageError(
            f"the latents have {channels} channels and the network of {recipe.name} takes "
            f"{net.in_channels}; set in_channels of the network to {channels}"
        )
    if recipe.codec_from is None:
        return []
    if checkpoint.steps(folder):
        if isinstance(whole, Encoded):
            # The file may have been made anew since this run began.
            own = load_model(checkpoint.latest_model(folder, _quiet)).codec
            _check_made_by(whole, own, recipe.codec_from)
        return []
    codec = codec or _suited(recipe, opened(recipe.codec_from))
    latent.load_state_dict(codec.state_dict())
    if isinstance(whole, Encoded):
        _check_made_by(whole, codec, recipe.codec_from)
    return [f"behind the autoencoder of {recipe.codec_from}: latents of {channels} channels"]


def _quiet(text: str) -> None:
    """What is wrong with a checkpoint is said when it is read to go on from."""
    del text


def _check_made_by(latents: Encoded, codec: Codec, source: str) -> None:
    if latents.codec != fingerprint(trained(codec).state_dict()):
        raise UsageError(
            f"{latents.name} were made by another autoencoder than this run's, {source}; make them "
            f"anew with `fromnoise data encode {source}`, or begin another run"
        )


def measure(model: Model, dataset: Dataset) -> None:
    """Take the scale of an autoencoder's latents from some of the data it was trained on."""
    if isinstance(model.codec, Learned):
        model.codec.measure(dataset.batch(dataset.spread(_MEASURED_ON)).x)


def _suited(recipe: Recipe, codec: Learned) -> Latent:
    """The codec itself, or its codes where it is those that are learned."""
    return Tokens(codec) if recipe.objective.kind == "masked" else codec


def _net(recipe: Recipe, codec: Latent) -> dict[str, Any]:
    """The recipe's network for latents: their channels, and their size where it has one.

    The network of a recipe that names an autoencoder has the size of latents already.
    """
    net = {**recipe.net, "in_channels": codec.latent}
    if "out_channels" in net and recipe.net.get("in_channels"):
        net["out_channels"] = codec.latent * net["out_channels"] // recipe.net["in_channels"]
    if "size" in net and recipe.codec_from is None:
        net["size"] = max(1, int(net["size"]) // codec.factor)
    return net
