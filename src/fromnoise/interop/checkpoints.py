"""Which of the values in a checkpoint are the weights: the wrappers trainers put around them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from fromnoise.interop.pickle_data import RefusedError, TensorView

Which = Literal["auto", "ema", "model"]
Tensors = dict[str, TensorView]

_MAX_DEPTH = 16
_MAX_TENSORS = 100_000
_MOST_VALUES = 1_000_000
_MAX_CONFIG = 1_000_000


@dataclass(frozen=True)
class Found:
    """The weights of a checkpoint: their wrapper's name, which they are, and what is said of them.

    notes: what the file says of itself in plain values: steps, a configuration as JSON.
    """

    wrapper: str
    which: str
    tensors: Tensors
    notes: dict[str, str] = field(default_factory=dict)


def find(value: Any, which: Which = "auto") -> Found:
    """The weights in what a file holds: of an average of them if there is one, unless "model".

    Raises RefusedError when there are none, or not the ones asked for.
    """
    if type(value) is not dict:
        raise RefusedError(f"a {type(value).__name__}, not a dictionary of weights")
    for wrapper, fits, parts in _WRAPPERS:
        if fits(value):
            return _choose(wrapper, parts(value), which, _notes(value))
    tensors = flat(value)
    if not tensors:
        raise RefusedError("a file without weights")
    return _choose("none", {"model": tensors}, which, _notes(value))


def flat(value: Any) -> Tensors:
    """Nested dictionaries of tensors as one, names joined by dots; the rest is left out."""
    tensors: Tensors = {}
    for name, inner in _walk(value):
        if name in tensors:
            raise RefusedError(f"two tensors of the name {name[:80]!r}")
        if any(ord(c) < 32 for c in name) or name == "__metadata__" or len(tensors) >= _MAX_TENSORS:
            raise RefusedError(f"a tensor with the name {name[:80]!r}, or too many of them")
        tensors[name] = inner
    return tensors


def _walk(value: Any) -> Iterator[tuple[str, TensorView]]:
    """The tensors in order, with their names. Dictionaries that hold one another are bounded."""
    levels = [("", iter(value.items()))]
    for _ in range(_MOST_VALUES):
        if not levels:
            return
        prefix, items = levels[-1]
        pair = next(items, None)
        if pair is None:
            levels.pop()
            continue
        name, inner = f"{prefix}{pair[0]}", pair[1]
        if type(inner) is TensorView:
            yield name, inner
        elif type(inner) is dict:
            levels.append((f"{name}.", iter(inner.items())))
        if len(levels) > _MAX_DEPTH:
            raise RefusedError(f"dictionaries nested deeper than {_MAX_DEPTH}")
    raise RefusedError("dictionaries that hold one another many times over")


def _choose(wrapper: str, parts: dict[str, Tensors], which: Which, notes: dict[str, str]) -> Found:
    wanted = which if which != "auto" else "ema" if parts.get("ema") else "model"
    tensors = parts.get(wanted)
    if not tensors:
        held = " and ".join(name for name, part in parts.items() if part) or "none"
        raise RefusedError(f"a file without {wanted} weights; it holds {held}")
    return Found(wrapper, wanted, tensors, notes)


def _notes(value: dict[Any, Any]) -> dict[str, str]:
    notes = {}
    for key in ("step", "epoch", "iteration", "global_step", "version", "train_steps"):
        said = value.get(key)
        if type(said) is int or type(said) is str or (type(said) is float and isfinite(said)):
            notes[key] = str(said)[:100]
    if type(value.get("config")) is dict:
        try:
            text = json.dumps(value["config"], allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return notes
        if len(text) < _MAX_CONFIG:
            notes["config"] = text
    return notes


def _is_score_sde(value: dict[Any, Any]) -> bool:
    ema = value.get("ema")
    return type(ema) is dict and "shadow_params" in ema and type(value.get("model")) is dict


def _score_sde(value: dict[Any, Any]) -> dict[str, Tensors]:
    """Its average is a list in the order of the parameters that train, without their names.

    The noise levels and the Fourier frequencies do not train, so the list lacks them.
    """
    model = flat(value["model"])
    shadow = value["ema"]["shadow_params"]
    if type(shadow) is not list or not all(type(view) is TensorView for view in shadow):
        raise RefusedError("a score_sde checkpoint whose average is not a list of tensors")
    trained = [name for name in model if not name.endswith(("sigmas", "all_modules.0.W"))]
    same = len(trained) == len(shadow) and all(
        model[name].shape == view.shape for name, view in zip(trained, shadow, strict=True)
    )
    if not same:
        raise RefusedError("a score_sde checkpoint whose average does not fit its parameters")
    return {"model": model, "ema": model | dict(zip(trained, shadow, strict=True))}


def _is_k_diffusion(value: dict[Any, Any]) -> bool:
    return type(value.get("model")) is dict and type(value.get("model_ema")) is dict


def _k_diffusion(value: dict[Any, Any]) -> dict[str, Tensors]:
    return {"model": flat(value["model"]), "ema": flat(value["model_ema"])}


def _is_lucidrains(value: dict[Any, Any]) -> bool:
    ema = value.get("ema")
    return type(ema) is dict and "initted" in ema and type(value.get("model")) is dict


def _lucidrains(value: dict[Any, Any]) -> dict[str, Tensors]:
    ema = {
        name.removeprefix("ema_model."): view
        for name, view in flat(value["ema"]).items()
        if name.startswith("ema_model.")
    }
    return {"model": flat(value["model"]), "ema": ema}


def _is_plain(value: dict[Any, Any]) -> bool:
    return any(type(value.get(key)) is dict for key in ("state_dict", "model", "ema"))


def _plain(value: dict[Any, Any]) -> dict[str, Tensors]:
    """`state_dict` or `model`, and perhaps `ema`, as most trainers have it (DiT among them)."""
    for key in ("model", "state_dict"):
        if type(value.get(key)) is dict:
            return {"model": flat(value[key]), "ema": flat(value.get("ema") or {})}
    return {"ema": flat(value["ema"])}


_WRAPPERS: tuple[
    tuple[str, Callable[[dict[Any, Any]], bool], Callable[[dict[Any, Any]], dict[str, Tensors]]],
    ...,
] = (
    ("score_sde", _is_score_sde, _score_sde),
    ("k-diffusion", _is_k_diffusion, _k_diffusion),
    ("denoising-diffusion-pytorch", _is_lucidrains, _lucidrains),
    ("plain", _is_plain, _plain),
)
