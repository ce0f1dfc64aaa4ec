"""Start-up: from a fresh interpreter to a model that can sample, ours and diffusers', in turn."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = """
import fromnoise as fn
model = fn.load({folder!r})
model.sample
"""
THEIRS = """
from diffusers import DDPMPipeline
pipeline = DDPMPipeline.from_pretrained({folder!r})
"""
TORCH = "import torch"


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


def main(repeats: int = 5) -> None:
    with tempfile.TemporaryDirectory() as root:
        ours, theirs = _folders(Path(root))
        codes = {
            "torch alone": TORCH,
            "fromnoise, model loaded": OURS.format(folder=ours),
            "diffusers, pipeline loaded": THEIRS.format(folder=theirs),
        }
        best = dict.fromkeys(codes, float("inf"))
        for _ in range(repeats):
            for name, code in codes.items():
                best[name] = min(best[name], _seconds(code))
    print(f"start-up, best of {repeats}, in turn")
    for name, seconds in best.items():
        print(f"  {name:28s} {seconds:6.2f} s")


if __name__ == "__main__":
    main()
