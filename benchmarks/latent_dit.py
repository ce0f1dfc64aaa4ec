"""U-Net against transformer on the same latents, at as many operations in each training step.

    python -m benchmarks.latent_dit --codec runs/shapes-kl --steps 3000 -n 300

`shapes-latent-unet` and `shapes-latent-dit` differ in the network alone. Operations are those of a
forward and a backward pass for one sample, counted by torch (a multiplication and an addition are
two); the sizes are chosen so that they agree within 5 %. Both are trained for the same steps, on
the same noise. The table gives the held-out loss, and of pictures drawn for captions the share of
attributes that are right, with 95 % intervals: for captions that training showed, for captions it
never showed, and for pairs of colour and kind left out of it.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.latent import shown
from fromnoise import nets
from fromnoise.app.asked import asked, recipe_of
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import TrainRequest
from fromnoise.app.train import prepare, split
from fromnoise.core.files import write_bytes
from fromnoise.core.images import png_bytes
from fromnoise.encoders.prompts import escaped
from fromnoise.evaluate.prompts import prompt_sets, scene_judge, shares
from fromnoise.interop.loading import load
from fromnoise.model import Samples
from fromnoise.model.memory import nothing_told
from fromnoise.nets import Network
from fromnoise.recipes import get

NAMES = ("shapes-latent-unet", "shapes-latent-dit")
WORDS = 24


def operations(config: Mapping[str, Any], shape: tuple[int, ...]) -> int:
    """Of a forward and a backward pass of a network for one sample (C, H, W); nothing is computed.

    A network that is told by tokens is told so many `WORDS`.
    """
    net: Network = nets.build(config, device="meta")

    def make(size: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(size, device="meta")

    x, time_of = make((1, *shape)).requires_grad_(), make((1,))
    with FlopCounterMode(display=False) as counter:
        net(x, time_of, nothing_told(net, 1, shape, make, WORDS)).sum().backward()
    total: int = counter.get_total_flops()
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--codec", default="runs/shapes-kl")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("-n", "--captions", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=None)
    parser.add_argument("--pictures", type=Path, default=None)
    parser.add_argument("--keep", type=Path, default=None, help="folder the runs stay in")
    options = parser.parse_args(arguments)
    head = f"{'':20}{'parameters':>11}{'operations':>12}{'ms a step':>11}{'held-out':>10}"
    print(head + "".join(f"{name:>28}" for name in ("seen", "unseen", "unseen pairs")))
    with tempfile.TemporaryDirectory() as place:
        folder = options.keep or Path(place)
        for name in NAMES:
            print(row(name, folder / name, options), flush=True)


def row(name: str, folder: Path, options: argparse.Namespace) -> str:
    """One of the two trained, and its figures."""
    train = {
        "steps": options.steps, "validate_every": options.steps, "checkpoint_every": 0,
        "sample_every": 0, "warmup": min(get(name).train.warmup, options.steps // 10),
    }  # fmt: skip
    request = TrainRequest(recipe=name, codec=options.codec, out=str(folder), train=train)
    it = asked(request, Silent())
    run, _ = prepare(it.recipe, it.folder, Silent(), it.whole, it.base, it.codec)
    start, held_out = time.process_time(), float("nan")
    for event in run.train():
        held_out = held_out if event.validation is None else event.validation
    spent = 1e3 * (time.process_time() - start) / options.steps
    model = load(folder)
    count = sum(p.numel() for p in model.denoiser.net.parameters())
    latent = model.codec.latent_shape(model.shape)
    line = f"{name:20}{count:11,}{operations(model.denoiser.net.config, latent):12,}"
    return f"{line}{spent:11.0f}{held_out:10.4f}{judged(name, folder, options)}"


def judged(name: str, folder: Path, options: argparse.Namespace) -> str:
    """Shares of attributes that the drawn pictures show, of each kind of caption."""
    model, (train, held_out) = load(folder), split(recipe_of(folder))
    columns = []
    for kind, prompts in prompt_sets(train, held_out, options.captions).items():
        drawn = model.sample(
            len(prompts), prompt=[escaped(text) for text in prompts], guidance=options.guidance
        )
        found = dict(shares(scene_judge(drawn.tensor, prompts)))
        columns.append(f"{shown(found['attributes']):>28}")
        if options.pictures is not None:
            sheet = png_bytes(Samples(drawn.tensor[:40], {}).sheet(columns=10))
            write_bytes(options.pictures / f"{name}-{kind}.png", sheet)
    return "".join(columns)


if __name__ == "__main__":
    main()
