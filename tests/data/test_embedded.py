"""Vectors of a data set in a file: the same samples, captions and split as the data's own."""

from pathlib import Path

import pytest
import torch

from fromnoise import data
from fromnoise.core.errors import FileError
from fromnoise.core.files import save_tensors
from fromnoise.data.embedded import EMBEDDING, Embedded, write_embedded

SHAPES = {"kind": "shapes", "size": 32, "count": 12}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    vectors = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    write_embedded(tmp_path / "v.safetensors", vectors, data.load(SHAPES), "a test")
    return tmp_path / "v.safetensors"


def test_vectors_stand_for_the_samples_and_beside_them(path: Path) -> None:
    whole = data.load(SHAPES).batch([3, 0, 11])
    vectors = data.load({"kind": "embedded", "path": str(path)})
    pictures = data.load({"kind": "embedded", "path": str(path), "part": "pictures"})
    assert vectors.shape == (5,) and vectors.levels is None and len(vectors) == 12
    assert pictures.shape == (3, 32, 32) and pictures.levels == 256
    alone, beside = vectors.batch([3, 0, 11]), pictures.batch([3, 0, 11])
    assert torch.equal(beside.x, whole.x)
    assert torch.equal(beside.given[EMBEDDING], alone.x) and not alone.given
    assert alone.caption == beside.caption == whole.caption
    # A split is the data's own, so that what is held out of one is held out of the other.
    for one in (vectors, pictures):
        held_out = one.split(0.25)[1].batch([0, 1, 2])
        assert held_out.caption == data.load(SHAPES).split(0.25)[1].batch([0, 1, 2]).caption


def test_a_file_that_is_none_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileError, match="data embed"):
        Embedded(str(tmp_path / "none.safetensors"))
    other = tmp_path / "other.safetensors"
    save_tensors(other, {"vectors": torch.zeros(3, 5)})
    with pytest.raises(FileError, match="holds no vectors"):
        Embedded(str(other))
    write_embedded(other, torch.zeros(11, 5), data.load(SHAPES), "a test")
    with pytest.raises(FileError, match="11 vectors, and its data has 12"):
        Embedded(str(other))
    write_embedded(other, torch.full((12, 5), torch.inf), data.load(SHAPES), "a test")
    with pytest.raises(FileError, match="finite"):
        Embedded(str(other))
    other.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileError):
        Embedded(str(other))
