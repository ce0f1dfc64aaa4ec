"""The convolutional autoencoder of latent diffusion, with its normal latents."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import silu

from fromnoise.codecs.base import CODECS, Codec
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.attention import Attention
from fromnoise.layers.blocks import Style, group_norm
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.resample import Downsample, Upsample, convolution

_EPS = 1e-6


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
            norm = group_norm(channels, style)
            self.attentions.append(Attention(norm, channels, 1, f"{place}.attentions.0"))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.blocks[0](x)
        for attention in self.attentions:
            h = attention(h)
        last: Tensor = self.blocks[1](h)
        return last


class Stage(nn.Module):
    """The blocks of one size, and what changes the size after them, or nothing."""

    def __init__(self, blocks: Sequence[Block], resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        changed: Tensor = self.resample(x)
        return changed


def _stage(ins: int, out: int, count: int, resample: nn.Module | None, style: Style) -> Stage:
    return Stage([Block(ins if i == 0 else out, out, style) for i in range(count)], resample)


class Down(nn.Module):
    """Pictures (B, C, H, W) to (B, out, H/f, W/f)."""

    def __init__(
        self,
        channels: int,
        out: int,
        widths: Sequence[int],
        blocks: int,
        style: Style,
        attend: bool,
    ) -> None:
        super().__init__()
        self.enter = xavier_(convolution(2, channels, widths[0]))
        self.stages = nn.ModuleList()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            halve = None if last else Downsample(2, width, "asymmetric")
            self.stages.append(_stage(widths[max(i - 1, 0)], width, blocks, halve, style))
        self.middle = Middle(widths[-1], style, attend, "encoder.middle")
        self.norm = group_norm(widths[-1], style)
        self.leave = xavier_(convolution(2, widths[-1], out))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for stage in self.stages:
            h = stage(h)
        made: Tensor = self.leave(silu(self.norm(self.middle(h))))
        return made


class Up(nn.Module):
    """Latents (B, C, h, w) to (B, out, h·f, w·f)."""

    def __init__(
        self,
        channels: int,
        out: int,
        widths: Sequence[int],
        blocks: int,
        style: Style,
        attend: bool,
    ) -> None:
        super().__init__()
        self.enter = xavier_(convolution(2, channels, widths[-1]))
        self.middle = Middle(widths[-1], style, attend, "decoder.middle")
        self.stages = nn.ModuleList()
        for i in reversed(range(len(widths))):
            ins = widths[min(i + 1, len(widths) - 1)]
            double = Upsample(2, widths[i]) if i else None
            self.stages.append(_stage(ins, widths[i], blocks + 1, double, style))
        self.norm = group_norm(widths[0], style)
        self.leave = xavier_(convolution(2, widths[0], out))

    def forward(self, z: Tensor) -> Tensor:
        h = self.middle(self.enter(z))
        for stage in self.stages:
            h = stage(h)
        made: Tensor = self.leave(silu(self.norm(h)))
        return made


@CODECS.register("kl")
class KL(Codec):
    """Pictures ↔ latents of 1/f of the size, f = 2^(levels − 1): z = scaling · mean of q(z | x).

    channels: of pictures; latent: of latents; widths: of the levels, the largest size first;
    blocks: residual blocks in each level of the encoder, one more in the decoder; groups: of the
    norms; scaling: brings latents to about unit variance; attend: attention in the middle;
    quantized: a 1-wide convolution on both sides of the latents.
    With widths (128, 256, 512, 512) it has the 83,653,863 parameters of Stable Diffusion's.
    Raises UsageError for no levels, ShapeError for a size that is no multiple of f.
    Reference: Rombach et al. 2022, appendix G.
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 4,
        widths: Sequence[int] = (128, 256, 512, 512),
        blocks: int = 2,
        groups: int = 32,
        scaling: float = 0.18215,
        attend: bool = True,
        quantized: bool = True,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or blocks < 1 or not scaling > 0:
            raise UsageError(
                f"an autoencoder needs widths, blocks and a scaling above 0; got {list(widths)}, "
                f"{blocks}, {scaling}"
            )
        style = Style(groups=groups, eps=_EPS)
        self.latent = latent
        self.scaling = scaling
        self.factor: int = 2 ** (len(widths) - 1)
        self.depth = blocks + 1
        """Residual blocks in the longest of its levels, those of the decoder."""
        self.encoder = Down(channels, 2 * latent, widths, blocks, style, attend)
        self.decoder = Up(latent, channels, widths, blocks, style, attend)
        self.before = _pointwise(2 * latent, quantized)
        self.after = _pointwise(latent, quantized)

    def encode(self, x: Tensor) -> Tensor:
        self.latent_shape(tuple(x.shape[1:]))
        mean: Tensor = self.before(self.encoder(x))[:, : self.latent]
        return mean * self.scaling

    def decode(self, z: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.after(z / self.scaling))
        return made

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        height, width = shape[-2:]
        if height % self.factor or width % self.factor:
            raise ShapeError(
                f"pictures of {height} by {width} have no latents here: each side is a multiple "
                f"of {self.factor}"
            )
        return (self.latent, height // self.factor, width // self.factor)


def _pointwise(channels: int, there: bool) -> nn.Module:
    return xavier_(convolution(2, channels, channels, 1)) if there else nn.Identity()
