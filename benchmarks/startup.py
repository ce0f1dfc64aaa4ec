"""Start-up: from a fresh interpreter to a model that can sample, ours and diffusers', in turn.

    python -m benchmarks.startup [--repeats N]

Each figure is a whole process: the interpreter's start, the imports, a small saved network opened,
and in the last two rows one sampling step, so that nothing is hidden by importing it late. A round
of all comes first and is not counted: after it the files are in the system's cache for both.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

OURS = """
import fromnoise as fn
model = fn.load({folder!r})
"""
THEIRS = """
from diffusers import DDPMPipeline
pipeline = DDPMPipeline.from_pretrained({folder!r})
"""
OUR_STEP = "model.sample(1, sampler='ddpm', steps=1, dtype='float32')"
THEIR_STEP = """
pipeline.set_progress_bar_config(disable=True)
pipeline(num_inference_steps=1, output_type="np")
"""


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return time.perf_counter() - start


def _folders(root: Path) -> tuple[str, str]:
    """The same small network saved our way and diffusers' way."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    from fromnoise import codecs, encoders, nets, parameterizations, processes, schedules
    from fromnoise.denoisers import NetworkDenoiser
    from fromnoise.model import Model

    torch.manual_seed(0)
    net = nets.build({"kind": "unet", "channels": 32, "multipliers": [1, 2]})
    denoiser = NetworkDenoiser(net, processes.Gaussian(schedules.linear()), parameterizations.Eps())
    model = Model(denoiser, (3, 32, 32), codecs.Identity(), encoders.Conditioning({}))
    model.save(root / "ours")
    unet = UNet2DModel(
        sample_size=32,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(root / "theirs")
    return str(root / "ours"), str(root / "theirs")


def _programs(root: Path) -> dict[str, str]:
    folders = _folders(root)
    ours, theirs = (c.format(folder=f) for c, f in zip((OURS, THEIRS), folders, strict=True))
    return {
        "torch alone": "import torch",
        "fromnoise, model loaded": ours,
        "diffusers, pipeline loaded": theirs,
        "fromnoise, one step taken": ours + OUR_STEP,
        "diffusers, one step taken": theirs + THEIR_STEP,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args(arguments).repeats
    with tempfile.TemporaryDirectory() as root:
        programs = _programs(Path(root))
        rounds = [
            {name: _seconds(code) for name, code in programs.items()} for _ in range(repeats + 1)
        ][1:]
    print(f"start-up, seconds of {repeats} rounds in turn")
    print(f"{'':28s}{'least':>8s}{'median':>8s}")
    for name in programs:
        taken = [one[name] for one in rounds]
        print(f"{name:28s}{min(taken):8.2f}{statistics.median(taken):8.2f}")


if __name__ == "__main__":
    main()
