"""From one format to another: what is read, what it becomes, and what was said on the way."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fromnoise.codecs import Identity
from fromnoise.codecs.base import Learned
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import (
    check_folder,
    check_own_file,
    load_tensors,
    read_header,
    save_tensors,
    sha256,
)
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.interop import foreign
from fromnoise.interop.diffusers_folder import as_stored
from fromnoise.interop.loading import load
from fromnoise.interop.networks import is_network, load_network, save_network
from fromnoise.interop.published import (
    MODELS,
    Program,
    Published,
    from_command_line,
    published,
)
from fromnoise.interop.single_file import is_single, open_single, recognised, wanted
from fromnoise.interop.single_file_export import export_single
from fromnoise.model import Card, Model
from fromnoise.nets import DiT, Network
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES

_PROGRAMS: dict[str, Program] = {
    "guided-diffusion": "guided-diffusion",
    "score-sde": "score-sde",
    "dit": "dit",
}
_ORDER = "fromnoise_order"
_SINGLE = "single-file"
_AS_STORED = ("diffusers", _SINGLE)
"""Formats that keep the types of the weights as they were read."""


@dataclass
class Report:
    """What a conversion did: the JSON of `--report`."""

    source: str
    sha256: str | None = None
    to: str = ""
    out: str = ""
    preset: str | None = None
    program: str | None = None
    wrapper: str | None = None
    weights: str | None = None
    tensors: int = 0
    placed: int = 0
    missing: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    misshapen: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: bool = False

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def faults(self) -> list[str]:
        """One line for each name without its place."""
        return self._placement().faults()

    def compared(self, placement: foreign.Placement) -> None:
        """Keep how names and shapes compared."""
        for name, value in asdict(placement).items():
            setattr(self, name, value)

    def _placement(self) -> foreign.Placement:
        return foreign.Placement(
            self.placed, self.missing, self.unplaced, self.misshapen, self.ignored
        )


@dataclass(frozen=True)
class Choice:
    """Which published model a file holds: by name, by its command line, or by its shapes."""

    preset: str | None = None
    flags: str | None = None

    def model(self, found: Mapping[str, tuple[int, ...]]) -> Published:
        """The model. UsageError when neither says it and the shapes do not."""
        if self.preset is not None and self.flags is not None:
            raise UsageError("give --preset or --flags, not both")
        if self.flags is not None:
            return from_command_line(self.flags)
        if self.preset is not None:
            return published(self.preset)
        return foreign.recognise(found)


@dataclass(frozen=True)
class Opened:
    """What was read: a network, with its model where it is one, and the order its file had."""

    network: Network
    model: Model | None
    published: Published | None

    def whole(self) -> Model:
        """The model. UsageError when there is only a network."""
        if self.model is None:
            why = self.published.why_not if self.published else "it is a network only"
            raise UsageError(f"this cannot become a model: {why}; use --to network")
        return self.model


def open_source(path: Path, choice: Choice, report: Report) -> Opened:
    """Open what is to be converted: what `load` opens, a network, or weights of another program.

    Raises FileError when something in it has no place; the report then says what.
    """
    if not path.is_file():
        with as_stored() if report.to in _AS_STORED else nullcontext():
            return _of_model(load(report.source if not path.exists() else path), choice)
    header = read_header(path)
    report.tensors = len(header.shapes)
    if is_single(header.shapes):
        with as_stored() if report.to in _AS_STORED else nullcontext():
            return _single(path, choice, report)
    if is_network(path):
        return Opened(load_network(path), None, None)
    found = foreign.stripped(header.shapes)
    model = _ordered(choice.model(found), header.metadata.get(_ORDER), path)
    report.preset, report.program = model.name, model.program
    report.compared(foreign.compare(found, model))
    if report.faults():
        raise FileError(_fault(report, model))
    state, _ = load_tensors(path)
    network = foreign.to_network(foreign.stripped(state), model)
    built = None if model.why_not else assembled(network, model, _ancestor(report))
    return Opened(network, built, model)


def _single(path: Path, choice: Choice, report: Report) -> Opened:
    """The model of a single file, and what in the file is not of it."""
    opened = _of_model(open_single(path), choice)
    names = read_header(path).shapes
    kept = wanted(recognised(path).family)
    report.ignored = [name for name in names if not kept(name)]
    report.placed = len(names) - len(report.ignored)
    return opened


def _ordered(model: Published, order: str | None, path: Path) -> Published:
    """The model with the order of attention that a file written here says it has."""
    match order:
        case None:
            return model
        case "legacy" | "new":
            return replace(model, order=order)
    raise FileError(f"{path} says its attention is in the order {order[:40]!r}; that is no order")


def _of_model(model: Model, choice: Choice) -> Opened:
    if choice.preset or choice.flags:
        raise UsageError("--preset and --flags are for weights of other programs; leave them out")
    made = published(model.card.name) if model.card.name in MODELS else None
    return Opened(model.denoiser.net, model, made)


def _fault(report: Report, model: Published) -> str:
    lines = report.faults()
    shown = "; ".join(lines[:4]) + (f"; and {len(lines) - 4} more" if len(lines) > 4 else "")
    strange = foreign.other_program(dict.fromkeys(report.unplaced))
    return f"these weights are not {model.name}: {strange or shown}"


def _ancestor(report: Report) -> dict[str, Any]:
    """The file a model was converted from, in the words of a card."""
    return {
        "name": report.preset,
        "source": Path(report.source).name,
        "sha256": report.sha256,
        "weights": report.weights,
    }


def assembled(network: Network, made: Published, ancestor: dict[str, Any]) -> Model:
    """The model of a published network: its process, its reading, its classes, its ancestry."""
    if made.diffusion is None:
        raise UsageError(f"{made.name} is no model: {made.why_not}")
    diffusion = made.diffusion
    denoiser = NetworkDenoiser(
        network,
        PROCESSES.build(diffusion.process),
        PARAMETERIZATIONS.build(diffusion.parameterization),
        diffusion.learned_variance,
    )
    told = {
        name: {"kind": "label", "classes": width} for name, width in network.accepts.vector.items()
    }
    classes = [str(i) for width in network.accepts.vector.values() for i in range(width)]
    return Model(
        denoiser,
        (network.in_channels, made.size, made.size),
        Identity(),
        Conditioning.build(told),
        diffusion.defaults,
        Card(name=made.name, classes=classes, ancestry=[ancestor]),
    )


def write_target(opened: Opened, to: str, out: Path, report: Report, half: bool = False) -> None:
    """Write what was opened in a format, whole or not at all; notes go to the report.

    half: a model folder with weights rounded to bfloat16.
    Raises UsageError for a format this network or model cannot have.
    """
    if half and to != "fromnoise":
        raise UsageError(f"--half is for a model folder (--to fromnoise), not for {to}")
    about = {"source": Path(report.source).name, "source_sha256": str(report.sha256 or "")}
    if to in _PROGRAMS:
        order = opened.published.order if opened.published else "legacy"
        state = foreign.to_foreign(opened.network, _PROGRAMS[to], order)
        mark = {_ORDER: order} if to == "guided-diffusion" else {}
        save_tensors(check_own_file(out), state, {**about, **mark})
    elif to == "fromnoise":
        opened.whole().save(check_folder(out), half)
    elif to == _SINGLE:
        report.notes += export_single(opened.whole(), check_own_file(out), about)
    elif to == "network":
        save_network(check_own_file(out), opened.network, about)
    else:
        report.notes += _FOLDERS[to](opened.whole(), check_folder(out))
    report.written = True


def _diffusers(model: Model, out: Path) -> list[str]:
    from fromnoise.interop.diffusers_export import export_diffusers
    from fromnoise.interop.latent_export import export_latent

    latents = isinstance(model.codec, Learned) and not isinstance(model.denoiser.net, DiT)
    return export_latent(model, out) if latents else export_diffusers(model, out)


def _onnx(model: Model, out: Path) -> list[str]:
    from fromnoise.interop.onnx_export import export_onnx

    return export_onnx(model, out)


def _torch_export(model: Model, out: Path) -> list[str]:
    from fromnoise.interop.torch_export import export_program

    return export_program(model, out)


_FOLDERS: dict[str, Callable[[Model, Path], list[str]]] = {
    "diffusers": _diffusers,
    "onnx": _onnx,
    "torch-export": _torch_export,
}


def fingerprinted(path: Path) -> str | None:
    """The SHA-256 of a file; None for a folder or a name."""
    return sha256(path) if path.is_file() else None
