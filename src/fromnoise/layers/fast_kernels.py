"""The layers of the speed path: each computes what a plain layer does, for inference on a CPU.

They pack weights on first use, for the sizes they meet. Where a gradient with respect to the input
is asked for, they compute plainly, since oneDNN's packed operations carry none.
"""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, linear, pad, silu

from fromnoise.core.meta import without_memory
from fromnoise.layers.attention import plain_kernel, probabilities
from fromnoise.layers.blocks import ResBlock
from fromnoise.layers.resample import nearest

_SCRATCH_BYTES = 24 * 2**20
_scratch = threading.local()


class PackedConvolution(nn.Module):
    """A 2-D convolution whose weight is stored once in the layout oneDNN computes with.

    dtype: what it computes in. The layer's own weight is shared, and converted when it is packed.
    """

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.dtype = layer.weight.detach(), dtype
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self.stride, self.dilation = list(layer.stride), list(layer.dilation)
        self.padding = [int(width) for width in layer.padding]
        self.groups = layer.groups
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if _watched(x):
            places = (self.stride, self.padding, self.dilation, self.groups)
            return conv2d(x, self.weight.to(self.dtype), self.bias, *places)
        x = x.contiguous(memory_format=torch.channels_last)
        places = (self.padding, self.stride, self.dilation, self.groups)
        packed = self._packed
        if packed is None:
            weight = _converted(self.weight, self.dtype)
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *places, list(x.shape))
            self._packed = packed
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, packed, self.bias, *places, "none", [], ""
        )
        return result


