"""How fast data is read: samples per second through the loader, in one process and with workers.

A step must never wait for data. Beside each rate stands how long a network may take for a batch
before reading it ahead in one process becomes the limit.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fromnoise import data
from fromnoise.core.errors import UsageError

BATCH = 64


def _folder(root: Path, count: int, side: int) -> Path:
    """PNGs as cameras and screens leave them: smooth with some grain, a little over the size."""
    random = np.random.Generator(np.random.PCG64(0))
    root.mkdir()
    for i in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int64)
        grain = random.integers(-4, 5, smooth.shape)
        Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(
            root / f"{i:04d}.png"
        )
    return root


def _sets(root: Path) -> dict[str, data.Dataset]:
    pictures = str(_folder(root / "pictures", 256, 96))
    made = {
        "digits 8×8": data.Digits(),
        "glyphs 32×32, moved": data.Glyphs(32, variants=10),
        "shapes 64×64, drawn": data.Shapes(64),
        "photos 32×32, cropped": data.Photos(32),
        "photos 64×64, cropped": data.Photos(64),
        "PNGs 96 to 64, kept": data.Folder(pictures, 64),
        "PNGs 96 to 64, read anew": data.Folder(pictures, 64, keep_bytes=0),
    }
    # Machines without a colour-emoji font leave this row out.
    with contextlib.suppress(UsageError):
        made["emoji 32×32"] = data.Emoji(32)
    return made


def rate(dataset: data.Dataset, workers: int, seconds: float) -> float:
    """Samples per second, after the first batches, which start the workers."""
    batches = data.Loader(dataset, BATCH, seed=0, workers=workers).start(0)
    for _ in islice(batches, 2 + 2 * workers):
        pass
    begin, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        count += len(next(batches))
    return count / passed


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        sets = _sets(Path(root))
        print(f"samples per second, batches of {BATCH}, in this process and with {asked.workers}")
        print("reading ahead; and the milliseconds a batch takes in this process")
        print(f"{'data':26s} {'here':>9s} {'ahead':>9s} {'ms':>7s}")
        for name, dataset in sets.items():
            here = rate(dataset, 0, asked.seconds)
            ahead = rate(dataset, asked.workers, asked.seconds)
            print(f"{name:26s} {here:9.0f} {ahead:9.0f} {1000 * BATCH / here:7.2f}")
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
