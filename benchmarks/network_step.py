"""One step of DDPM's CIFAR-10 network against diffusers', in turn in one process.

    python -m benchmarks.network_step [--repeats N]

The two networks have the same random weights. Each figure is the least of the repeats, which are
interleaved so that other work on the machine disturbs all alike.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from diffusers import UNet2DModel
from torch import Tensor

from benchmarks.timing import Row, in_turn, show
from fromnoise import nets
from fromnoise.interop.unet2d_keys import to_diffusers
from fromnoise.layers.fast import prepare

BATCH = 16
REPEATS = 10


def reference(network: nets.Network) -> UNet2DModel:
    """diffusers' network of google/ddpm-cifar10-32 with our weights."""
    theirs = UNet2DModel(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )
    theirs.load_state_dict(to_diffusers(network.state_dict()))
    return theirs.eval()


def contestants() -> tuple[dict[str, Callable[[Tensor, Tensor], Tensor]], list[str]]:
    """What is timed, the reference first, and what the speed path says it did."""
    torch.manual_seed(0)
    network = nets.build("ddpm-cifar10").eval()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    theirs = reference(network)
    exact, exact_report = prepare(network, exact=True)
    fast, fast_report = prepare(network)
    functions = {
        "diffusers, float32": lambda x, t: theirs(x, t).sample,
        "fromnoise, plain float32": network,
        "fromnoise, exact": exact,
        "fromnoise, default": fast,
    }
    return functions, [f"exact: {exact_report}", f"default: {fast_report}"]


@torch.inference_mode()
def measure(repeats: int) -> list[Row]:
    """diffusers' network and ours on the same inputs."""
    torch.set_num_threads(2)
    functions, reports = contestants()
    print("\n".join(reports))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 3, 32, 32, generator=generator)
    t = torch.full((BATCH,), 500.0)
    return in_turn({name: partial(f, x, t) for name, f in functions.items()}, repeats)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    repeats = parser.parse_args(arguments).repeats
    rows = measure(repeats)
    how = f"batch {BATCH}, 2 threads, least of {repeats} repeats"
    show(f"DDPM CIFAR-10 network, {how}", rows)


if __name__ == "__main__":
    main()
