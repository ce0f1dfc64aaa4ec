"""One autoencoder by itself, to stand in place of a model's own: a folder, a file, a model's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fromnoise.codecs import CODECS, KL, Codec
from fromnoise.codecs.vq import VQ
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import read_header, read_json, refuse_pickle
from fromnoise.interop import compvis_autoencoder as compvis
from fromnoise.interop import diffusers_folder, latent_folder
from fromnoise.interop.diffusers_folder import AUTOENCODER, CONFIG
from fromnoise.interop.loading import load
from fromnoise.interop.unet2d_keys import modern
from fromnoise.model.files import fill

_GROUPS = 32
SCALING = 0.18215
CODED = (AUTOENCODER, "VQModel")
# Of a whole model in one file only the autoencoder is read.
_ELSEWHERE = ("model.", "cond_stage_model.", "conditioner.")


def open_autoencoder(source: str | Path, scaling: float = SCALING) -> Codec:
    """The codec at a path, or of a model by its name.

    source: a folder that diffusers wrote, of an autoencoder or of a pipeline with one inside; a
    safetensors file with the weights of one, alone or in a whole model, under the names of
    diffusers or of CompVis; or any model that `load` opens and that has one. scaling: of the
    latents, which a file does not say; what else it does not say is as in Stable Diffusion. A
    config.json beside a file is heeded.
    Raises FileError for what is not there, damaged, a pickle, or of another network, UsageError for
    a model without an autoencoder.
    """
    path = Path(source)
    if path.is_file():
        return _file(path, scaling)
    for folder in (path, path / "vae", path / "vqvae"):
        if (folder / CONFIG).is_file() and _class(folder / CONFIG) in CODED:
            return latent_folder.open_codec(folder)
    model = load(source)
    if next(model.codec.parameters(), None) is None:
        raise UsageError(f"{source} draws pixels and has no autoencoder; name one that has")
    return model.codec


def _file(path: Path, scaling: float) -> Codec:
    refuse_pickle(path)
    beside = path.parent / CONFIG
    if beside.is_file() and _class(beside) == AUTOENCODER:
        raw = read_json(beside, finite=False)
        return diffusers_folder.autoencoder_of(raw, diffusers_folder.file_tensors(path), path)
    names = read_header(path).shapes
    if any("encoder.down_blocks." in name for name in names):
        tensors = diffusers_folder.file_tensors(path)
        return diffusers_folder.autoencoder_of(_settings(tensors, path, scaling), tensors, path)
    where = str(path)
    state = compvis.autoencoder_weights(
        diffusers_folder.file_tensors(path, lambda name: not name.startswith(_ELSEWHERE)), where
    )
    config = compvis.autoencoder_config(state, where, scaling)
    codec: KL | VQ = diffusers_folder.built(config, where, CODECS)
    fill(codec, compvis.autoencoder_to_ours(state, codec), path, assign=True)
    return codec.eval()


def _class(path: Path) -> Any:
    raw = read_json(path, finite=False)
    return raw.get("_class_name") if isinstance(raw, dict) else None


def _settings(tensors: Mapping[str, Tensor], path: Path, scaling: float) -> dict[str, Any]:
    """The configuration of an `AutoencoderKL` by the shapes of its weights."""
    shapes = {modern(name): tuple(value.shape) for name, value in tensors.items()}
    try:
        widths = _widths(shapes)
        latent, channels = shapes["decoder.conv_in.weight"][1], shapes["encoder.conv_in.weight"][1]
    except KeyError as error:
        raise FileError(
            f"{path} holds no autoencoder of diffusers: {error.args[0]} is missing; give the "
            "folder of one, or convert the file first"
        ) from None
    blocks = sum(
        name.startswith("encoder.down_blocks.0.resnets.") and name.endswith(".conv1.weight")
        for name in shapes
    )
    return {
        "_class_name": AUTOENCODER,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "latent_channels": latent,
        "norm_num_groups": _GROUPS,
        "scaling_factor": scaling,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def _widths(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """The channels of each level of the encoder."""
    start, end = "encoder.down_blocks.", ".resnets.0.conv1.weight"
    levels = [name for name in shapes if name.startswith(start) and name.endswith(end)]
    if not levels:
        raise KeyError(f"{start}0{end}")
    return [shapes[f"{start}{i}{end}"][0] for i in range(len(levels))]
