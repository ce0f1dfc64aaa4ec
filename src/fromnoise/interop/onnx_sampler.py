"""Draw from the exported model in this folder: numpy and onnxruntime, Pillow for PNG.

    python sample.py -n 4 --seed 0 --sampler dpm++2m --steps 20 --out samples

With x_t = α·x0 + σ·ε the network is read as x0 = skip·x + out·F(inside·x, told); the numbers are
in schedule.json. Sample i draws its noise from its own generator, seeded with seed + i.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Row = Mapping[str, float]
SAMPLERS = ("ddim", "ddpm", "dpm++2m")


class Noise:
    """The normal numbers of torch's CPU generator of one seed.

    Mersenne Twister, seeded as numpy's `RandomState` is. From 16 numbers on, pairs of 24-bit
    uniform numbers 8 apart go through Box and Muller's formula in float32; below, pairs of 53-bit
    ones in float64, of which an odd one is kept for the next draw. Logarithm and sine may differ
    in the last digit, as they do between processors in torch itself.
    """

    def __init__(self, seed: int) -> None:
        if seed >= 2**32:
            mixed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
            seed = (mixed ^ (mixed >> 31)) & (2**32 - 1)
        self._engine = np.random.RandomState(seed)
        self._kept: list[float] = []

    def normal(self, shape: Sequence[int]) -> Array:
        """Standard normal float32 numbers."""
        size = int(np.prod(shape))
        drawn = self._few(size) if size < 16 else self._many(size)
        return drawn.astype(np.float32).reshape(shape)

    def _raw(self, count: int) -> Array:
        return self._engine.randint(0, 2**32, size=count, dtype=np.uint32)

    def _many(self, size: int) -> Array:
        values = self._uniform(size)
        whole = size // 16 * 16
        values[:whole] = _box_muller(values[:whole])
        if whole < size:
            # The last 16 are drawn anew where 16 does not divide the size.
            values[-16:] = _box_muller(self._uniform(16))
        return values

    def _uniform(self, count: int) -> Array:
        values: Array = (self._raw(count) & np.uint32(2**24 - 1)).astype(np.float32)
        return values / np.float32(2**24)

    def _few(self, size: int) -> Array:
        kept, self._kept = self._kept[:size], self._kept[size:]
        pairs = (size - len(kept) + 1) // 2
        high, low = self._raw(4 * pairs).reshape(2 * pairs, 2).astype(np.uint64).T
        bits = (high << np.uint64(32) | low) & np.uint64(2**53 - 1)
        angle, length = (bits.astype(np.float64) / 2**53).reshape(pairs, 2).T
        radius = np.sqrt(-2.0 * np.log1p(-length))
        waves = np.stack([np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle)], axis=1)
        drawn = [*kept, *(radius[:, None] * waves).ravel().tolist()]
        self._kept += drawn[size:]
        return np.array(drawn[:size])


def _box_muller(uniform: Array) -> Array:
    pairs = uniform.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - pairs[:, 0]))
    angle = np.float32(2.0 * np.pi) * pairs[:, 1]
    waves: Array = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return waves.reshape(-1)


class Folder:
    """The exported model: its schedule and its sessions."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        self.about: dict[str, Any] = json.loads((path / "schedule.json").read_text("utf-8"))
        if self.about["format"] != 1:
            sys.exit(f"schedule.json has format {self.about['format']}; this script reads 1")
        cpu = ["CPUExecutionProvider"]
        self.network = onnxruntime.InferenceSession(path / "denoiser.onnx", providers=cpu)
        decoder = path / "decoder.onnx"
        self.decoder = (
            onnxruntime.InferenceSession(decoder, providers=cpu) if decoder.exists() else None
        )
        self.inputs = {entry.name for entry in self.network.get_inputs()}

    def grid(self, name: str, steps: int) -> list[Row]:
        """The rows of a grid by column name; the last is where it ends."""
        grids = self.about["grids"]
        found = grids.get(name, {}).get(str(steps))
        if found is None:
            there = {key: ", ".join(counts) for key, counts in grids.items()}
            sys.exit(f"there is no grid {name} of {steps} steps; there are {there}")
        return [dict(zip(self.about["columns"], row, strict=True)) for row in found]

    def decode(self, x: Array) -> Array:
        """Samples as data: points, or pictures clipped to [−1, 1]."""
        if self.decoder is not None:
            x = self.decoder.run(None, {"z": x})[0]
        return x if len(self.about["shape"]) == 1 else x.clip(-1.0, 1.0)


