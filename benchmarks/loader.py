"""How fast data is read: samples per second through the loader, in one process and with workers.

A step must never wait for data. Beside each rate stands how long a network may take for a batch
before reading it ahead in one process becomes the limit.
"""

import argparse
import tempfile
import time
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
    try:
        made["emoji 32×32"] = data.Emoji(32)
    except UsageError:
        # Machines without a colour-emoji font leave this row out.
        pass
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        sets = _sets(Path(root))
        head = f"{asked.workers} worker" + ("s" if asked.workers != 1 else "")
        print(f"samples per second, batches of {BATCH}; ms a batch in one process")
        print(f"{'data':28s} {'in process':>10s} {head:>10s} {'ms':>8s}")
        for name, dataset in sets.items():
            plain = rate(dataset, 0, asked.seconds)
            ahead = rate(dataset, asked.workers, asked.seconds)
            print(f"{name:28s} {plain:10.0f} {ahead:10.0f} {1000 * BATCH / plain:8.2f}")


if __name__ == "__main__":
    main()