class OneDNNLinear(nn.Module):
    """A linear layer through oneDNN, which on some processors is faster than MKL.

    dtype: as of `PackedConvolution`.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.dtype = layer.weight.detach(), dtype
        self.bias = None if layer.bias is None else layer.bias.detach().to(dtype)
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if _watched(x):
            return linear(x, self.weight.to(self.dtype), self.bias)
        packed = self._packed
        if packed is None:
            weight, rows = _converted(self.weight, self.dtype), x.numel() // x.shape[-1]
            packed = self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.contiguous(), packed, self.bias, "none", [], ""
        )
        return result


class FoldedUpsample(nn.Module):
    """Nearest up-sampling and a 3×3 convolution as one 2×2 convolution of the small picture.

    The four sub-pixels of a pixel see only 2×2 small pixels, so the 3×3 weights that fall on the
    same one are summed: 4/9 of the multiplications, the same result but for rounding.
    """

    def __init__(self, layer: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        weight = layer.weight.detach()
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        folded = _summed(_summed(wide, 2), 4).transpose(0, 1).flatten(0, 2)
        with without_memory():
            small = nn.Conv2d(weight.shape[1], folded.shape[0], 2, padding=1, bias=False)
        small.weight = nn.Parameter(folded.to(dtype), requires_grad=False)
        if layer.bias is not None:
            small.bias = nn.Parameter(layer.bias.detach().repeat(4), requires_grad=False)
        self.conv = PackedConvolution(small, dtype)
        self.whole = PackedConvolution(layer, dtype)

    def forward(self, x: Tensor, space: Sequence[int] | None = None) -> Tensor:
        batch, _, height, width = x.shape
        if space is not None and tuple(space) != (2 * height, 2 * width):
            enlarged: Tensor = self.whole(nearest(x, space))
            return enlarged
        four = self.conv(x).permute(0, 2, 3, 1)
        out = four.shape[-1] // 4
        result = x.new_empty(batch, 2 * height, 2 * width, out)
        for index, part in enumerate(four.split(out, dim=-1)):
            row, column = divmod(index, 2)
            result[:, row::2, column::2] = part[:, row : row + height, column : column + width]
        return result.permute(0, 3, 1, 2)


def _summed(weight: Tensor, axis: int) -> Tensor:
    """The three weights along an axis on the two small pixels under them, for either sub-pixel.

    A new first axis has the sub-pixels, and the axis 2 in place of 3.
    """
    first, second, third = weight.unbind(axis)
    left = torch.stack([first, second + third], axis)
    return torch.stack([left, torch.stack([first + second, third], axis)])


class WinogradConvolution(nn.Module):
    """A 3×3 convolution by Winograd's F(2×2, 3×3): 4/9 of the multiplications.

    y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ d B)] A over 4×4 tiles d of the padded picture; the products over
    channels are 16 matrix products. Small, odd or very large pictures go to the `plain` layer.
    Reference: Lavin & Gray 2016, section 4.1.
    """

    def __init__(self, layer: nn.Conv2d, plain: PackedConvolution) -> None:
        super().__init__()
        self.plain = plain
        self.weight = layer.weight.detach()
        self._packed: list[Tensor] = []

    @staticmethod
    def suits(layer: nn.Conv2d) -> bool:
        """Whether the layer is a plain 3×3 convolution with channels enough to gain by it."""
        form = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
        wide = min(layer.in_channels, layer.out_channels) >= 128
        return wide and form == ((3, 3), (1, 1), (1, 1), (1, 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        chunk = 0 if _watched(x) else self._chunk(x)
        if not chunk:
            return self.plain(x)  # type: ignore[no-any-return]
        batch, channels, height, width = x.shape
        rows, columns = height // 2, width // 2
        weights = self._weights(chunk * rows * columns)  # first: it uses the same scratch memory
        x = x.permute(0, 2, 3, 1)
        tiles = _buffer(16 * chunk * rows * columns * channels, x.dtype)
        tiles = tiles.view(16, chunk, rows, columns, channels)
        result = x.new_empty(batch, height, width, self.weight.shape[0])
        for start in range(0, batch, chunk):
            _tiles_in(pad(x[start : start + chunk], (0, 0, 1, 1, 1, 1)), tiles)
            products = [
                torch.ops.mkldnn._linear_pointwise(part, weight, None, "none", [], "").view(
                    *tiles.shape[1:4], -1
                )
                for part, weight in zip(tiles.flatten(1, 3), weights, strict=True)
            ]
            _tiles_out(products, self.plain.bias, result[start : start + chunk])
        return result.permute(0, 3, 1, 2)

    def _chunk(self, x: Tensor) -> int:
        """Samples at a time, a divisor of the batch so that all see one shape; 0 for none."""
        batch, channels, height, width = x.shape
        if height % 2 or width % 2 or batch * height * width < 1024:
            return 0
        room = _SCRATCH_BYTES // (4 * channels * height * width * x.element_size())
        return max((n for n in range(1, batch + 1) if batch % n == 0 and n <= room), default=0)

    def _weights(self, rows: int) -> list[Tensor]:
        """The 16 matrices, laid out for products with so many rows when they are first made."""
        packed = self._packed
        if not packed:
            packed = [
                torch.ops.mkldnn._reorder_linear_weight(weight, rows)
                for weight in _transformed(self.weight)
            ]
            self._packed = packed
        return packed


class MixedGroupNorm(nn.Module):
    """A group norm of a bfloat16 picture with float32 weights.

    Where groups are narrow and the picture small, torch's channels-last kernel reads a few values
    at a time and going through float32 is several times faster.
    """

    def __init__(self, layer: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = layer.num_groups, layer.eps
        self.weight, self.bias = layer.weight, layer.bias
        self.narrow = layer.num_channels // layer.num_groups < 16

    def forward(self, x: Tensor) -> Tensor:
        if self.narrow and x[0, 0].numel() < 1024:
            wide = group_norm(x.float(), self.groups, self.weight, self.bias, self.eps)
            return wide.to(x.dtype)
        return group_norm(x, self.groups, self.weight, self.bias, self.eps)


def mapped_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention in bfloat16 by making the map, with logits and softmax in float32.

    Faster than torch's fused kernel for wide heads over few pixels, and no less exact.
    """
    cells = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    if query.shape[3] < 128 or 4 * cells > _SCRATCH_BYTES:
        return plain_kernel(query, key, value, mask)
    return probabilities(query.float(), key.float(), mask).to(value.dtype) @ value