class Belief:
    """What the network believes x0 to be, guided: null + scale·(told − null).

    told: one array for each label. A scale of 1 asks the network once.
    """

    def __init__(
        self, folder: Folder, told: Mapping[str, Array], null: Mapping[str, Array], scale: float
    ) -> None:
        self.folder = folder
        self.scale = scale
        guided = scale != 1.0
        self.told = {
            f"vector_{name}": np.concatenate([value, null[name]]) if guided else value
            for name, value in told.items()
        }
        self.own: Array | None = None

    def __call__(self, x: Array, row: Row) -> Array:
        both = x if self.scale == 1.0 else np.concatenate([x, x])
        given = {
            "x": np.float32(row["inside"]) * both,
            "time": np.full(len(both), row["told"], np.float32),
            **self.told,
        }
        if self.folder.about["self_conditioning"]:
            given["channels_self"] = np.zeros_like(both) if self.own is None else self.own
        if missing := self.folder.inputs - given.keys():
            sys.exit(
                f"the network also needs {', '.join(sorted(missing))}; see Belief in {__file__}"
            )
        output = self.folder.network.run(None, given)[0]
        if self.folder.about["learned_variance"]:
            output = output[:, : both.shape[1]]
        x0: Array = np.float32(row["skip"]) * both + np.float32(row["out"]) * output
        self.own = x0
        if self.scale == 1.0:
            return x0
        told, null = np.split(x0, 2)
        guided: Array = null + np.float32(self.scale) * (told - null)
        return guided


def log_ratio(row: Row) -> float:
    """λ = log(α/σ), ∞ at the data."""
    with np.errstate(divide="ignore"):
        return float(np.log(row["alpha"]) - np.log(row["sigma"]))


def ancestral(start: Row, end: Row, eta: float) -> tuple[float, float, float]:
    """x_s = keep·x_t + weight·x0 + noise·z: DDIM (Song et al. 2021, eq. 12), DDPM at η = 1."""
    h = log_ratio(end) - log_ratio(start)
    fresh = -np.expm1(-2 * h) if eta else 0.0
    with np.errstate(divide="ignore"):
        kept = 0.5 * np.log1p(-(eta**2) * fresh)
    keep = end["sigma"] / start["sigma"] * np.exp(kept)
    return keep, -end["alpha"] * np.expm1(kept - h), eta * end["sigma"] * np.sqrt(fresh)


def second_order(before: Row, start: Row, end: Row) -> tuple[float, float, float]:
    """x_s = keep·x_t + new·x0(t) + old·x0(before): DPM++ 2M (Lu et al. 2022, algorithm 2)."""
    h = log_ratio(end) - log_ratio(start)
    share = -end["alpha"] * np.expm1(-h)
    old = 0.5 * share * h / (log_ratio(before) - log_ratio(start))
    return end["sigma"] / start["sigma"], share - old, old


def walk(
    belief: Belief, x: Array, grid: Sequence[Row], noise: Sequence[Noise], sampler: str, eta: float
) -> Array:
    """x at the end of the grid."""
    history: tuple[Row, Array] | None = None
    for start, end in pairwise(grid):
        x0 = belief(x, start)
        # From pure noise and to pure data DPM++ 2M takes DDIM's step.
        flat = start["alpha"] == 0.0 or end["sigma"] == 0.0
        if sampler == "dpm++2m" and history is not None and not flat:
            before, old_x0 = history
            keep, new, old = (np.float32(v) for v in second_order(before, start, end))
            x = keep * x + new * x0 + old * old_x0
        else:
            keep, new, spread = (np.float32(v) for v in ancestral(start, end, eta))
            x = keep * x + new * x0
            if spread > 0:
                x = x + spread * np.stack([source.normal(x.shape[1:]) for source in noise])
        history = None if start["alpha"] == 0.0 else (start, x0)
    return x


def vectors(about: Mapping[str, Any], name: str, given: str | None, count: int) -> Array:
    """One-hot (count, classes) of one label, or of one for each sample; the null of none."""
    label = about["labels"][name]
    if given is None:
        return np.tile(np.array(label["null"], np.float32), (count, 1))
    names = [str(entry) for entry in label["names"]]
    asked = [part.strip() for part in given.split(",")]
    asked = asked * count if len(asked) == 1 else asked
    if len(asked) != count:
        sys.exit(f"{len(asked)} labels given for {count} samples; give one, or one for each")
    made = np.zeros((count, len(names)), np.float32)
    for place, entry in enumerate(asked):
        whole = entry.isdecimal() and int(entry) < len(names)
        if not whole and entry not in names:
            sys.exit(f"{name} {entry} is none of 0 to {len(names) - 1}, {', '.join(names[:20])}")
        made[place, int(entry) if whole else names.index(entry)] = 1.0
    return made


