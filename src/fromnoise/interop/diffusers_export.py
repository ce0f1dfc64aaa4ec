"""Writing a model as a folder that diffusers opens."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fromnoise.codecs import KL, Identity
from fromnoise.core.errors import UsageError
from fromnoise.core.files import atomic_folder, save_tensors, write_json
from fromnoise.interop import diffusers_nets, diffusers_schedulers, dit_keys, kl_keys, unet2d_keys
from fromnoise.interop.diffusers_folder import CONFIG, INDEX, SCHEDULER, WEIGHTS
from fromnoise.interop.diffusers_nets import Config
from fromnoise.model import Model
from fromnoise.nets import DiT, UNet

_VERSION = "0.38.0"
_IMAGENET = 1000
_STEPS = {"DDPMPipeline": 1000, "DDIMPipeline": 50, "DiTPipeline": 50}


def export_diffusers(model: Model, folder: Path) -> list[str]:
    """Write a model as a diffusers pipeline folder; what a user should know of it is returned.

    A U-Net becomes a `DDPMPipeline` or `DDIMPipeline`, a transformer the parts of a `DiTPipeline`.
    `fn.load` opens the folder, too, and finds the same weights, bit for bit.

    model: with a discrete Gaussian schedule, and a network of the options that diffusers has.
    folder: new, empty, or written by fromnoise before.
    Raises UsageError that says what diffusers cannot express and what would do; nothing is written
    then.
    """
    net = model.denoiser.net
    scheduler, notes = diffusers_schedulers.write(
        model.denoiser, model.defaults, splits=isinstance(net, DiT)
    )
    if isinstance(net, UNet):
        height, width = model.shape[1:]
        part, config = "unet", diffusers_nets.unet_settings(net.config, (height, width))
        state = unet2d_keys.to_diffusers(net.state_dict())
        pipeline = "DDIMPipeline" if "DDIM" in scheduler["_class_name"] else "DDPMPipeline"
    elif isinstance(net, DiT):
        part, config = "transformer", diffusers_nets.dit_settings(net.config)
        state = dit_keys.to_diffusers(net.state_dict(), net)
        pipeline = "DiTPipeline"
    else:
        raise UsageError(f"diffusers has no network like a {type(net).__name__}; a unet or dit has")
    codec = model.codec if isinstance(model.codec, KL) and pipeline == "DiTPipeline" else None
    if codec is None and not isinstance(model.codec, Identity):
        raise UsageError(
            f"a {pipeline} has no place for a {type(model.codec).__name__} codec; a transformer "
            "with a KL codec and models of pixels can be written"
        )
    index = _index(pipeline, part, config, scheduler, codec)
    if pipeline == "DiTPipeline":
        index["id2label"] = {str(i): name for i, name in enumerate(model.card.classes)}
    with atomic_folder(folder) as made:
        write_json(made / INDEX, index)
        _write(made / "scheduler", SCHEDULER, scheduler)
        _write(made / part, CONFIG, config, state)
        if codec is not None:
            theirs = kl_keys.to_diffusers(codec.state_dict(), codec)
            _write(made / "vae", CONFIG, kl_keys.settings(codec.config), theirs)
    steps = model.defaults.steps
    if steps != _STEPS[pipeline]:
        notes.insert(0, f"this model is sampled in {steps} steps: pass num_inference_steps={steps}")
    return [*_advice(model, pipeline, codec), *notes]


def _write(
    folder: Path, name: str, config: Config, state: Mapping[str, Tensor] | None = None
) -> None:
    """One part of a pipeline: its configuration, and its weights if it has any."""
    folder.mkdir()
    write_json(folder / name, {"_diffusers_version": _VERSION} | config)
    if state is not None:
        save_tensors(folder / f"{WEIGHTS}.safetensors", state)


def _index(pipeline: str, part: str, config: Config, scheduler: Config, codec: KL | None) -> Config:
    parts: Config = {
        "scheduler": ["diffusers", scheduler["_class_name"]],
        part: ["diffusers", config["_class_name"]],
    }
    if pipeline == "DiTPipeline":
        parts["vae"] = [None, None] if codec is None else ["diffusers", "AutoencoderKL"]
    return {"_class_name": pipeline, "_diffusers_version": _VERSION, **parts}


def _advice(model: Model, pipeline: str, codec: KL | None) -> list[str]:
    """How the folder is used from diffusers, where its pipeline alone would not do."""
    told = "label" in model.conditioning.names
    if pipeline == "DiTPipeline" and codec is not None:
        classes = len(model.card.classes)
        fits = classes == _IMAGENET
        return [] if fits else [f"DiTPipeline takes 1000 for the null; here it is {classes}"]
    if pipeline == "DiTPipeline":
        return [
            "DiTPipeline needs a decoder and this model has none: open the network with "
            'DiTTransformer2DModel.from_pretrained(FOLDER, subfolder="transformer") and the '
            "scheduler likewise"
        ]
    if told:
        return [
            f"{pipeline} gives its network no label: call pipe.unet(x, t, class_labels=…) and "
            "pipe.scheduler.step(…) in a loop of your own",
            "the null of guidance without a classifier is a label of zeros, which UNet2DModel has "
            "no number for",
        ]
    return []
