"""Writing a Stable Diffusion as one file under the names of CompVis and Stability."""

from pathlib import Path

from torch import Tensor

from fromnoise.codecs import KL
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import check_own_file, save_tensors
from fromnoise.encoders import CLIPText, JoinedCLIP
from fromnoise.interop import (
    clip_keys,
    clip_single,
    compvis_autoencoder,
    compvis_unet,
    diffusers_schedulers,
    single_said,
)
from fromnoise.interop.clip_single import Place
from fromnoise.interop.diffusers_folder import built
from fromnoise.interop.single_file import SKIPPED, recognised
from fromnoise.model import Model
from fromnoise.nets import UNet
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES


def export_single(model: Model, path: Path, about: dict[str, str]) -> list[str]:
    """Write the weights of a model as one safetensors file; what a user should know is returned.

    Numbers and types stay, bit for bit. What the network predicts is said in the metadata; the
    vocabulary and the schedule are not in such a file. What it would be taken for otherwise, when
    it is opened again, is noted. about: texts for its metadata.
    Raises UsageError for a model that is none of Stable Diffusion's; nothing is written then.
    """
    net, codec = model.denoiser.net, model.codec
    read = model.conditioning.encoders["prompt"] if "prompt" in model.conditioning.names else None
    if not (isinstance(net, UNet) and isinstance(codec, KL) and read is not None):
        raise UsageError(
            f"{model.card.name} is no Stable Diffusion (a U-Net, a KL codec and CLIP), which alone "
            "has such files; use --to diffusers"
        )
    state = compvis_unet.unet_to_compvis(net.state_dict(), net)
    state |= compvis_autoencoder.autoencoder_to_compvis(codec.state_dict(), codec)
    used = False
    for encoder, place in _texts(read):
        state |= _text(encoder, place)
        used |= place.skipped and not encoder.skip
    kind = model.denoiser.parameterization.config["kind"]  # type: ignore[attr-defined]
    about = about | single_said.marks(kind) | ({SKIPPED: "used"} if used else {})
    save_tensors(check_own_file(path), state, about)
    words = (
        "prompts are read by CLIP's vocabulary, which such a file does not hold: keep vocab.json "
        "and merges.txt beside it"
    )
    return [words, *_otherwise(model, path)]


def _otherwise(model: Model, path: Path) -> list[str]:
    """What is not the same when the file is opened again, because such files do not say it."""
    denoiser = model.denoiser
    try:
        found = recognised(path)
        net = built(found.net, str(path))
        read = diffusers_schedulers.read(found.scheduler, str(path))
    except FileError as error:
        return [f"it does not open again as one file: {error}"]
    notes = []
    if net.config != denoiser.net.config:
        notes.append("its network has heads or norm groups that such a file does not say")
    if PROCESSES.build(read.process).config != denoiser.process.config:
        notes.append(
            "its schedule is not the published one, which such a file does not say; a YAML of the "
            "same name may say linear betas of their square roots, model: {params: {linear_start: "
            "…, linear_end: …, timesteps: …}}"
        )
    if PARAMETERIZATIONS.build(read.parameterization) != denoiser.parameterization:
        kind = denoiser.parameterization.config["kind"]  # type: ignore[attr-defined]
        notes.append(
            f"what the network predicts is {kind}, which such a file does not say; a YAML of the "
            f"same name may: model: {{params: {{parameterization: {kind}}}}}"
        )
    return notes


def _texts(read: object) -> list[tuple[CLIPText, Place]]:
    """The towers of a model, and where each stands in a file."""
    if isinstance(read, JoinedCLIP):
        places = clip_single.XL if read.second is not None else (clip_single.REFINER,)
        return list(zip(read.towers, places, strict=True))
    if isinstance(read, CLIPText):
        own = read.tower.settings.activation == clip_single.SD1.activation
        return [(read, clip_single.SD1 if own else clip_single.SD2)]
    raise UsageError("its prompts are not read by CLIP, so there is no such file of it")


def _text(encoder: CLIPText, place: Place) -> dict[str, Tensor]:
    write = clip_keys.to_transformers if place.program == "transformers" else clip_keys.to_openai
    named = write(encoder.tower.state_dict(), encoder.tower)
    return {place.prefix + name: value for name, value in named.items()}
