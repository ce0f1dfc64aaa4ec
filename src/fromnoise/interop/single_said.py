"""What a single file says besides its weights: a YAML beside it, its metadata, names as marks."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fromnoise.core.config import Settings
from fromnoise.core.errors import FileError
from fromnoise.interop.diffusers_nets import Config, checked

HEADS = {"heads": "fromnoise_heads", "head_channels": "fromnoise_head_channels"}
"""In the metadata of files written here: how many heads attend, or how wide each is."""

PREDICTS = "modelspec.prediction_type"
"""In the metadata, by Stability's standard for it (ModelSpec 1.0): "epsilon" or "v"."""

_V = "v_prediction"
_PARAMETERIZATIONS = {"eps": "epsilon", "v": _V, "x0": "sample"}
_SPELLED = {"eps": "epsilon", "v": "v"}
_READ = {"epsilon": "epsilon", "v": _V, _V: _V}
# Our words for it → those of CompVis.
_HEADS = {"heads": "num_heads", "head_channels": "num_head_channels"}
_MOST_HEADS = 65_536
_Count = Annotated[int, Field(ge=1, le=_MOST_HEADS)]
# Tensors that no network has: trainers of SDXL put them in to say what it predicts, and ComfyUI
# reads them so.
_V_MARK, _ZERO_SNR_MARK = "v_pred", "ztsnr"
_EDM_MARKS = ("edm_mean", "edm_std", "edm_vpred.sigma_max")


class Said(Settings):
    """model.params of a YAML beside a file, in the words of CompVis; None is not said.

    num_heads and num_head_channels are those of unet_config.params.
    """

    parameterization: Literal["eps", "v", "x0"] | None = None
    linear_start: float | None = None
    linear_end: float | None = None
    timesteps: int | None = None
    scale_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    num_heads: _Count | None = None
    num_head_channels: _Count | None = None


def beside(path: Path) -> Said:
    """What the YAML of the same name says. Raises FileError for one that cannot be read."""
    import yaml

    place = path.with_suffix(".yaml")
    if not place.is_file():
        return Said()
    try:
        params = yaml.safe_load(place.read_text(encoding="utf-8"))["model"]["params"]
        unet = params["unet_config"]["params"] if "unet_config" in params else {}
        # There -1 stands for what is not said.
        heads = {key: unet[key] for key in _HEADS.values() if key in unet and unet[key] != -1}
        read = {key: params[key] for key in Said.model_fields if key in params} | heads
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, KeyError, TypeError) as e:
        raise FileError(f"{place} is no configuration with model: params: ({e})") from None
    said: Said = checked(Said, read, str(place))
    return said


def scheduled(said: Said) -> Config:
    """What a YAML says of the scheduler, in the words of diffusers."""
    told = {
        "beta_start": said.linear_start,
        "beta_end": said.linear_end,
        "num_train_timesteps": said.timesteps,
        "prediction_type": _PARAMETERIZATIONS.get(said.parameterization or ""),
    }
    return {key: value for key, value in told.items() if value is not None}


def attention(said: Said, metadata: Mapping[str, str], where: str) -> Config:
    """`heads` or `head_channels` of its attention, where a YAML or the file itself says them.

    Raises FileError for metadata that are no numbers.
    """
    told = {ours: getattr(said, theirs) for ours, theirs in _HEADS.items()}
    told = {ours: count for ours, count in told.items() if count is not None}
    if told:
        return told
    found = {ours: metadata[key] for ours, key in HEADS.items() if key in metadata}
    for ours, text in found.items():
        if not text.isdecimal() or not 1 <= int(text) <= _MOST_HEADS:
            raise FileError(f"{where}: {HEADS[ours]} {text[:40]!r} in its metadata is no number")
    return {ours: int(text) for ours, text in found.items()}


def marked(names: Collection[str], metadata: Mapping[str, str], where: str) -> Config:
    """What a file itself says of the scheduler, in the words of diffusers.

    A schedule that ends at no signal is visited from its end on (`trailing`), as it must be.
    Raises FileError for what is not read. Reference: Lin et al. 2023, sections 3.1 and 3.3.
    """
    edm = [mark for mark in _EDM_MARKS if mark in names]
    if edm:
        raise FileError(
            f"{where} says by its {edm[0]} that it is an EDM, whose levels are not read"
        )
    told: Config = {}
    predicts = _READ.get(metadata.get(PREDICTS, ""))
    if predicts is not None or _V_MARK in names:
        told["prediction_type"] = _V if _V_MARK in names else predicts
    if _ZERO_SNR_MARK in names:
        told |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return told


def marks(kind: str, attention: Mapping[str, Any]) -> dict[str, str]:
    """The metadata that say what a network predicts, and its heads.

    kind: the name of a parameterization. attention: of the network's configuration.
    """
    heads = "heads" if attention["head_channels"] is None else "head_channels"
    predicts = {PREDICTS: _SPELLED[kind]} if kind in _SPELLED else {}
    return predicts | {HEADS[heads]: str(attention[heads])}
