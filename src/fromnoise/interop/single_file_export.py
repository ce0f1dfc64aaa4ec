"""Writing a model of latents as one file under the names of CompVis and Stability."""

from pathlib import Path

from torch import Tensor

from fromnoise.codecs import CODECS, KL, VQ
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import check_own_file, save_tensors
from fromnoise.encoders import CLIPText, JoinedCLIP, LDMBert
from fromnoise.interop import (
    clip_keys,
    clip_single,
    compvis_autoencoder,
    compvis_unet,
    diffusers_schedulers,
    kl_keys,
    ldm_bert_keys,
    single_said,
)
from fromnoise.interop.clip_single import Place
from fromnoise.interop.diffusers_folder import built
from fromnoise.interop.diffusers_nets import Config
from fromnoise.interop.single_file import SKIPPED, recognised
from fromnoise.model import Model
from fromnoise.nets import UNet
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES


def export_single(model: Model, path: Path, about: dict[str, str]) -> list[str]:
    """Write the weights of a model as one safetensors file; what a user should know is returned.

    Numbers and types stay, bit for bit. What the network predicts and its heads are said in the
    metadata; the vocabulary and the schedule are not in such a file. What it would be taken for
    otherwise, when it is opened again, is noted. about: texts for its metadata.
    Raises UsageError for a model of another kind; nothing is written then.
    """
    net, codec = model.denoiser.net, model.codec
    names = model.conditioning.names
    read = model.conditioning.encoders["prompt"] if "prompt" in names else None
    if not (isinstance(net, UNet) and isinstance(codec, KL | VQ)) or (names and read is None):
        raise UsageError(
            f"{model.card.name} is no Stable Diffusion (a U-Net, a KL codec and CLIP), nor latent "
            "diffusion told a text or nothing (a U-Net, a KL or VQ codec, BERT or no encoder), "
            "which alone have such files; use --to diffusers"
        )
    kl_keys.scaling(codec.config)  # one number, or an error that says so
    state = compvis_unet.unet_to_compvis(net.state_dict(), net)
    state |= compvis_autoencoder.autoencoder_to_compvis(codec.state_dict(), codec)
    used = False
    for encoder, place in _texts(read):
        state |= _text(encoder, place)
        used |= place.skipped and not encoder.skip
    if isinstance(read, LDMBert):
        state |= ldm_bert_keys.to_theirs(read.state_dict(), read, "compvis")
    kind = model.denoiser.parameterization.config["kind"]  # type: ignore[attr-defined]
    about = about | single_said.marks(kind, net.config["attention"])
    save_tensors(check_own_file(path), state, about | ({SKIPPED: "used"} if used else {}))
    return [*_words(read), *_otherwise(model, path)]


def _words(read: object) -> list[str]:
    """What is said of a vocabulary, which such a file does not hold."""
    if read is None:
        return []
    bert = isinstance(read, LDMBert)
    whose, files = ("BERT", "vocab.txt") if bert else ("CLIP", "vocab.json and merges.txt")
    said = f"prompts are read by {whose}'s vocabulary, which such a file does not hold: keep "
    return [f"{said}{files} beside it"]


def _otherwise(model: Model, path: Path) -> list[str]:
    """What is not the same when the file is opened again, because such files do not say it."""
    denoiser = model.denoiser
    try:
        found = recognised(path)
        net, codec = built(found.net, str(path)), built(found.codec, str(path), CODECS)
        read = diffusers_schedulers.read(found.scheduler, str(path))
    except FileError as error:
        return [f"it does not open again as one file: {error}"]
    notes = []
    if _sized(net.config) != _sized(denoiser.net.config):
        notes.append("its network has norms or features of time that such a file does not say")
    notes += _codec_notes(codec.config, model.codec.config)
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


def _sized(config: Config) -> Config:
    """A network's configuration but for what counts in training or at odd sizes alone."""
    style = config["style"] | {"uneven": True, "dropout": 0.0}
    return config | {
        "out_channels": config["out_channels"] or config["in_channels"],
        "style": style,
    }


def _codec_notes(found: Config, own: Config) -> list[str]:
    """What a file does not say of an autoencoder. How a codebook learnt counts for no picture."""
    other = [key for key in own if key != "codebook" and own[key] != found.get(key)]
    notes = []
    if "scaling" in other:
        other.remove("scaling")
        notes.append(
            f"the scale of its latents is {own['scaling']}, which such a file does not say; a YAML "
            f"of the same name may: model: {{params: {{scale_factor: {own['scaling']}}}}}"
        )
    if other:
        notes.append(f"its autoencoder has {', '.join(other)} that such a file does not say")
    return notes


def _texts(read: object) -> list[tuple[CLIPText, Place]]:
    """The towers of a model, and where each stands in a file."""
    if isinstance(read, JoinedCLIP):
        places = clip_single.XL if read.second is not None else (clip_single.REFINER,)
        return list(zip(read.towers, places, strict=True))
    if isinstance(read, CLIPText):
        own = read.tower.settings.activation == clip_single.SD1.activation
        return [(read, clip_single.SD1 if own else clip_single.SD2)]
    if read is None or isinstance(read, LDMBert):
        return []
    raise UsageError(
        "its prompts are not read by CLIP or the BERT of latent diffusion, so there is no such file"
    )


def _text(encoder: CLIPText, place: Place) -> dict[str, Tensor]:
    write = clip_keys.to_transformers if place.program == "transformers" else clip_keys.to_openai
    named = write(encoder.tower.state_dict(), encoder.tower)
    return {place.prefix + name: value for name, value in named.items()}
