"""Pictures or vectors in a NumPy file, with labels if it has them."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import FileError, UsageError
from fromnoise.data.base import DATA, Dataset

MAX_BYTES = 2**34
Array = np.ndarray[Any, Any]


@DATA.register("arrays")
class Arrays(Dataset):
    """A .npz file with `images` and optional `labels`, or a .npy file of images; no pickles.

    Images are (N, H, W), (N, H, W, C), (N, C, H, W), or vectors (N, D); with 1, 3 or 4 channels.
    low, high: the values that become −1 and 1; 0 and 255 for uint8, and required for other types
    unless there are negative values and all lie in [−1, 1]. classes: names, instead of numbers.
    Raises FileError for a file that is missing, damaged, holds objects, or values beyond the range.
    """

    def __init__(
        self,
        path: str,
        classes: Sequence[str] = (),
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        images, labels = _read(Path(path))
        if labels is not None and labels.shape != images.shape[:1]:
            raise FileError(f"{path}: labels have shape {labels.shape} for {len(images)} images")
        self._images = _planes(images, path)
        self._low, self._high = _range(images, low, high, path)
        self.name, self.shape = Path(path).stem, self._images.shape[1:]
        exact = images.dtype == np.uint8 and (self._low, self._high) == (0.0, 255.0)
        self.levels = 256 if exact else None
        self.labels = None if labels is None else torch.from_numpy(_numbers(labels, path))
        self.classes = _names(self.labels, classes, path)

    def __len__(self) -> int:
        return len(self._images)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        unit = (self._images[indices].astype(np.float64) - self._low) / (self._high - self._low)
        return torch.from_numpy((2.0 * unit - 1.0).astype(np.float32))


def _read(path: Path) -> tuple[Array, Array | None]:
    if not path.is_file():
        raise FileError(f"{path} does not exist; check the path")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_BYTES:
                raise FileError(f"{path} unpacks to {size} bytes; at most {MAX_BYTES} are read")
            with np.load(path, allow_pickle=False) as archive:
                return _members(archive, path)
        # Mapped, a file that is larger than memory can be used too.
        return np.load(path, mmap_mode="r", allow_pickle=False), None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise FileError(
                f"{path} holds pickled objects; they can run code when opened and are never "
                "loaded. Save plain numbers with numpy.savez(…)"
            ) from None
        raise FileError(f"{path} is damaged or no NumPy file: {error}") from None


def _members(archive: Mapping[str, Array], path: Path) -> tuple[Array, Array | None]:
    if "images" not in archive:
        held = ", ".join(archive) or "nothing"
        raise FileError(f"{path} has no array named images; it holds {held}")
    return archive["images"], archive.get("labels")


def _planes(images: Array, path: str) -> Array:
    """The images as (N, C, H, W), or vectors (N, D)."""
    if images.dtype.kind not in "uif":
        raise FileError(f"{path}: images of type {images.dtype} are not numbers to train on")
    if len(images) == 0 or math.prod(images.shape) == 0 or images.ndim not in (2, 3, 4):
        raise FileError(
            f"{path}: images have shape {images.shape}; use (N, H, W), (N, H, W, C) or (N, D)"
        )
    if images.ndim == 2:
        return images
    if images.ndim == 3:
        return images[:, None]
    if images.shape[-1] in (1, 3, 4):
        return images.transpose(0, 3, 1, 2)
    if images.shape[1] in (1, 3, 4):
        return images
    raise FileError(
        f"{path}: images have shape {images.shape}; one side must be 1, 3 or 4 channels"
    )


def _range(images: Array, low: float | None, high: float | None, path: str) -> tuple[float, float]:
    least, most = float(images.min()), float(images.max())
    if not (math.isfinite(least) and math.isfinite(most)):
        raise FileError(f"{path}: images hold values that are not finite")
    if (low is None) != (high is None):
        raise UsageError(f"{path}: give low and high together")
    if low is None or high is None:
        if images.dtype == np.uint8:
            return 0.0, 255.0
        if least < 0.0 and least >= -1.0 and most <= 1.0 and images.dtype.kind == "f":
            return -1.0, 1.0
        raise UsageError(
            f"{path}: images are {images.dtype} from {least:g} to {most:g}; say what is black and "
            "white with low and high, e.g. low=0 high=1"
        )
    if not low < high:
        raise UsageError(f"low is {low:g} and high {high:g}; low must be the smaller")
    if least < low or most > high:
        raise FileError(
            f"{path}: images go from {least:g} to {most:g}, beyond low={low:g} and high={high:g}"
        )
    return low, high


def _numbers(labels: Array, path: str) -> "np.ndarray[Any, np.dtype[np.int64]]":
    if labels.dtype.kind not in "ui" or labels.min() < 0:
        raise FileError(f"{path}: labels must be whole numbers from 0, not {labels.dtype}")
    return labels.astype(np.int64)


def _names(labels: Tensor | None, classes: Sequence[str], path: str) -> tuple[str, ...]:
    if labels is None:
        if classes:
            raise UsageError(f"{path} has no labels, so class names mean nothing")
        return ()
    count = int(labels.max()) + 1
    if classes and len(classes) < count:
        raise UsageError(f"{path} has labels up to {count - 1}; {len(classes)} names are too few")
    return tuple(classes) or tuple(str(i) for i in range(count))
