"""Opening what diffusers writes: the folder of a pipeline, or of one network.

Nothing in it is executed: of the classes its JSON names, those listed here are read, and weights
only from safetensors files.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise.codecs import CODECS, KL, Codec, Identity
from fromnoise.core.config import Kinds
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import read_header, read_json
from fromnoise.core.meta import without_memory
from fromnoise.core.tensorread import every, none, read_tensors
from fromnoise.core.tensors import fingerprint
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.interop import diffusers_nets, diffusers_schedulers, dit_keys, kl_keys, unet2d_keys
from fromnoise.interop.diffusers_nets import Config
from fromnoise.model import Card, Model
from fromnoise.model.files import fill, modules
from fromnoise.nets import NETS
from fromnoise.nets.base import Network
from fromnoise.nets.dit import DiT
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES

INDEX = "model_index.json"
CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model"

PIPELINES = {
    "DDPMPipeline": ("unet", None),
    "DDIMPipeline": ("unet", "DDIMScheduler"),
    "PNDMPipeline": ("unet", "PNDMScheduler"),
    "DiTPipeline": ("transformer", None),
}
"""Classes by name → what each calls its network, and the scheduler it makes of any."""

_UNETS = ("UNet2DModel",)
_TRANSFORMERS = ("DiTTransformer2DModel", "Transformer2DModel")
_VAE = "vae"
AUTOENCODER = "AutoencoderKL"
_DIT_GUIDANCE = 4.0
_SHAPES_ONLY: ContextVar[bool] = ContextVar("shapes_only", default=False)
_AS_STORED: ContextVar[bool] = ContextVar("as_stored", default=False)


@dataclass(frozen=True)
class Opened:
    """A network with its weights, and the size of what it takes."""

    net: Network
    size: tuple[int, int]
    classes: int


def is_network(folder: Path) -> bool:
    """Whether a folder holds a network of diffusers."""
    path = folder / CONFIG
    return path.is_file() and "_class_name" in json_object(path)


def open_pipeline(folder: Path) -> Model:
    """The model of a pipeline folder whose class is among `PIPELINES`.

    Raises FileError naming the file and the key for an option there is nothing here for, and
    weights that are missing, damaged, pickled or of another network.
    """
    index = json_object(folder / INDEX)
    part, scheduler = PIPELINES[str(index.get("_class_name"))]
    config = json_object(_part(folder, "scheduler") / SCHEDULER)
    if scheduler is not None:
        config["_class_name"] = scheduler
    opened = _network(_part(folder, part))
    codec = _codec(folder, index)
    names = _names(index.get("id2label"), opened.classes)
    return _model(folder, opened, config, codec, names)


def open_network(folder: Path) -> Model:
    """The model of a folder with one network, sampled as the scheduler beside it says.

    The scheduler may lie in the folder, or in `scheduler` beside or inside it. Where there is none,
    DDPM's own is taken: 1000 steps, β from 1e-4 to 0.02, ε-prediction. Raises as `open_pipeline`.
    """
    opened = _network(folder)
    places = (folder, folder / "scheduler", folder.parent / "scheduler")
    found = next((place for place in places if (place / SCHEDULER).is_file()), None)
    config = {"_class_name": "DDPMScheduler"} if found is None else json_object(found / SCHEDULER)
    return _model(folder, opened, config, Identity(), _names(None, opened.classes))


def weights(folder: Path, start: str = WEIGHTS) -> dict[str, Tensor]:
    """The tensors of a network's folder in float32: one file or several, of any variant.

    start: of the files' names, which those of encoders have of their own. The plain file is taken
    before a variant (.fp16.). Raises FileError when there is none, when there are only pickles, or
    when an index names a file that is not one beside it.
    """
    single = sorted(folder.glob(f"{start}*.safetensors"), key=lambda path: len(path.name))
    single = [path for path in single if "-of-" not in path.name]
    sharded = sorted(folder.glob(f"{start}*.index*.json"), key=lambda path: len(path.name))
    sharded = [path for path in sharded if ".safetensors" in path.name]
    plain = [path for path in single if path.name == f"{start}.safetensors"]
    mapped = every if start == WEIGHTS else none
    if plain or (single and not sharded):
        return file_tensors((plain or single)[0], mapped=mapped)
    if sharded:
        return _shards(sharded[0], mapped)
    raise _no_weights(folder, start)


def shapes_only() -> AbstractContextManager[None]:
    """Within it, what is opened has the shapes of its weights, on the meta device, and no more."""
    return _set(_SHAPES_ONLY)


def file_tensors(
    path: Path,
    wanted: Callable[[str], bool] = every,
    mapped: Callable[[str], bool] = every,
) -> dict[str, Tensor]:
    """The tensors of a file in float32; see `read_tensors`.

    wanted: of which names. mapped: which may stay in the file; not those of encoders, which are
    computed with where they stand, while `layers.fast` lays the others out anew. Within
    `shapes_only` they are on the meta device, and within `as_stored` they keep the types of the
    file.
    """
    if not _SHAPES_ONLY.get():
        return read_tensors(path, None if _AS_STORED.get() else torch.float32, wanted, mapped)
    shapes = read_header(path).shapes
    return {n: torch.empty(shape, device="meta") for n, shape in shapes.items() if wanted(n)}


def as_stored() -> AbstractContextManager[None]:
    """Within it, what is opened has weights of the types of its files: to be written, not run."""
    return _set(_AS_STORED)


def kept_as_stored() -> bool:
    """Whether what is opened now is to be written, so that nothing in it may be lost."""
    return _AS_STORED.get()


@contextmanager
def _set(flag: ContextVar[bool]) -> Iterator[None]:
    token = flag.set(True)
    try:
        yield
    finally:
        flag.reset(token)


def _shards(index: Path, mapped: Callable[[str], bool]) -> dict[str, Tensor]:
    listed = json_object(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
        raise FileError(f"{index} has no weight_map of files by name; the file is damaged")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(listed.values())):
        # The name comes from a file: it must stay beside it.
        if Path(file).name != file or "\\" in file or not file.endswith(".safetensors"):
            raise FileError(f"{index} names {file!r}, which is no safetensors file beside it")
        tensors.update(file_tensors(index.parent / file, mapped=mapped))
    missing = sorted(listed.keys() - tensors.keys())
    if missing:
        raise FileError(f"{index} lists {missing[0]!r}, which {listed[missing[0]]} does not hold")
    return tensors


def _no_weights(folder: Path, start: str) -> FileError:
    pickles = sorted(folder.glob(f"{start}*.bin"))
    if not pickles:
        return FileError(f"{folder} holds no weights: there is no {start}.safetensors")
    wanted = pickles[0].parent / f"{start}.safetensors"
    return FileError(
        f"{pickles[0]} is a pickle; it can run code when opened and is never loaded. Ask for a "
        "safetensors file, or read it as data in a process of its own: `fromnoise convert "
        f"--from-pickle {pickles[0]} {wanted}`"
    )


def _part(folder: Path, name: str) -> Path:
    """The folder of a part of a pipeline; the first pipelines had all in one folder."""
    inside = folder / name
    return inside if inside.is_dir() else folder


def whole_of(folder: Path) -> str:
    """What is said of a folder that is one part of a pipeline; nothing of any other."""
    whole = folder.parent
    if not (whole / INDEX).is_file():
        return ""
    return f" by itself; it is a part of the pipeline in {whole}: give that folder"


def _network(folder: Path) -> Opened:
    path = folder / CONFIG
    raw = json_object(path)
    name = raw.get("_class_name")
    where = str(path)
    size: tuple[int, int] | None
    if name in _UNETS:
        config, size = diffusers_nets.unet(raw, where)
    elif name in _TRANSFORMERS:
        config, size = diffusers_nets.dit(raw, where)
    else:
        known = ", ".join((*_UNETS, *_TRANSFORMERS))
        raise FileError(
            f"{where}: the network {name} is not read"
            + (whole_of(folder) or f"; these are: {known}")
        )
    if size is None:
        raise FileError(f"{where}: sample_size is missing, so the size of a picture is not known")
    ins, outs = config["in_channels"], config["out_channels"]
    if outs not in (ins, 2 * ins):
        raise FileError(
            f"{where}: out_channels {outs} is neither in_channels {ins} nor, with a learned "
            "variance, twice that"
        )
    net: Network = built(config, where)
    tensors = weights(folder)
    ours = (
        dit_keys.from_diffusers(tensors, net)
        if isinstance(net, DiT)
        else unet2d_keys.to_ours(tensors)
    )
    fill(net, ours, folder, assign=True)
    return Opened(net.eval(), size, int(net.accepts.vector.get("label", 0)))


def built(config: Config, where: str, table: Kinds = NETS) -> Any:
    """What a configuration describes on the meta device: no memory until its weights are there."""
    try:
        with without_memory():
            return table.build(config)
    except FileError:
        raise
    except UsageError as error:
        raise FileError(f"{where}: {error}") from None


def _codec(folder: Path, index: Mapping[str, Any]) -> Codec:
    """What a pipeline decodes with: its autoencoder, or nothing where it has none."""
    if _VAE not in index or index[_VAE] == [None, None]:
        return Identity()
    return open_autoencoder(folder / _VAE)


def open_autoencoder(folder: Path) -> Codec:
    """The codec in a folder with one autoencoder of diffusers. Raises as `open_pipeline`."""
    path = folder / CONFIG
    raw = json_object(path)
    if raw.get("_class_name") != AUTOENCODER:
        raise FileError(f"{path}: {raw.get('_class_name')} is not read; {AUTOENCODER} is")
    return autoencoder_of(raw, weights(folder), path)


def autoencoder_of(raw: Config, tensors: dict[str, Tensor], path: Path) -> Codec:
    """The codec that a configuration of diffusers describes, with these weights in it.

    path: of the configuration or the weights, for errors. Raises as `open_pipeline`.
    """
    codec: KL = built(kl_keys.config(raw, str(path)), str(path), CODECS)
    fill(codec, kl_keys.to_ours(tensors, codec), path, assign=True)
    return codec.eval()


def _model(
    folder: Path, opened: Opened, scheduler: Config, codec: Codec, names: list[str]
) -> Model:
    read = diffusers_schedulers.read(scheduler, str(folder / SCHEDULER))
    net = opened.net
    learned = net.out_channels == 2 * net.in_channels
    if read.defaults.sampler == "ddpm_learned" and not learned:
        raise FileError(
            f"{folder / SCHEDULER}: variance_type learned_range, but the network gives "
            f"{net.out_channels} channels and no variance"
        )
    denoiser = NetworkDenoiser(
        net,
        PROCESSES.build(read.process),
        PARAMETERIZATIONS.build(read.parameterization),
        learned,
    )
    defaults = read.defaults
    if isinstance(net, DiT):
        defaults = replace(defaults, guidance=_DIT_GUIDANCE)
    model = Model(
        denoiser,
        _shape(net, opened.size, codec),
        codec,
        Conditioning({"label": Label(names)} if names else {}),
        defaults,
        Card(name=folder.name, summary="Opened from a folder of diffusers.", classes=names),
    )
    model.source = str(folder)
    if not _SHAPES_ONLY.get():
        model.fingerprint = fingerprint(dict(modules(model).state_dict()))
    return model


def _shape(net: Network, size: tuple[int, int], codec: Codec) -> tuple[int, int, int]:
    """Of one picture, from the size of what the network takes."""
    if not isinstance(codec, KL):
        return (net.in_channels, *size)
    if codec.latent != net.in_channels:
        raise FileError(
            f"the autoencoder has {codec.latent} latent channels and the network takes "
            f"{net.in_channels}"
        )
    return (codec.decoder.leave.out_channels, size[0] * codec.factor, size[1] * codec.factor)


def _names(given: Any, classes: int) -> list[str]:
    """A name for each class: the first of `id2label`'s, made different where two are alike."""
    listed = given if isinstance(given, dict) else {}
    names: list[str] = []
    for index in range(classes):
        name = str(listed.get(str(index), index)).partition(",")[0].strip()
        names.append(f"{name} ({index})" if name in names else name)
    return names


def json_object(path: Path) -> Config:
    """The object in a JSON file. FileError for anything else."""
    # Some schedulers are written with an infinity among their options.
    value = read_json(path, finite=False)
    if not isinstance(value, dict):
        raise FileError(f"{path} is not a JSON object; the file is damaged")
    return value
