"""Attention in slices, where its map would not fit in memory.

torch's fused kernels make no map, so this is for where there is none: heads of values that are not
as wide as those of queries, or a device without them.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fromnoise.core.machine import free_memory

SMALL = 128 * 2**20
"""Bytes of a map from which memory is looked at."""

SHARE = 0.25
"""The part of what memory is free that a map may take."""

_COPIES = 3
"""Of a map: logits, their softmax, and that in the type of the values."""


def sliced(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, room: int) -> Tensor:
    """softmax(q kᵀ / √D) v by heads and queries, so that the map of a slice has `room` bytes.

    query, key, value: (B, heads, N, D); mask: (B, 1, 1, K), true where a key counts. Each query
    sees all keys at once, so that the result is that of the whole, to rounding. It has no gradient.
    """
    batch, heads, count, _ = query.shape
    rows = max(1, min(count, room // (_COPIES * 4 * key.shape[2])))
    result = query.new_empty(batch, heads, count, value.shape[-1])
    for one in range(batch):
        counts = None if mask is None else mask[one : one + 1]
        for head in range(heads):
            seen, told = (part[one, head][None, None] for part in (key, value))
            for start in range(0, count, rows):
                asked = query[one, head, start : start + rows][None, None]
                result[one, head, start : start + rows] = scaled_dot_product_attention(
                    asked, seen, told, attn_mask=counts
                )[0, 0]
    return result


def room_for(query: Tensor, key: Tensor, value: Tensor) -> int | None:
    """Bytes that the map may take, or None where it may be made, or none is made, at once."""
    cells = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    needed = _COPIES * 4 * cells
    if needed < SMALL or torch.compiler.is_compiling() or query.device.type == "meta":
        return None
    watched = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if watched or torch._fused_sdp_choice(query, key, value):
        return None
    free = free_on(query.device)
    if free is None or needed <= SHARE * free:
        return None
    return max(1, int(SHARE * free))


def free_on(device: torch.device) -> int | None:
    """Bytes of a device's memory that could be had now; None where it does not say."""
    if device.type == "cpu":
        return free_memory()
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