def draw(folder: Folder, choice: argparse.Namespace) -> Array:
    """Samples as data, (count, ...)."""
    about = folder.about
    eta = 1.0 if choice.sampler == "ddpm" else choice.eta
    if eta and choice.sampler == "dpm++2m":
        sys.exit("dpm++2m adds no noise; use --sampler ddim with --eta")
    given = {name: getattr(choice, f"label_{name}") for name in about["labels"]}
    told_something = any(value is not None for value in given.values())
    default = about["defaults"]["guidance"] if told_something else 1.0
    scale = default if choice.guidance is None else choice.guidance
    if scale != 1.0 and not told_something:
        sys.exit("guidance strengthens what a model is told, and it was told nothing")
    grid = folder.grid(choice.grid, choice.steps)
    told = {name: vectors(about, name, value, choice.count) for name, value in given.items()}
    null = {name: vectors(about, name, None, choice.count) for name in given}
    shape = [*about["latent_shape"][:1], *(choice.size or about["latent_shape"][1:])]
    spread = np.float32(np.hypot(grid[0]["alpha"], grid[0]["sigma"]))
    parts = []
    for first in range(0, choice.count, choice.batch):
        rows = slice(first, min(first + choice.batch, choice.count))
        noise = [Noise(choice.seed + i) for i in range(rows.start, rows.stop)]
        belief = Belief(
            folder,
            {name: value[rows] for name, value in told.items()},
            {name: value[rows] for name, value in null.items()},
            scale,
        )
        x = spread * np.stack([source.normal(shape) for source in noise])
        parts.append(folder.decode(walk(belief, x, grid, noise, choice.sampler, eta)))
    return np.concatenate(parts)


def write(samples: Array, out: Path, array: bool) -> None:
    """PNG files of grey or RGB pictures; samples.npy of anything else, or where it is asked for."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = samples.ndim == 4 and samples.shape[1] in (1, 3)
    if array or not pictures:
        np.save(out / "samples.npy", samples)
    if not pictures:
        return
    from PIL import Image

    pixels = ((samples + 1.0) * 127.5).round().clip(0, 255).astype(np.uint8)
    for place, picture in enumerate(pixels.transpose(0, 2, 3, 1)):
        grey = picture.shape[-1] == 1
        Image.fromarray(picture[..., 0] if grey else picture).save(out / f"{place:06}.png")


def arguments(about: Mapping[str, Any], given: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for on the command line; the rest as the model likes it."""
    likes = about["defaults"]
    sampler = likes["sampler"] if likes["sampler"] in SAMPLERS else "dpm++2m"
    parser = argparse.ArgumentParser(description=f"Draw from {about['name']}.")
    parser.add_argument("-n", "--count", type=int, default=1, help="how many samples")
    parser.add_argument("--seed", type=int, default=0, help="of the first sample; then one more")
    parser.add_argument("--sampler", choices=SAMPLERS, default=sampler)
    parser.add_argument("--grid", choices=sorted(about["grids"]), default=likes["grid"])
    parser.add_argument("--steps", type=int, default=likes["steps"])
    parser.add_argument("--guidance", type=float, default=None, help="1 is none")
    parser.add_argument("--eta", type=float, default=0.0, help="how much noise ddim adds, to 1")
    parser.add_argument("--batch", type=int, default=64, help="samples the network takes at once")
    parser.add_argument("--size", type=int, nargs="*", help="of latents, where it may vary")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder to write to")
    parser.add_argument("--array", action="store_true", help="also write samples.npy")
    for name, label in about["labels"].items():
        parser.add_argument(
            f"--{name}",
            dest=f"label_{name}",
            help=f"number or name, or one for each sample with commas: {label['names'][:12]}",
        )
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Draw and write."""
    folder = Folder(Path(__file__).parent)
    choice = arguments(folder.about, given)
    samples = draw(folder, choice)
    write(samples, choice.out, choice.array)
    print(f"{len(samples)} samples in {choice.out}")


if __name__ == "__main__":
    main()
