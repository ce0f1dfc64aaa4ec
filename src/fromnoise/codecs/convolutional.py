"""The convolutional encoder and decoder that the autoencoders of latent diffusion share."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import silu

from fromnoise.core.errors import UsageError
from fromnoise.layers.attention import Attention
from fromnoise.layers.blocks import Style, group_norm
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.resample import Downsample, Upsample, convolution

_EPS = 1e-6


@dataclass(frozen=True)
class Plan:
    """How encoder and decoder are laid out.

    channels: of pictures. widths: of the levels, the largest size first. blocks: residual blocks
    in each level of the encoder, one more in the decoder. groups: of the norms. attend: attention
    in the middle. attention: down-sampling factors of the levels with attention after every block
    (1 is full size). Raises UsageError for no levels or blocks, or attention where no level is.
    """

    channels: int
    widths: Sequence[int]
    blocks: int
    groups: int
    attend: bool
    attention: Sequence[int]

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or self.blocks < 1:
            raise UsageError(
                f"an autoencoder needs widths and blocks of 1 or more; got {list(self.widths)} "
                f"and {self.blocks}"
            )
        sizes = [2**i for i in range(len(self.widths))]
        if not set(self.attention) <= set(sizes):
            raise UsageError(
                f"attention at {list(self.attention)} has no level; the down-sampling factors of "
                f"this autoencoder are {sizes}"
            )

    @property
    def factor(self) -> int:
        """Pixels along the side of one latent."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def style(self) -> Style:
        """The style of its norms."""
        return Style(groups=self.groups, eps=_EPS)


class Block(nn.Module):
    """A residual block that is told nothing: norm, SiLU, convolution, twice, plus the shortcut."""

    def __init__(self, channels: int, out: int, style: Style) -> None:
        super().__init__()
        self.norm1 = group_norm(channels, style)
        self.conv1 = xavier_(convolution(2, channels, out))
        self.norm2 = group_norm(out, style)
        self.conv2 = zero_(convolution(2, out, out))
        self.shortcut = (
            nn.Identity() if channels == out else xavier_(convolution(2, channels, out, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        changed: Tensor = self.shortcut(x) + self.conv2(silu(self.norm2(h)))
        return changed


class Middle(nn.Module):
    """Two blocks, with attention of one head between them where `attend`."""

    def __init__(self, channels: int, style: Style, attend: bool, place: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, channels, style) for _ in range(2))
        self.attentions = nn.ModuleList()
        if attend:
            self.attentions.append(_attention(channels, style, f"{place}.attentions.0"))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.blocks[0](x)
        for attention in self.attentions:
            h = attention(h)
        last: Tensor = self.blocks[1](h)
        return last


class Stage(nn.Module):
    """The blocks of one size, each with its attention or none, and what changes the size after."""

    def __init__(
        self,
        blocks: Sequence[Block],
        attentions: Sequence[Attention],
        resample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x)
            if self.attentions:
                x = self.attentions[index](x)
        changed: Tensor = self.resample(x)
        return changed


class Down(nn.Module):
    """Pictures (B, C, H, W) to (B, out, H/f, W/f)."""

    def __init__(self, plan: Plan, out: int) -> None:
        super().__init__()
        widths, style = plan.widths, plan.style
        self.enter = xavier_(convolution(2, plan.channels, widths[0]))
        self.stages = nn.ModuleList()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            halve = None if last else Downsample(2, width, "asymmetric")
            ins = widths[max(i - 1, 0)]
            place = f"encoder.stages.{i}"
            self.stages.append(_stage(plan, i, ins, plan.blocks, halve, place))
        self.middle = Middle(widths[-1], style, plan.attend, "encoder.middle")
        self.norm = group_norm(widths[-1], style)
        self.leave = xavier_(convolution(2, widths[-1], out))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for stage in self.stages:
            h = stage(h)
        made: Tensor = self.leave(silu(self.norm(self.middle(h))))
        return made


class Up(nn.Module):
    """Latents (B, latent, h, w) to (B, C, h·f, w·f)."""

    def __init__(self, plan: Plan, latent: int) -> None:
        super().__init__()
        widths, style = plan.widths, plan.style
        self.enter = xavier_(convolution(2, latent, widths[-1]))
        self.middle = Middle(widths[-1], style, plan.attend, "decoder.middle")
        self.stages = nn.ModuleList()
        for place, i in enumerate(reversed(range(len(widths)))):
            ins = widths[min(i + 1, len(widths) - 1)]
            double = Upsample(2, widths[i]) if i else None
            named = f"decoder.stages.{place}"
            self.stages.append(_stage(plan, i, ins, plan.blocks + 1, double, named))
        self.norm = group_norm(widths[0], style)
        self.leave = xavier_(convolution(2, widths[0], plan.channels))

    def forward(self, z: Tensor) -> Tensor:
        h = self.middle(self.enter(z))
        for stage in self.stages:
            h = stage(h)
        made: Tensor = self.leave(silu(self.norm(h)))
        return made


def pointwise(ins: int, out: int, there: bool = True) -> nn.Module:
    """A 1-wide convolution, or nothing."""
    return xavier_(convolution(2, ins, out, 1)) if there else nn.Identity()


def _attention(channels: int, style: Style, place: str) -> Attention:
    return Attention(group_norm(channels, style), channels, 1, place)


def _stage(
    plan: Plan, level: int, ins: int, count: int, resample: nn.Module | None, place: str
) -> Stage:
    """The level's stage of so many blocks, the first of which takes `ins` channels."""
    out, style = plan.widths[level], plan.style
    blocks = [Block(ins if i == 0 else out, out, style) for i in range(count)]
    attended = count if 2**level in plan.attention else 0
    attentions = [_attention(out, style, f"{place}.attentions.{i}") for i in range(attended)]
    return Stage(blocks, attentions, resample)
