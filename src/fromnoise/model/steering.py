"""What a call of `sample` asks of guidance, checked against what the model can be told."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fromnoise.core.config import plain
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.files import sha256
from fromnoise.encoders import Label
from fromnoise.guidance import Guide, Informed, Named
from fromnoise.guidance.classifier_free import ALWAYS, checked_interval, checked_rescale
from fromnoise.guidance.clipping import checked_share
from fromnoise.model.draw import Draw, Steering
from fromnoise.processes import Absorbing

if TYPE_CHECKING:
    from fromnoise.model.model import Model

GIVEN = "given"
"""What a recipe says in place of a thing it cannot hold: such a picture is not repeatable."""


@dataclass(frozen=True)
class Asked:
    """The arguments of `sample` that guide, as they came."""

    guidance: float | Tensor | None
    negative: Any
    interval: tuple[float, float] | None
    rescale: float
    guide: Guide | Iterable[Guide]
    threshold: float | None


def steering(model: "Model", asked: Asked, told: Mapping[str, Any], count: int) -> Steering:
    """What is asked, all choices made. told: raw inputs by encoder name, those given.

    Raises UsageError for guidance of what the model is not told, or a guide that does not fit.
    """
    scale = _scale(model, asked.guidance, count, told, moving=asked.negative is not None)
    none = not isinstance(scale, Tensor) and scale == 1
    extra = {"negative": asked.negative, "interval": asked.interval, "rescale": asked.rescale}
    for name, value in extra.items():
        if none and value not in (None, 0):
            raise UsageError(f"{name} says how guidance acts, and there is none; give guidance")
    guides = listed(asked.guide)
    for guide in guides:
        # What does not fit this model or call is said before anything is drawn.
        if isinstance(guide, Informed):
            guide.check(count)
        guide(model.denoiser, model.pictured)
    threshold = asked.threshold
    if threshold is not None and isinstance(model.denoiser.process, Absorbing):
        raise UsageError("threshold bounds the values of pictures, and this model draws tokens")
    return Steering(
        scale=scale,
        interval=checked_interval(ALWAYS if asked.interval is None else asked.interval),
        rescale=checked_rescale(asked.rescale),
        guides=guides,
        threshold=None if threshold is None else checked_share(threshold),
        limit=model.defaults.clip,
    )


def recorded(draw: Draw, asked: Asked) -> dict[str, Any]:
    """What a recipe holds of a draw: plain values, and "given" for what is none."""
    steered = draw.steering
    guides = [guide.text if isinstance(guide, Named) else GIVEN for guide in steered.guides]
    return {
        "steps": len(draw.grid) - 1,
        "guidance": torch.as_tensor(steered.scale, dtype=torch.float64).tolist(),
        "interval": None if asked.interval is None else list(steered.interval),
        "rescale": steered.rescale,
        "guide": guides,
        "threshold": steered.threshold,
        "seeds": list(draw.seeds),
        "batch_size": draw.batch,
        "dtype": str(draw.dtype).removeprefix("torch."),
        "shape": list(draw.shape),
        "start": "noise" if draw.start is None else GIVEN,
    }


def told_each(
    model: "Model",
    draw: Draw,
    classes: Label | None,
    label: Any,
    negative: Any,
    inputs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a recipe holds of what is told: every list in it has one entry for each sample.

    Under "used" stand the fingerprints of the models and files that guides and inputs name.
    classes: of a label that guides alone are told.
    """
    telling, count = draw.telling, len(draw.seeds)
    raw = model.conditioning.each(telling.raw, count)
    away: Any = model.conditioning.each(telling.negative or {}, count)
    if negative is not None and not isinstance(negative, Mapping):
        (away,) = away.values()
    among = {name: raw.pop(name) for name in inputs or {} if name in raw}
    named = [guide for guide in draw.steering.guides if isinstance(guide, Named)]
    used = {name: mark for guide in named for name, mark in guide.used.items()}
    for name, value in among.items():
        if model.conditioning.encoders[name].slot == "channels":
            used |= {path: sha256(path) for path in _paths(value)}
    return {
        "used": used,
        "label": plain(raw.get("label") if classes is None else classes.each(label, count)),
        "prompt": plain(raw.get("prompt")),
        "inputs": {name: _plain(value) for name, value in among.items()},
        "negative": None if negative is None else _plain(away),
    }


def _scale(
    model: "Model",
    guidance: float | Tensor | None,
    count: int,
    told: Mapping[str, Any],
    moving: bool,
) -> float | Tensor:
    """The guidance scale: the one asked for, or the model's own where there is a condition.

    moving: whether there is a negative, which guidance can move away from though nothing is told.
    """
    heard = moving or any(model.conditioning.droppable(name) for name in told)
    if guidance is None:
        return model.defaults.guidance if heard else 1.0
    try:
        scale = torch.as_tensor(guidance, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"guidance {guidance!r:.60} is no number, nor one for each sample"
        ) from None
    if not bool(torch.isfinite(scale).all()):
        raise UsageError(f"guidance {guidance} is not finite")
    if scale.ndim and scale.shape != (count,):
        raise ShapeError(f"{tuple(scale.shape)} guidance scales given for {count} samples")
    if not heard and bool((scale != 1).any()):
        names = [name for name in model.conditioning.names if model.conditioning.droppable(name)]
        takes = " or ".join(names) or "nothing it could be guided by"
        raise UsageError(
            f"guidance strengthens what a model is told, and it was told nothing; it takes {takes}"
        )
    return scale if scale.ndim else scale.item()


def away_from(model: "Model", negative: Any) -> Mapping[str, Any] | None:
    """What to move away from, by encoder name: what else the model is told stays as it is."""
    if isinstance(negative, str) and not negative.strip():
        raise UsageError("the negative prompt is empty; leave it out to move away from nothing")
    if negative is None or isinstance(negative, Mapping):
        return negative
    return {_name_of(model, negative): negative}


def _name_of(model: "Model", negative: Any) -> str:
    """Which input a bare negative is of: text is a prompt where there are prompts."""
    listed = isinstance(negative, Sequence) and not isinstance(negative, str) and negative
    one = negative[0] if listed else negative
    names = model.conditioning.names
    for name in ("prompt", "label") if isinstance(one, str) else ("label", "prompt"):
        if name in names:
            return name
    takes = ", ".join(names) or "nothing"
    raise UsageError(
        f"a negative is a prompt or a label, and this model takes {takes}; "
        "give it by its input's name, negative={name: value}"
    )


def listed(guide: Guide | Iterable[Guide]) -> tuple[Guide, ...]:
    """One guide, or several, as a tuple. UsageError for what is none."""
    guides = (guide,) if callable(guide) else tuple(guide)
    for one in guides:
        # A text is a sequence of letters, so this speaks of its first.
        if not callable(one):
            raise UsageError(
                f"{one!r} is no guide; fn.guidance.loss and its like make one, and "
                "fn.guidance.named(text, fn.load) does of a text"
            )
    return guides


def _paths(value: Any) -> set[str]:
    """The files that an input names."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return {path for one in value for path in _paths(one)}
    # A class by its name may stand in an input too.
    return {value} if isinstance(value, str) and Path(value).is_file() else set()


def _plain(value: Any) -> Any:
    try:
        return plain(value)
    except UsageError:
        return GIVEN
