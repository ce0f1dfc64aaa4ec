"""Writing a model of latents as a pipeline folder that diffusers opens."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fromnoise.codecs import KL, VQ
from fromnoise.core.errors import UsageError
from fromnoise.core.files import atomic_folder, save_tensors, write_json, write_text
from fromnoise.core.meta import without_memory
from fromnoise.encoders import (
    CLIPImage,
    CLIPText,
    Disparity,
    Encoder,
    JoinedCLIP,
    LDMBert,
    Noised,
)
from fromnoise.encoders.clip_towers import TextTower
from fromnoise.encoders.clip_vision import MEAN, STD
from fromnoise.encoders.tokenizers import Vocabulary, from_bytes
from fromnoise.encoders.wordpieces import WordPieces
from fromnoise.interop import (
    clip_keys,
    diffusers_nets,
    diffusers_schedulers,
    kl_keys,
    ldm_bert_keys,
    unet2d_keys,
    unet_condition,
    unet_condition_keys,
    vq_keys,
)
from fromnoise.interop.diffusers_folder import CONFIG, INDEX, SCHEDULER, WEIGHTS
from fromnoise.interop.diffusers_nets import Config
from fromnoise.model import Model
from fromnoise.nets import UNet

_VERSION = "0.38.0"
_STATES = "model"
Index = dict[str, list[str | None]]


def export_latent(model: Model, folder: Path) -> list[str]:
    """Write a model of latents as a diffusers pipeline; what a user should know is returned.

    Weights keep their numbers and types, bit for bit. Of a text encoder whose last layers are never
    used they are left out, as diffusers has no option for that.
    Raises UsageError that says what diffusers cannot express; nothing is written then.
    """
    net, codec = model.denoiser.net, model.codec
    if not isinstance(net, UNet) or not isinstance(codec, KL | VQ):
        raise UsageError(
            f"diffusers has no pipeline of a {type(net).__name__} behind a {type(codec).__name__}; "
            "it has those of a unet behind a kl or vq codec"
        )
    name = _pipeline(model)
    scheduler, notes = diffusers_schedulers.write(model.denoiser, model.defaults)
    height, width = codec.latent_shape(model.shape)[1:]
    conditional = net.accepts.tokens is not None
    writer = unet_condition.settings if conditional else diffusers_nets.unet_settings
    config = writer(net.config, (height, width))
    state = net.state_dict()
    made = (
        unet_condition_keys.to_diffusers(state, net)
        if conditional
        else unet2d_keys.to_diffusers(state)
    )
    index: Index = {"unet": ["diffusers", config["_class_name"]]}
    with atomic_folder(folder) as place:
        _write(place / "unet", config, made, WEIGHTS)
        _codec(codec, place, "vqvae" if name.startswith("LDM") else "vae", index)
        _scheduler(place, "scheduler", scheduler, index)
        notes += _encoders(model, place, index)
        extra = _extra(model, place, index)
        write_json(
            place / INDEX, {"_class_name": name, "_diffusers_version": _VERSION, **extra, **index}
        )
    return notes


def _pipeline(model: Model) -> str:
    """The class that draws as this model does."""
    names, prompt = model.conditioning.names, model.conditioning.encoders
    read = prompt["prompt"] if "prompt" in names else None
    inpaint = "inpaint" in names
    if isinstance(read, JoinedCLIP):
        if inpaint:
            return "StableDiffusionXLInpaintPipeline"
        return f"StableDiffusionXL{'Img2Img' if read.second is None else ''}Pipeline"
    for there, name in (
        (isinstance(read, LDMBert), "LDMTextToImagePipeline"),
        (not names, "LDMPipeline"),
        (inpaint, "StableDiffusionInpaintPipeline"),
        ("depth" in names, "StableDiffusionDepth2ImgPipeline"),
        ("low_res" in names, "StableDiffusionUpscalePipeline"),
        ("picture" in names, "StableDiffusionImageVariationPipeline"),
        (isinstance(read, CLIPText), "StableDiffusionPipeline"),
    ):
        if there:
            return name
    raise UsageError(f"diffusers has no pipeline of latents that is told {', '.join(names)}")


def _encoders(model: Model, place: Path, index: Index) -> list[str]:
    notes: list[str] = []
    for name, encoder in model.conditioning.encoders.items():
        if isinstance(encoder, JoinedCLIP):
            first = ("", "_2") if encoder.second is not None else ("_2",)
            if encoder.second is None:
                index |= {"text_encoder": [None, None], "tokenizer": [None, None]}
            for tower, end in zip(encoder.towers, first, strict=True):
                _text(tower, place, end, index, cut=False)
        elif isinstance(encoder, CLIPText):
            if encoder.skip:
                notes.append(
                    f"left out: the last {encoder.skip} of {encoder.tower.settings.depth} layers "
                    "of the text encoder, which are not used"
                )
            _text(encoder, place, "", index, cut=True)
        elif isinstance(encoder, CLIPImage):
            settings = clip_keys.vision_config(encoder.tower.settings)
            state = clip_keys.to_transformers(encoder.tower.state_dict(), encoder.tower)
            _write(place / "image_encoder", settings, state, _STATES)
            index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
            _feature_extractor(encoder.size, place, index)
        elif isinstance(encoder, LDMBert):
            if encoder.logits is None:
                notes.append(
                    "left out: the text encoder's map to logits, which nothing reads and a model "
                    "folder does not hold; diffusers draws one at random"
                )
            state = ldm_bert_keys.to_theirs(encoder.state_dict(), encoder)
            _write(place / "bert", ldm_bert_keys.settings(encoder.config), state, _STATES)
            _pieces(encoder, place / "tokenizer")
            index["bert"] = ["latent_diffusion", "LDMBertModel"]
            index["tokenizer"] = ["transformers", "BertTokenizer"]
        elif isinstance(encoder, Disparity):
            notes.append(
                "the network that finds depths is not written: open the folder with "
                "depth_estimator=None, feature_extractor=None, or with one"
            )
        elif isinstance(encoder, Encoder) and not encoder.state_dict():
            continue
        else:
            raise UsageError(f"a pipeline of diffusers has no place for the encoder of {name}")
    return notes


def _extra(model: Model, place: Path, index: Index) -> Config:
    """What else an index says, and the parts that pipelines want to be told are not there."""
    names, encoders = model.conditioning.names, model.conditioning.encoders
    extra: Config = {}
    if "low_res" in names and isinstance(encoders["low_res"], Noised):
        noised = encoders["low_res"]
        config = dict(noised.config["schedule"])
        betas = {k: config[k] for k in ("beta_start", "beta_end") if k in config}
        kind = {"cosine": "squaredcos_cap_v2"}.get(config["kind"], config["kind"])
        steps = {"num_train_timesteps": config.get("steps", 1000), "beta_schedule": kind, **betas}
        if kind == "betas":
            steps = {"num_train_timesteps": len(config["betas"]), "trained_betas": config["betas"]}
        _scheduler(place, "low_res_scheduler", {"_class_name": "DDPMScheduler", **steps}, index)
        extra["max_noise_level"] = noised.most
    read = encoders["prompt"] if "prompt" in names else None
    if isinstance(read, JoinedCLIP):
        extra["force_zeros_for_empty_prompt"] = read.zeros
        if read.second is None:
            extra["requires_aesthetics_score"] = "sizes" in names
        return extra
    if "depth" in names:
        index |= {"depth_estimator": [None, None], "feature_extractor": [None, None]}
    elif not _pipeline(model).startswith("LDM"):
        index["safety_checker"] = [None, None]
        index.setdefault("feature_extractor", [None, None])
        if "low_res" not in names:
            extra["requires_safety_checker"] = False
    return extra


def used_state(encoder: CLIPText) -> tuple[dict[str, Tensor], TextTower]:
    """The weights of a tower without its unused last layers, and a tower of that depth on meta."""
    settings = encoder.tower.settings
    kept = settings.model_copy(update={"depth": settings.depth - encoder.skip})
    with without_memory():
        tower = TextTower(kept)
    state = encoder.tower.state_dict()
    return {name: state[name] for name in tower.state_dict()}, tower


def _text(encoder: CLIPText, place: Path, end: str, index: Index, cut: bool) -> None:
    state, tower = used_state(encoder) if cut else (encoder.tower.state_dict(), encoder.tower)
    config = clip_keys.text_config(tower.settings)
    written = clip_keys.to_transformers(state, tower)
    _write(place / f"text_encoder{end}", config, written, _STATES)
    index[f"text_encoder{end}"] = ["transformers", config["architectures"][0]]
    index[f"tokenizer{end}"] = ["transformers", "CLIPTokenizer"]
    data = encoder.vocabulary.cpu().numpy().tobytes()
    write_vocabulary(from_bytes(Vocabulary, data), place / f"tokenizer{end}", encoder.length)


def write_vocabulary(vocabulary: Vocabulary, folder: Path, length: int = 77) -> None:
    """Write CLIP's vocabulary as transformers reads it: vocab.json, merges.txt, and the frame."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "vocab.json", {**vocabulary.signs, **vocabulary.added})
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *vocabulary.merges, ""]))
    frame = {
        "bos_token": vocabulary.start,
        "eos_token": vocabulary.end,
        "pad_token": vocabulary.pad,
        "unk_token": vocabulary.unknown,
    }
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **frame}
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", frame)