class InPlaceResBlock(nn.Module):
    """A residual block that reuses its own intermediate results; without dropout."""

    def __init__(self, block: ResBlock) -> None:
        super().__init__()
        self.norm1, self.conv1, self.time = block.norm1, block.conv1, block.time
        self.norm2, self.conv2, self.shortcut = block.norm2, block.conv2, block.shortcut
        self.scale_shift = block.scale_shift

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x), inplace=True))
        told = linear(embedded, self.time.weight, self.time.bias)
        told = told.reshape(*told.shape, *(1,) * (x.ndim - 2))
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm2(h).mul_(1 + scale).add_(shift)
        else:
            h = self.norm2(h.add_(told))
        h = self.conv2(silu(h, inplace=True))
        changed: Tensor = h.add_(self.shortcut(x))
        return changed


def _converted(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in a type, until the next is: in scratch memory where its type changes."""
    if weight.dtype == dtype:
        return weight
    return _buffer(weight.numel(), dtype).view(weight.shape).copy_(weight)


def _watched(x: Tensor) -> bool:
    """Whether a gradient will be asked for."""
    return torch.is_grad_enabled() and x.requires_grad


def _buffer(size: int, dtype: torch.dtype) -> Tensor:
    """Scratch memory of this thread, used again and again: fresh pages cost more than the sums."""
    held: Tensor | None = getattr(_scratch, str(dtype), None)
    if held is None or held.numel() < size:
        with torch.inference_mode(False):  # else it could be written to in that mode only
            held = torch.empty(size, dtype=dtype)
        setattr(_scratch, str(dtype), held)
    return held[:size]


def _transformed(weight: Tensor) -> Tensor:
    """G w Gᵀ, as 16 matrices (out, in): (16, out, in) in float32, in scratch memory.

    G is 1, 0, 0; ½, ½, ½; ½, −½, ½; 0, 0, 1: two sums for each of two rows.
    """
    out, inside = weight.shape[:2]
    held = _buffer(32 * out * inside, torch.float32).view(32, out, inside)
    rows, spare, result = held[:9].view(3, 3, out, inside), held[15], held[16:]
    rows.copy_(weight.permute(2, 3, 0, 1))
    taken = [rows[0], held[9:12], held[12:15], rows[2]]
    for column, (above, here, below) in enumerate(rows.unbind(1)):
        _halves(above, here, below, taken[1][column], taken[2][column], spare)
    for row, (first, second, third) in enumerate(taken):
        result[4 * row].copy_(first)
        _halves(first, second, third, result[4 * row + 1], result[4 * row + 2], spare)
        result[4 * row + 3].copy_(third)
    return result


def _halves(a: Tensor, b: Tensor, c: Tensor, plus: Tensor, minus: Tensor, spare: Tensor) -> None:
    """(a + b + c) / 2 and (a − b + c) / 2."""
    torch.add(a, c, out=spare)
    torch.add(spare, b, out=plus).mul_(0.5)
    torch.sub(spare, b, out=minus).mul_(0.5)


def _tiles_in(padded: Tensor, tiles: Tensor) -> None:
    """Bᵀ d B for every tile: (B, H + 2, W + 2, C) into (16, B, H/2, W/2, C)."""
    rows, columns = tiles.shape[2:4]
    a, b, c, d = (padded[:, k : 2 * rows + k : 2] for k in range(4))
    for index, part in enumerate((a - c, b + c, c - b, b - d)):
        p, q, r, s = (part[:, :, k : 2 * columns + k : 2] for k in range(4))
        torch.sub(p, r, out=tiles[4 * index])
        torch.add(q, r, out=tiles[4 * index + 1])
        torch.sub(r, q, out=tiles[4 * index + 2])
        torch.sub(q, s, out=tiles[4 * index + 3])


def _tiles_out(products: list[Tensor], bias: Tensor | None, result: Tensor) -> None:
    """Aᵀ m A + bias for every tile: 16 of (B, H/2, W/2, C) into (B, H, W, C)."""
    columns = [_pair(*products[j::4]) for j in range(4)]
    for row in range(2):
        even, odd = _pair(*(column[row] for column in columns))
        for column, value in enumerate((even, odd)):
            place = result[:, row::2, column::2]
            if bias is None:
                place.copy_(value)
            else:
                torch.add(value, bias, out=place)


def _pair(m0: Tensor, m1: Tensor, m2: Tensor, m3: Tensor) -> tuple[Tensor, Tensor]:
    return (m1 + m2).add_(m0), (m1 - m2).sub_(m3)
