"""What tiles do to an autoencoder's pictures, what a preview shows, what kept latents save.

    python -m benchmarks.codecs --run runs/photos-kl

The first table decodes and encodes whole photographs of 256×256 at once, in tiles that overlap, and
cut apart without any overlap: the difference from the whole in parts of the range of a picture, and
the steps of that difference across the tiles' edges over those elsewhere (1 is no seam). The second
is the processor time of a training step behind the autoencoder, and of pixels.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fromnoise import data, encoders, nets, parameterizations, processes
from fromnoise.codecs import Codec, Learned
from fromnoise.codecs.preview import fit_preview
from fromnoise.codecs.tiling import Tiled
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.interop.loading import load
from fromnoise.training import Draws, ObjectiveSettings
from fromnoise.training.denoising import Denoising, denoising

SIDE, BATCH = 256, 16
_UNET = {
    "kind": "unet", "channels": 64, "multipliers": [1, 2], "blocks": 1, "style": {"groups": 8},
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was measured of one autoencoder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", default="runs/photos-kl")
    parser.add_argument("--tile", type=int, default=32)
    parser.add_argument("--overlap", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    model = load(options.run)
    codec = model.codec
    assert isinstance(codec, Learned)
    photos = data.load({"kind": "photos", "size": SIDE, "least": 1.0, "count": 26})
    x = photos.batch(range(len(photos.classes))).x
    with torch.no_grad():
        tiles(codec, x, options.tile, options.overlap)
        small = data.load({"kind": "photos", "size": model.shape[-1], "count": 200})
        preview = fit_preview(codec, small.batch(range(100)).x)
        print(f"\nthe preview explains {preview.share:.3f} of the variance of small pictures")
    steps(codec, model.shape, options.repeats)


def tiles(codec: Codec, x: Tensor, tile: int, overlap: int) -> None:
    """The table of tiles against the whole, at the mean and at the worst pixel."""
    step = tile - overlap
    side = x.shape[-1] // codec.factor
    edges = [codec.factor * (a + overlap // 2) for a in range(step, side - overlap, step)]
    z = codec.encode(x)
    whole = codec.decode(z)
    rows = {
        "overlapping tiles": Tiled(codec, tile, overlap).decode(z),
        "cut apart": _apart(codec.decode, z, tile),
    }
    print(f"{len(x)} photographs of {x.shape[-1]}×{x.shape[-1]}, tiles of {tile} latents")
    print(f"{'decoded':20}{'mean':>9}{'largest':>9}{'seam':>7}")
    for name, made in rows.items():
        at = edges if name != "cut apart" else [codec.factor * a for a in range(tile, side, tile)]
        print(f"{name:20}{_told(made - whole, 2.0, at)}")
    latents = Tiled(codec, tile, overlap).encode(x)
    print(f"{'encoded':20}{'mean':>9}{'largest':>9}  in standard deviations of latents")
    gap = (latents - z).abs() / z.std()
    print(f"{'overlapping tiles':20}{gap.mean():9.4f}{gap.max():9.4f}")


def _told(gap: Tensor, span: float, edges: Sequence[int]) -> str:
    steps = (gap[..., 1:] - gap[..., :-1]).abs().mean((0, 1, 2))
    seam = steps[[edge - 1 for edge in edges]].mean() / steps.median()
    return f"{gap.abs().mean() / span:9.4f}{gap.abs().max() / span:9.4f}{seam:7.2f}"


def _apart(compute: Callable[[Tensor], Tensor], z: Tensor, tile: int) -> Tensor:
    rows = [
        torch.cat([compute(part) for part in torch.split(row, tile, dim=3)], dim=3)
        for row in torch.split(z, tile, dim=2)
    ]
    return torch.cat(rows, dim=2)


def steps(codec: Learned, shape: Sequence[int], repeats: int) -> None:
    """Processor milliseconds of a step of a small U-Net, on one batch."""
    photos = data.load({"kind": "photos", "size": shape[-1], "count": 200}).batch(range(BATCH))
    with torch.no_grad():
        latents = codec.encode(photos.x)
    encoded = type(photos)(latents, photos.label, photos.index)
    ways = {
        "pixels": (_objective(3), photos),
        "latents on the way": (_objective(codec.latent, codec), photos),
        "latents from a file": (_objective(codec.latent, codec, True), encoded),
    }
    print(f"\n{'a step of ' + str(BATCH):20}{'ms':>9}")
    for name, (objective, batch) in ways.items():
        least = float("inf")
        for _ in range(repeats + 1):
            start = time.process_time()
            (phase,) = objective.phases(batch, Draws.of_step(0, 0, range(BATCH), BATCH))
            torch.autograd.backward(phase.loss, inputs=list(objective.denoiser.net.parameters()))
            least = min(least, time.process_time() - start)
        print(f"{name:20}{1e3 * least:9.0f}")


def _objective(channels: int, codec: Codec | None = None, encoded: bool = False) -> Denoising:
    torch.manual_seed(0)
    denoiser = NetworkDenoiser(
        nets.build({**_UNET, "in_channels": channels}),
        processes.PROCESSES.build({"kind": "gaussian", "schedule": {"kind": "cosine"}}),
        parameterizations.PARAMETERIZATIONS.build({"kind": "v"}),
    )
    made = denoising(denoiser, encoders.Conditioning({}), ObjectiveSettings())
    if codec is not None:
        made.behind(codec, encoded)
    return made


if __name__ == "__main__":
    main()
