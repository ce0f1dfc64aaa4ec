"""Latents in a file: the samples of a data set that is otherwise the pictures'."""

from pathlib import Path

import pytest
import torch

from fromnoise import data
from fromnoise.core.errors import FileError
from fromnoise.data.encoded import Encoded, write_encoded

PHOTOS = {"kind": "photos", "size": 8, "count": 30}


def made(path: Path, count: int = 30, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    latents = torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    write_encoded(path, latents, data.load(PHOTOS), "a codec", "0123")
    return latents


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_are_the_latents_and_all_else_the_pictures(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    path = tmp_path / "latents.safetensors"
    latents, photos = made(path, dtype=dtype), data.load(PHOTOS)
    encoded = data.load({"kind": "encoded", "path": str(path)})
    assert isinstance(encoded, Encoded) and encoded.codec == "0123"
    assert (encoded.shape, encoded.levels) == ((2, 4, 4), None)
    batch, pictures = encoded.batch([3, 17]), photos.batch([3, 17])
    assert torch.equal(batch.x, latents[[3, 17]].float()) and batch.x.dtype == torch.float32
    assert torch.equal(batch.label, pictures.label) and batch.caption == pictures.caption
    assert encoded.pictured is not None
    assert torch.equal(encoded.pictured.batch([3, 17]).x, pictures.x)
    assert encoded.classes == photos.classes


def test_a_split_of_latents_is_that_of_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "latents.safetensors"
    made(path)
    encoded = data.load({"kind": "encoded", "path": str(path)})
    for ours, theirs in zip(encoded.split(0.3), data.load(PHOTOS).split(0.3), strict=True):
        assert ours.indices.tolist() == theirs.indices.tolist()
        assert ours.pictured is not None and theirs.pictured is None
        assert torch.equal(ours.pictured.batch([0]).x, theirs.batch([0]).x)


def test_what_is_missing_damaged_or_of_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="fromnoise data encode RUN"):
        data.load({"kind": "encoded", "path": str(tmp_path / "none.safetensors")})
    other = tmp_path / "vectors.safetensors"
    data.embedded.write_embedded(other, torch.zeros(30, 4), data.load(PHOTOS), "a tower")
    with pytest.raises(FileError, match="holds no latents"):
        data.load({"kind": "encoded", "path": str(other)})
    short = tmp_path / "short.safetensors"
    made(short, count=12)
    with pytest.raises(FileError, match="has 12 latents, and its data has 30"):
        data.load({"kind": "encoded", "path": str(short)})
    broken = tmp_path / "broken.safetensors"
    write_encoded(broken, torch.full((30, 2, 4, 4), torch.nan), data.load(PHOTOS), "", "")
    with pytest.raises(FileError, match="not finite"):
        data.load({"kind": "encoded", "path": str(broken)})