def _pieces(encoder: LDMBert, folder: Path) -> None:
    words = from_bytes(WordPieces, encoder.vocabulary.cpu().numpy().tobytes())
    folder.mkdir()
    listed = sorted(words.pieces, key=words.pieces.__getitem__)
    write_text(folder / "vocab.txt", "\n".join(listed) + "\n")
    config = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": words.lower,
        "model_max_length": encoder.length,
    }
    write_json(folder / "tokenizer_config.json", config)


def _feature_extractor(size: int, place: Path, index: Index) -> None:
    """How pictures are brought to CLIP, as `fromnoise.encoders.clip_vision.prepared` does."""
    steps = ("resize", "center_crop", "rescale", "normalize", "convert_rgb")
    config = {
        **{f"do_{step}": True for step in steps},
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    (place / "feature_extractor").mkdir()
    write_json(place / "feature_extractor" / "preprocessor_config.json", config)
    index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]


def _codec(codec: KL | VQ, place: Path, name: str, index: Index) -> None:
    if isinstance(codec, KL):
        config, state = kl_keys.settings(codec.config), kl_keys.to_diffusers
        _write(place / name, config, state(codec.state_dict(), codec), WEIGHTS)
    else:
        config = vq_keys.settings(codec.config)
        _write(place / name, config, vq_keys.to_diffusers(codec.state_dict(), codec), WEIGHTS)
    index[name] = ["diffusers", config["_class_name"]]


def _scheduler(place: Path, name: str, config: Config, index: Index) -> None:
    (place / name).mkdir()
    write_json(place / name / SCHEDULER, {"_diffusers_version": _VERSION, **config})
    index[name] = ["diffusers", config["_class_name"]]


def _write(folder: Path, config: Config, state: Mapping[str, Tensor], start: str) -> None:
    folder.mkdir()
    write_json(folder / CONFIG, {"_diffusers_version": _VERSION, **config})
    save_tensors(folder / f"{start}.safetensors", state)
