"""Tensors read into memory of their own, and modules made without any."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fromnoise.core import tensorread
from fromnoise.core.errors import FileError
from fromnoise.core.meta import without_memory
from fromnoise.core.tensorread import aligned, every, read_tensors


@pytest.fixture
def written(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    types = (torch.float16, torch.bfloat16, torch.float64, torch.float32, torch.int64, torch.bool)
    tensors = {str(dtype): torch.randn(3, 5).to(dtype) for dtype in types}
    tensors |= {"none": torch.zeros(0, 4), "one": torch.tensor(2.5), "odd": torch.zeros(3).byte()}
    save_file(tensors, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def test_the_same_as_the_library_reads(written: Path) -> None:
    wanted, found = load_file(written), read_tensors(written, None)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)
    # Not a map of the file: each by itself, and where kernels want it.
    assert all(value.data_ptr() % 16 == 0 for value in found.values() if value.numel())
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) >= len(found) - 1


def test_floats_become_one_type_and_only_those_asked_for_are_read(written: Path) -> None:
    wanted, found = load_file(written), read_tensors(written, wanted=lambda n: n != "odd")
    assert "odd" not in found
    for name, value in found.items():
        floats = wanted[name].is_floating_point()
        assert value.dtype == (torch.float32 if floats else wanted[name].dtype)
        assert torch.equal(value, wanted[name].to(value.dtype))


def test_a_file_that_ends_while_it_is_read(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = tensorread.versioned_header(written)
    written.write_bytes(written.read_bytes()[:-40])
    with pytest.raises(FileError, match="cut short"):
        read_tensors(written)
    monkeypatch.setattr(tensorread, "versioned_header", lambda path: header)
    with pytest.raises(FileError, match="cut short: it ended while it was read"):
        read_tensors(written)


def test_without_memory_nothing_is_drawn() -> None:
    """torch would load its compiler to draw normal numbers that are never there."""
    before = set(sys.modules)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with without_memory():
        made = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2), nn.Conv2d(1, 1, 3))
    assert all(parameter.is_meta for parameter in made.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert "torch._dynamo" not in set(sys.modules) - before
    assert not nn.Embedding(5, 3).weight.is_meta


def _maps(path: Path) -> int:
    """How many maps of a file this process has."""
    return Path("/proc/self/maps").read_text("utf-8").count(f"{path}\n")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's own account")
def test_what_is_large_and_keeps_its_type_is_mapped(tmp_path: Path) -> None:
    large = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0))
    tensors = {"large": large, "half": large.half(), "other": large + 1, "small": large[:2] * 1}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    read = read_tensors(path, mapped=lambda name: name != "other")
    assert _maps(path) == 1  # not the half one, which becomes float32
    for name, value in tensors.items():
        assert torch.equal(read[name], value.float())
    before = path.read_bytes()
    read["large"].mul_(2)
    assert path.read_bytes() == before
    path.unlink()
    assert torch.equal(read["large"], 2 * large)
    del read
    assert _maps(path) == 0


def test_plain_reading_maps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"large": torch.ones(300, 1000)}, path)
    read = read_tensors(path)
    if Path("/proc/self/maps").exists():
        assert _maps(path) == 0
    assert read["large"].sum() == 300_000


def test_what_is_mapped_at_another_address_can_be_brought_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorread, "_LARGE", 0)
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(9.0), "b": torch.arange(7.0)}, path, {"pad": "12345678"})
    read = read_tensors(path, mapped=every)
    apart = [value for value in read.values() if value.data_ptr() % 64]
    assert apart
    for value in read.values():
        moved = aligned(value)
        assert moved.data_ptr() % 64 == 0
        assert torch.equal(moved, value)
    whole = torch.ones(3)
    assert aligned(whole) is whole
