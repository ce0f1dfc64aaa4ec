"""Networks of latents as published, put together with all they need: an ordinary model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fromnoise.codecs import Codec
from fromnoise.codecs.base import Learned
from fromnoise.core.errors import FileError
from fromnoise.core.tensors import fingerprint
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import (
    Conditioning,
    Disparity,
    Encoder,
    Inpainting,
    JoinedCLIP,
    Label,
    Noised,
    PictureSizes,
)
from fromnoise.interop import diffusers_schedulers
from fromnoise.interop.diffusers_nets import Config
from fromnoise.model import Card, Model
from fromnoise.model.files import modules
from fromnoise.nets import Network
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES
from fromnoise.schedules import DiscreteSchedule

INPAINT = "inpaint"
"""The input of a model that draws a part of a picture anew."""

_SCORE = 6.0
"""How pleasing a picture of SDXL's refiner is to be."""


@dataclass(frozen=True)
class Parts:
    """All that a model of latents is made of.

    size: height and width of latents. reads: encoders of what becomes tokens, by input name.
    scheduler: as diffusers writes it. guidance: its default. low_res: the schedule of the noise in
    a small picture, and the most of its steps. depths: where a network is that finds depths.
    """

    net: Network
    size: tuple[int, int]
    codec: Codec
    reads: Mapping[str, Encoder]
    scheduler: Config
    guidance: float
    low_res: tuple[DiscreteSchedule, int] | None = None
    depths: str | None = None


def assembled(parts: Parts, family: str, where: Path) -> Model:
    """The model of these parts. where: the folder or file they come from.

    Raises FileError where they do not fit together, or a scheduler says what is not read.
    """
    net, codec = parts.net, parts.codec
    read = diffusers_schedulers.read(parts.scheduler, f"the scheduler of {where}")
    if net.out_channels != net.in_channels:
        raise FileError(
            f"{where}: its network gives {net.out_channels} channels for {net.in_channels} of "
            "latents, which is not read"
        )
    if not isinstance(codec, Learned) or codec.latent != net.in_channels:
        raise FileError(
            f"{where}: its autoencoder has {getattr(codec, 'latent', 'no')} latent channels "
            f"and its network takes {net.in_channels}"
        )
    encoders = {**parts.reads, **_others(parts, where)}
    _check(net, encoders, where)
    denoiser = NetworkDenoiser(
        net.eval(),
        PROCESSES.build(read.process),
        PARAMETERIZATIONS.build(read.parameterization),
    )
    height, width = (side * codec.factor for side in parts.size)
    model = Model(
        denoiser,
        (codec.channels, height, width),
        codec.eval(),
        Conditioning(encoders).eval(),
        replace(read.defaults, guidance=parts.guidance),
        Card(name=where.stem if where.is_file() else where.name, family=family),
    )
    model.card.summary = f"{family}, opened from {'one file' if where.is_file() else 'a folder'}."
    model.source = str(where)
    state = dict(modules(model).state_dict())
    model.fingerprint = lambda: fingerprint(state)
    return model


def _others(parts: Parts, where: Path) -> dict[str, Encoder]:
    """Encoders of what the network is told besides tokens, by what it takes."""
    accepts = parts.net.accepts
    channels, vector = dict(accepts.channels), dict(accepts.vector)
    found: dict[str, Encoder] = {}
    if "mask" in channels and "masked" in channels:
        found[INPAINT] = Inpainting(channels["masked"])
    elif "depth" in channels:
        found["depth"] = Disparity(parts.depths)
    elif "low_res" in channels and "label" in vector:
        if parts.low_res is None:
            raise FileError(f"{where} lacks the schedule of the noise in the small picture")
        schedule, most = parts.low_res
        levels = vector.pop("label")
        found["low_res"] = Noised(
            schedule, channels["low_res"], levels, min(20, most, levels - 1), most
        )
    elif channels:
        raise FileError(
            f"{where}: its network takes {sum(channels.values())} channels beside the latents, "
            f"which stand for {', '.join(channels)}; there is no such model here"
        )
    if "sizes" in vector:
        found["sizes"] = PictureSizes(_SCORE if vector["sizes"] == 5 else None)
    if "label" in vector:
        found["label"] = Label(vector["label"])
    return found


def _check(net: Network, encoders: Mapping[str, Encoder], where: Path) -> None:
    """FileError unless what the encoders give is what the network takes."""
    widths = {name: e.width for name, e in encoders.items() if e.slot == "tokens"}
    for name, width in widths.items():
        if width != net.accepts.tokens:
            raise FileError(
                f"{where}: its {name} encoder gives tokens of width {width} and its network takes "
                f"{net.accepts.tokens or 'none'}"
            )
    if net.accepts.tokens is not None and not widths:
        raise FileError(f"{where}: its network is told tokens, and nothing in it makes any")
    pooled = net.accepts.vector.get("pooled")
    given = [e.pooled for e in encoders.values() if isinstance(e, JoinedCLIP)]
    if pooled is not None and given != [pooled]:
        raise FileError(
            f"{where}: its network is told a vector of {pooled} numbers of the text, and its text "
            f"encoder gives {given[0] if given else 'none'}"
        )
