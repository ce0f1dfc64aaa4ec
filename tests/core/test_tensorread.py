"""Tensors read into memory of their own, and modules made without any."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fromnoise.core.errors import FileError
from fromnoise.core.meta import without_memory
from fromnoise.core.tensorread import read_tensors


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
    from fromnoise.core import tensorread

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
