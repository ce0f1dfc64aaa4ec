"""Attention in slices is attention; and the fused kernels make no map to begin with."""

import subprocess
import sys

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from fromnoise.layers import attention, slices


def asked(values: int = 8, count: int = 40, keys: int = 30, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)
    sizes = ((count, 16), (keys, 16), (keys, values))
    parts = [torch.randn(2, 3, n, d, generator=generator, dtype=dtype) for n, d in sizes]
    parts[0] *= 5
    mask = (torch.rand(2, 1, 1, keys, generator=generator) > 0.3) | (torch.arange(keys) == 0)
    return *parts, mask


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("room", [1, 3000, 10**9])
def test_slices_are_the_whole(room, masked):
    query, key, value, mask = asked()
    given = mask if masked else None
    whole = scaled_dot_product_attention(query, key, value, attn_mask=given)
    assert (slices.sliced(query, key, value, given, room) - whole).abs().max() < 1e-14
    # The mask matters, so it was heard.
    other = scaled_dot_product_attention(query, key, value, attn_mask=None if masked else mask)
    assert (other - whole).abs().max() > 1e-2


def test_only_large_maps_in_little_memory_are_sliced(monkeypatch):
    query, key, value, _ = asked(dtype=torch.float32)
    assert slices.room_for(query, key, value) is None, "small"
    monkeypatch.setattr(slices, "SMALL", 1000)
    monkeypatch.setattr(slices, "free_memory", lambda: 40_000)
    assert slices.room_for(query, key, value) == 10_000
    monkeypatch.setattr(slices, "free_memory", lambda: 10**9)
    assert slices.room_for(query, key, value) is None, "there is memory"
    monkeypatch.setattr(slices, "free_memory", lambda: None)
    assert slices.room_for(query, key, value) is None, "nobody knows"
    monkeypatch.setattr(slices, "free_memory", lambda: 40_000)
    assert slices.room_for(query, key, asked(16, dtype=torch.float32)[2]) is None, "fused"
    assert slices.room_for(query.requires_grad_(), key, value) is None, "a gradient keeps it all"


def test_the_kernel_of_every_network_slices_by_itself(monkeypatch):
    query, key, value, mask = asked(dtype=torch.float32)
    whole = attention.plain_kernel(query, key, value, mask)
    sizes = []

    def seen(*given, **options):
        sizes.append(given[0].shape[2])
        return scaled_dot_product_attention(*given, **options)

    monkeypatch.setattr(slices, "scaled_dot_product_attention", seen)
    monkeypatch.setattr(slices, "SMALL", 1000)
    monkeypatch.setattr(slices, "free_memory", lambda: 10_000)
    got = attention.plain_kernel(query, key, value, mask)
    assert max(sizes) == 2500 // (12 * 30)
    assert (got - whole).abs().max() < 1e-6


CHILD = """
import re, torch
from fromnoise.layers import attention, slices
torch.set_num_threads(1)
def peak():
    # Not ru_maxrss: a child begins with that of a large parent.
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1]) * 1024
def ask(values, free, count=4096):
    slices.free_memory = lambda: free
    q, k, v = (torch.randn(1, 2, count, d) for d in (32, 32, values))
    before = peak()
    attention.plain_kernel(q, k, v, None)
    return peak() - before
ask(16, 1, 64)
print(ask(32, 10**12), ask(16, 2**26), ask(16, 10**12))
"""
MAP = 2 * 4096 * 4096 * 4


def test_memory_stays_where_slices_or_a_fused_kernel_keep_it():
    command = [sys.executable, "-c", CHILD]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    fused, in_slices, whole = (int(part) for part in told.split())
    assert fused < MAP / 3, "the fused kernel makes no map"
    assert in_slices < MAP / 3, "a map that would not fit is made in slices"
    assert whole > MAP, "and whole where there is memory"
