"""The discriminator that judges patches: which parts of a picture look real."""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts, Network

_KERNEL = 4
_STD = 0.02


class PatchDiscriminator(Network):
    """Log-odds that each patch of a picture is real, (B, 1, h, w): convolutions 4 wide.

    `layers` of stride 2, the channels doubling up to 8 times the first, then two of stride 1; leaky
    rectifiers, and a norm after all but the first and the last. With 3 layers a patch is 70×70. It
    is told no time and no condition.

    norm: `instance`, of each picture by itself and without weights (with 64 channels and 3 layers
    2,764,737 parameters), or `batch`, over all of a batch (2,765,633, as in VQGAN).
    Raises UsageError for values below 1, ShapeError for a picture smaller than a patch needs.
    References: Isola et al. 2017 (pix2pix), section 3.2.2; Esser, Rombach & Ommer 2021.
    """

    draws = False

    def __init__(
        self,
        in_channels: int = 3,
        channels: int = 64,
        layers: int = 3,
        norm: Literal["instance", "batch"] = "instance",
    ) -> None:
        super().__init__()
        if min(in_channels, channels, layers) < 1:
            raise UsageError(
                f"a discriminator needs channels and layers of 1 or more; got {in_channels}, "
                f"{channels} and {layers}"
            )
        self.in_channels, self.out_channels = in_channels, 1
        self.spatial_dims, self.divisor = 2, 1
        self.accepts = Accepts()
        self.least = 4 * 2 ** max(layers - 1, 1)
        """The smallest side whose maps are two values wide before the last norm."""
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        self.enter = _convolution(in_channels, widths[0], 2, bias=True)
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for i, (ins, out) in enumerate(pairwise(widths)):
            stride = 1 if i == layers - 1 else 2
            # A batch norm has a bias of its own.
            self.convolutions.append(_convolution(ins, out, stride, bias=norm == "instance"))
            self.norms.append(_norm(norm, out))
        self.leave = _convolution(widths[-1], 1, 1, bias=True)

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        del time, condition
        if min(x.shape[2:]) < self.least:
            raise ShapeError(
                f"this discriminator takes pictures of {self.least} pixels a side or more, not "
                f"{tuple(x.shape[2:])}; use fewer layers"
            )
        h = leaky_relu(self.enter(x), 0.2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = leaky_relu(norm(convolution(h)), 0.2)
        verdict: Tensor = self.leave(h)
        return verdict


def _convolution(ins: int, out: int, stride: int, bias: bool) -> nn.Conv2d:
    made = nn.Conv2d(ins, out, _KERNEL, stride, padding=1, bias=bias)
    nn.init.normal_(made.weight, 0.0, _STD)
    return made


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "instance":
        return nn.InstanceNorm2d(channels)
    made = nn.BatchNorm2d(channels)
    nn.init.normal_(made.weight, 1.0, _STD)
    return made
