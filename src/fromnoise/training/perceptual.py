"""Where perceptual distances come from: a network that learns in the run, another run's, LPIPS."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, interpolate, pad

from fromnoise.core.errors import FileError, UsageError, unknown
from fromnoise.core.files import load_tensors
from fromnoise.core.randomness import Noise
from fromnoise.model.files import load_model
from fromnoise.nets.classifier import Classifier
from fromnoise.nets.image_text import ImageText
from fromnoise.nets.perceptual import PERCEPTS, VGG16, Percept, Perceptual, Reading, Small
from fromnoise.training.checkpoint import latest_model
from fromnoise.training.settings import Choice

SPOILINGS = 5
"""As it is, blurred, with noise, in squares, with few levels."""


def perceptual_of(choice: Choice, channels: int) -> Perceptual | None:
    """The perceptual distance a setting names, for pictures of so many channels; None for none.

    Raises UsageError for an unknown kind or argument, FileError for files that do not hold what
    they should.
    """
    config: dict[str, Any] = {"kind": choice} if isinstance(choice, str) else dict(choice)
    kind = config.pop("kind", None)
    if kind not in _MAKERS:
        raise unknown("perceptual network", kind, _MAKERS)
    try:
        return _MAKERS[kind](channels, **config)
    except TypeError as error:
        raise UsageError(f"perceptual {kind!r}: {str(error).partition(') ')[2]}") from None


def seeing_loss(net: Small, x: Tensor, noise: Noise) -> Tensor:
    """What a network learns to see by: the cross-entropy of how pictures were spoiled and turned.

    Which way is up teaches it content (Gidaris, Singh & Komodakis 2018, "RotNet"); blur, noise,
    squares and few levels are what a poor decoder does. Nothing but the pictures is needed.
    """
    changed, how, turns = spoiled(x, noise)
    by_spoiling, by_turn = net.answers(changed)
    return cross_entropy(by_spoiling.float(), how) + cross_entropy(by_turn.float(), turns)


def spoiled(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (B, C, H, W) each spoiled in one of SPOILINGS ways and turned by quarters.

    Returns them, the way (B,) and the quarters (B,), int64. A picture that is not square is only
    turned by halves.
    """
    drawn = noise.uniform(x.new_empty(len(x), 3))
    how = (drawn[:, 0] * SPOILINGS).long()
    turns = (drawn[:, 1] * 4).long()
    if x.shape[-1] != x.shape[-2]:
        turns = turns // 2 * 2
    strength = (0.5 + 0.5 * drawn[:, 2])[:, None, None, None]
    even = [size // 2 * 2 for size in x.shape[2:]]
    squares = interpolate(avg_pool2d(x, 2), scale_factor=2, mode="nearest")
    squares = pad(squares, (0, x.shape[3] - even[1], 0, x.shape[2] - even[0]), "replicate")
    few = torch.round(x * 6.0 * (1.5 - strength)) / (6.0 * (1.5 - strength))
    ways = torch.stack(
        [
            x,
            torch.lerp(x, _blurred(x), strength),
            x + 0.2 * strength * noise.normal(x),
            torch.lerp(x, squares, strength),
            few,
        ]
    )
    rows = torch.arange(len(x), device=x.device)
    chosen = ways[how, rows]
    for k in range(1, 4):
        asked = turns == k
        if bool(asked.any()):
            chosen[asked] = torch.rot90(chosen[asked], k, (2, 3))
    return chosen, how, turns


def _blurred(x: Tensor) -> Tensor:
    """The mean of 3×3 pixels, twice."""
    for _ in range(2):
        x = avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 3, 1)
    return x


def _none(channels: int) -> None:
    del channels


def _small(channels: int, width: int = 16) -> Perceptual:
    return Perceptual(PERCEPTS.build(
        {"kind": "small", "channels": channels, "width": width, "spoilings": SPOILINGS}
    ))  # fmt: skip


def _run(channels: int, path: str) -> Perceptual:
    """Of the classifier, or the tower of an image-text model, of a run or a model folder."""
    folder = Path(path)
    model = load_model(folder if (folder / "model.json").is_file() else latest_model(folder))
    net = model.denoiser.net
    tower = net.tower if isinstance(net, ImageText) else net
    if not isinstance(tower, Classifier) or tower.in_channels != channels:
        raise UsageError(
            f"{path} holds no classifier of pictures of {channels} channels, but a "
            f"{type(net).__name__}; pictures are looked at with a run of a classifier or of an "
            "image-text model"
        )
    t = torch.zeros(1, dtype=torch.float64)
    scales = model.denoiser.process.reference(t)
    reading = model.denoiser.parameterization
    told = 0.0 if net is not tower else float(reading.time(t, scales))
    inside = float(reading.coefficients(scales).inside)
    return _frozen(Reading(tower, f"{model.card.name} ({path})", told, inside))


def _lpips(channels: int, backbone: str, heads: str | None = None) -> Perceptual:
    """Of VGG-16 from a file of weights, with the heads of LPIPS from another where it is given."""
    if channels != 3:
        raise UsageError(f"VGG-16 looks at pictures of 3 channels, and these have {channels}")
    net = VGG16()
    given, _ = load_tensors(Path(backbone))
    named = {name.removeprefix("features."): value for name, value in given.items()}
    ours = list(net.state_dict())
    # The convolutions in order, numbered with the rectifiers and pools between them.
    places = [f"{i}.{kind}" for i in _CONVOLUTIONS for kind in ("weight", "bias")]
    for name, place in zip(ours, places, strict=True):
        if place not in named or named[place].shape != net.state_dict()[name].shape:
            raise FileError(f"{backbone} is no VGG-16: features.{place} is missing or misshapen")
    net.load_state_dict({name: named[place] for name, place in zip(ours, places, strict=True)})
    return _frozen(net, None if heads is None else _heads(Path(heads)))


_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


def _heads(path: Path) -> list[Tensor]:
    """The heads of LPIPS from a file whose names are lin0.model.1.weight and so on."""
    given, _ = load_tensors(path)
    found = []
    for i in range(5):
        names = [name for name in given if name.startswith(f"lin{i}.") and name.endswith("weight")]
        if len(names) != 1:
            raise FileError(f"{path} holds no heads of LPIPS: there is no lin{i}.model.1.weight")
        found.append(given[names[0]])
    return found


def _frozen(net: Percept, heads: list[Tensor] | None = None) -> Perceptual:
    made = Perceptual(net, heads)
    frozen: nn.Module = made.requires_grad_(False).eval()
    assert frozen is made
    return made


_MAKERS: Mapping[str, Callable[..., Perceptual | None]] = {
    "none": _none,
    "small": _small,
    "run": _run,
    "lpips": _lpips,
}
"""What a perceptual distance can be taken with."""
