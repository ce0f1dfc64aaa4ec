"""How different two pictures look: the distance of what a network makes of them, layer by layer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from fromnoise.core.config import Kinds
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.condition import Condition
from fromnoise.layers.resample import convolution
from fromnoise.nets.classifier import Classifier

PERCEPTS = Kinds("perceptual network")
"""Networks whose layers can be compared, by kind."""

_TINY = 1e-10


class Percept(nn.Module, ABC):
    """A network whose maps of two pictures are compared."""

    config: dict[str, Any]
    name: str

    @abstractmethod
    def maps(self, x: Tensor) -> list[Tensor]:
        """Its maps (B, C_l, h_l, w_l) of pictures x (B, C, H, W) in [−1, 1]."""


class Perceptual(nn.Module):
    """d(x, y) = Σ_l mean over places of Σ_c w_lc·(x̂_lc − ŷ_lc)², (B,).

    x̂ are a network's maps, each place of unit length over its channels (Zhang et al. 2018, "The
    Unreasonable Effectiveness of Deep Features", eq. 1). d is from 0 to 4 for each layer where all
    weights are 1.

    heads: the weights w, one (C_l,) for each layer and none below 0, as LPIPS learned them; all 1
    without. The gradient goes to the pictures only.
    Raises UsageError for weights below 0, and in `forward` for heads that do not fit the layers.
    """

    def __init__(self, percept: Percept, heads: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.percept = percept
        self.headed = heads is not None
        for i, head in enumerate(heads or ()):
            if bool((head < 0).any()):
                raise UsageError("a perceptual distance has no weights below 0")
            self.register_buffer(f"head{i}", head.detach().reshape(1, -1, 1, 1).clone())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        both = self.percept.maps(torch.cat([x, y]))
        heads = self._heads(both)
        total = x.new_zeros(len(x))
        for values, head in zip(both, heads, strict=True):
            a, b = _unit(values.float()).chunk(2)
            total = total + (head * (a - b) ** 2).sum(1).mean((1, 2)).to(total)
        return total

    def _heads(self, maps: Sequence[Tensor]) -> list[Tensor | float]:
        if not self.headed:
            return [1.0] * len(maps)
        heads = list(self.buffers(recurse=False))
        if [head.shape[1] for head in heads] != [values.shape[1] for values in maps]:
            raise UsageError(
                f"these heads are for layers of {[h.shape[1] for h in heads]} channels, and "
                f"{self.percept.name} has {[m.shape[1] for m in maps]}"
            )
        return list(heads)


@PERCEPTS.register("small")
class Small(Percept):
    """Four levels of two convolutions, 3 wide: a network small enough to be trained on the way.

    It has two answers besides its maps: how a picture was spoiled, and by which quarter turned.
    channels: of pictures; width: of the first level, doubling twice. spoilings: ways there are.
    """

    name = "small"

    def __init__(self, channels: int = 3, width: int = 16, spoilings: int = 5) -> None:
        super().__init__()
        if min(channels, width, spoilings) < 1:
            raise UsageError(f"a network needs widths from 1; got {channels}, {width}, {spoilings}")
        widths = [width, 2 * width, 4 * width, 4 * width]
        ins = [channels, *widths[:-1]]
        self.levels = nn.ModuleList(
            nn.ModuleList([convolution(2, a, b), convolution(2, b, b)])
            for a, b in zip(ins, widths, strict=True)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.spoiled = nn.Linear(sum(widths), spoilings)
        self.turned = nn.Linear(sum(widths), 4)

    def maps(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for level in self.levels:
            if found:
                x = max_pool2d(x, 2) if min(x.shape[2:]) > 1 else x
            for layer in level:  # type: ignore[attr-defined]
                x = relu(layer(x))
            found.append(x)
        return found

    def answers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds (B, spoilings) of how pictures were spoiled, and (B, 4) of their turns."""
        means = torch.cat([values.mean((2, 3)) for values in self.maps(x)], dim=1)
        return self.spoiled(means), self.turned(means)


class Reading(Percept):
    """The levels of a classifier on their way down, as it reads clean pictures.

    time, inside: what it is told at no noise, and the factor its input comes in with there.
    Raises ShapeError for pictures of another size than the classifier's.
    """

    def __init__(self, classifier: Classifier, name: str, time: float, inside: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.name = name
        self.time = time
        self.inside = inside

    def maps(self, x: Tensor) -> list[Tensor]:
        net = self.classifier
        if tuple(x.shape[1:]) != (net.in_channels, net.side, net.side):
            raise ShapeError(
                f"{self.name} reads pictures of {net.in_channels} channels and {net.side} by "
                f"{net.side}, not {tuple(x.shape[1:])}"
            )
        told = torch.full((len(x),), self.time, dtype=x.dtype, device=x.device)
        _, _, skips = net.descend(self.inside * x, told, Condition())
        # The last of each size: what the level has made of it.
        last = {tuple(values.shape[2:]): values for values in skips}
        return list(last.values())


_VGG = (2, 2, 3, 3, 3)
_VGG_WIDTHS = (64, 128, 256, 512, 512)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@PERCEPTS.register("vgg16")
class VGG16(Percept):
    """The convolutions of VGG-16, 14,714,688 parameters, at relu1_2, 2_2, 3_3, 4_3 and 5_3.

    Pictures in [−1, 1] are brought to the scale its weights were trained at. It takes sides of 16
    pixels or more. References: Simonyan & Zisserman 2015; Zhang et al. 2018 (LPIPS).
    """

    name = "vgg16"
    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        ins = 3
        for count, width in zip(_VGG, _VGG_WIDTHS, strict=True):
            layers = [convolution(2, ins if i == 0 else width, width) for i in range(count)]
            self.levels.append(nn.ModuleList(layers))
            ins = width
        for name, values in (("shift", _SHIFT), ("scale", _SCALE)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def maps(self, x: Tensor) -> list[Tensor]:
        if x.shape[1] != 3 or min(x.shape[2:]) < 16:
            raise ShapeError(f"vgg16 takes (B, 3, 16 or more, 16 or more), not {tuple(x.shape)}")
        h = (x - self.shift) / self.scale
        found: list[Tensor] = []
        for level in self.levels:
            h = max_pool2d(h, 2) if found else h
            for layer in level:  # type: ignore[attr-defined]
                h = relu(layer(h))
            found.append(h)
        return found


def _unit(values: Tensor) -> Tensor:
    """Each place of unit length over the channels; its gradient is finite at 0 too."""
    return values / (values.square().sum(1, keepdim=True) + _TINY).sqrt()
