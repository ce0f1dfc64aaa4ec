"""Weights of other programs placed in a network of ours: recognised, compared, read; and written.

Every name and shape is compared before a tensor moves, and what has no place is named.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import Tensor

from fromnoise import nets
from fromnoise.core.errors import FileError, UsageError
from fromnoise.interop import dit_keys, guided_diffusion_keys, score_sde_keys
from fromnoise.interop.layout import Entry, Order, read, write
from fromnoise.interop.published import MODELS, Program, Published, published
from fromnoise.nets import Classifier, DiT, Network, UNet

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Placement:
    """How names and shapes compare with those of a network: all empty when everything has a place.

    missing: the network needs them. unplaced: it has no place for them. misshapen: name → the two
    shapes. ignored: constants of a training run that are no weights.
    """

    placed: int
    missing: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    misshapen: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether everything has its place."""
        return not (self.missing or self.unplaced or self.misshapen)

    def faults(self) -> list[str]:
        """One line for each name that is missing, has no place, or another shape."""
        lines = [f"missing: {name}" for name in self.missing]
        lines += [f"no place for: {name}" for name in self.unplaced]
        return lines + [f"another shape: {name}: {said}" for name, said in self.misshapen.items()]


def entries(network: Network, program: Program, order: Order) -> list[Entry]:
    """The names of a network's parameters here and in a program's files.

    Raises UsageError when the program has no networks of this kind.
    """
    kinds: dict[str, tuple[type, ...]] = {
        "guided-diffusion": (UNet, Classifier),
        "score-sde": (UNet,),
        "dit": (DiT,),
    }
    if not isinstance(network, kinds[program]):
        raise UsageError(f"{program} has no names for a {type(network).__name__}")
    tables: dict[str, Callable[[], list[Entry]]] = {
        "guided-diffusion": partial(
            guided_diffusion_keys.table, cast(UNet | Classifier, network), order
        ),
        "score-sde": partial(score_sde_keys.table, cast(UNet, network)),
        "dit": partial(dit_keys.table, cast(DiT, network)),
    }
    return tables[program]()


def shapes(model: Published) -> Shapes:
    """Names and shapes in the file of a published model."""
    network = nets.build(model.net, device="meta")
    theirs = write(entries(network, model.program, model.order), network.state_dict())
    return {name: tuple(value.shape) for name, value in theirs.items()}


def compare(found: Mapping[str, tuple[int, ...]], model: Published) -> Placement:
    """Compare the names and shapes of a file with those of a published model."""
    wanted = shapes(model)
    ignored = [n for n in found if n in _ignored(model.program) and n not in wanted]
    misshapen = {
        name: f"{found[name]} where {shape} is needed"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    }
    missing = [name for name in wanted if name not in found]
    return Placement(
        len(wanted) - len(misshapen) - len(missing),
        missing,
        [name for name in found if name not in wanted and name not in ignored],
        misshapen,
        ignored,
    )


def recognise(found: Mapping[str, tuple[int, ...]]) -> Published:
    """The published model that has just these names and shapes.

    Raises UsageError when none or several have, and names the program where the file is of one
    whose networks are not ours.
    """
    strange = other_program(found)
    if strange:
        raise UsageError(strange)
    near = [model for model in (published(name) for name in MODELS) if _resembles(found, model)]
    fits = [model.name for model in near if compare(found, model).whole]
    if len(fits) == 1:
        return published(fits[0])
    if fits:
        raise UsageError(
            f"these weights have the shapes of {' and '.join(fits)}, which differ elsewhere; "
            f"say which with --preset {fits[0]}"
        )
    raise UsageError(
        "these weights are of no published model; give --flags with the command line it was "
        "trained with (guided-diffusion, improved-diffusion), or --preset with the nearest to "
        "see what differs"
    )


def stripped(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names without what wrappers put before all of them (`module.`, `_orig_mod.`)."""
    for prefix in ("module.", "_orig_mod."):
        if state and all(name.startswith(prefix) for name in state):
            return stripped({n.removeprefix(prefix): value for n, value in state.items()})
    return dict(state)


def to_network(state: Mapping[str, Tensor], model: Published) -> Network:
    """The network of a published model with these weights in it, in float32.

    Raises FileError when something has no place or is missing.
    """
    network = nets.build(model.net, device="meta")
    table = entries(network, model.program, model.order)
    ours = read(table, state, _ignored(model.program))
    wide = {
        name: value.float() if value.is_floating_point() else value for name, value in ours.items()
    }
    network.load_state_dict(wide, assign=True)
    if any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers())):
        raise FileError(f"the weights of {model.name} are not all in this file")
    return network.requires_grad_(True).eval()


def to_foreign(network: Network, program: Program, order: Order) -> dict[str, Tensor]:
    """A network's weights under a program's names: the inverse of `to_network`, bit for bit."""
    return write(entries(network, program, order), network.state_dict())


def _ignored(program: Program) -> tuple[str, ...]:
    return score_sde_keys.IGNORED if program == "score-sde" else ()


def _resembles(found: Mapping[str, tuple[int, ...]], model: Published) -> bool:
    """Whether the first layers fit; it spares building every network there is."""
    net = model.net
    match model.program:
        case "guided-diffusion":
            told = net.get("accepts", {})
            into = net["in_channels"] + sum(told.get("channels", {}).values())
            first = int(net["channels"] * net["multipliers"][0])
            is_classifier = net["kind"] == "classifier"
            return (
                found.get("input_blocks.0.0.weight") == (first, into, 3, 3)
                and found.get("time_embed.0.bias") == (4 * net["channels"],)
                and ("out.2.positional_embedding" in found) == is_classifier
                and ("label_emb.weight" in found) == bool(told.get("vector"))
            )
        case "dit":
            side = (net["width"], net["in_channels"], net["patch"], net["patch"])
            return found.get("x_embedder.proj.weight") == side
        case "score-sde":
            return "all_modules.1.weight" in found


_NOT_OURS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "denoising-diffusion-pytorch",
        ("init_conv.weight", "time_mlp.1.weight", "final_res_block.block1.proj.weight"),
        "its blocks normalise after the convolution, standardise weights and attend linearly, "
        "which this U-Net does not",
    ),
    (
        "k-diffusion's image_v1",
        ("timestep_embed.weight", "mapping.0.weight", "proj_in.weight"),
        "its blocks have GELU and norms whose scale is told the noise level, which this U-Net "
        "does not",
    ),
    (
        "k-diffusion's image_transformer",
        ("time_emb.weight", "time_in_proj.weight"),
        "it is an hourglass transformer, for which there is no network here",
    ),
)


def other_program(found: Mapping[str, Any]) -> str:
    """Why the weights of a known program cannot be placed here, or nothing."""
    for program, marks, why in _NOT_OURS:
        if all(any(name.endswith(mark) for name in found) for mark in marks):
            return (
                f"these weights are of {program}: {why}. They can be taken out of their pickle "
                "(--to safetensors), but not made a model"
            )
    return ""
