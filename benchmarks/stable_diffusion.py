"""Stable Diffusion 1.5 with random weights, ours against diffusers: one process each, in turn.

    python -m benchmarks.stable_diffusion [--size 32 --steps 4 --width 64] [--rounds N]

A pipeline is written once, and every peer opens the same files: load time, the first step of the
network, which may have to read weights and lay them out, and a later one (a prompt and no prompt in
one batch), decoding one picture, a whole picture, and the most memory the process held. Times are
of the processor, which other work on the machine disturbs less, and of the clock. At full size a
peer takes up to 10 GB, the files 4 GB; `OMP_NUM_THREADS` is obeyed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

PEERS = {
    "diffusers, float32": ("diffusers", "float32"),
    "fromnoise, exact": ("fromnoise", "float32"),
    "diffusers, bfloat16": ("diffusers", "bfloat16"),
    "fromnoise, default": ("fromnoise", "auto"),
}
"""What is compared, the one that ratios are of first."""

PROMPT = "a lighthouse at night"
WHAT = ("load", "first step", "step", "decode", "picture")


def make(folder: Path, width: int) -> None:
    """Write a pipeline with the layout of Stable Diffusion 1.5 and random weights."""
    from diffusers import (
        AutoencoderKL,
        DPMSolverMultistepScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    scaled = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        cross_attention_dim=768,
    )
    vae = AutoencoderKL(
        block_out_channels=tuple(max(32, width * 2 // 5) * n for n in (1, 2, 4, 4)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    clip = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(clip),
        tokenizer=CLIPTokenizer.from_pretrained(_letters(folder / "words"), model_max_length=77),
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(**scaled, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def _letters(folder: Path) -> Path:
    """A vocabulary of single letters, with CLIP's two marks where CLIP has them."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = {word: i for i, word in enumerate(letters + [f"{one}</w>" for one in letters])}
    words |= {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(words), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    return folder


Parts = dict[str, Callable[[], Tensor]]
T = TypeVar("T")


def _theirs(folder: str, dtype: str, size: int, steps: int) -> Parts:
    from diffusers import StableDiffusionPipeline

    kind = getattr(torch, dtype)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=kind)
    pipeline.set_progress_bar_config(disable=True)
    vae = pipeline.vae
    x, t, tokens, z = (part.to(kind) for part in _given(size))
    side, options = 8 * size, {"latents": z, "guidance_scale": 7.5, "output_type": "pt"}
    return {
        "step": lambda: pipeline.unet(x, t, encoder_hidden_states=tokens).sample,
        "decode": lambda: vae.decode(z / vae.config.scaling_factor).sample.clamp(-1, 1),
        "picture": lambda: 2.0 * pipeline(PROMPT, side, side, steps, **options).images - 1.0,
    }


def _ours(folder: str, dtype: str, size: int, steps: int) -> Parts:
    import fromnoise as fn
    from fromnoise.layers.condition import Condition, Tokens
    from fromnoise.model.draw import precision

    model = fn.load(folder)
    x, t, tokens, z = _given(size)
    net = model.prepared(precision(dtype, model.denoiser.net)).net
    told = Condition(tokens=Tokens(tokens))
    side = 8 * size
    return {
        "step": lambda: net(x, t, told),
        "decode": lambda: model.decode(z, dtype),
        "picture": lambda: (
            model.sample(
                1,
                prompt=PROMPT,
                steps=steps,
                guidance=7.5,
                start=z,
                dtype=dtype,
                shape=(3, side, side),
            ).tensor
        ),
    }


def _given(size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, times and tokens of a step, and latents of one picture."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, size, size, generator=generator)
    tokens = torch.randn(2, 77, 768, generator=generator)
    return x, torch.full((2,), 500.0), tokens, x[:1]


@torch.no_grad()
def measure(peer: str, folder: Path, size: int, steps: int, repeats: int) -> dict[str, Any]:
    """What one peer takes, in this process."""
    library, dtype = PEERS[peer]
    opened = {"diffusers": _theirs, "fromnoise": _ours}[library]
    found: dict[str, Any] = {}
    parts, found["load"] = _timed(lambda: opened(str(folder), dtype, size, steps))
    answers: dict[str, Tensor] = {}
    for name in WHAT[1:]:
        if name == "picture" and not steps:
            continue
        taken = []
        for _ in range(repeats if name == "step" else 1):
            answers[name], once = _timed(parts[name.removeprefix("first ")])
            taken.append(once)
        found[name] = min(taken)
    save_file({k: v.float().contiguous() for k, v in answers.items()}, folder / f"{peer}.out")
    found["memory"] = peak()
    return found


def _timed(function: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """What a function gives, and the seconds of the processor and of the clock it took."""
    began = time.process_time(), time.perf_counter()
    given = function()
    return given, (time.process_time() - began[0], time.perf_counter() - began[1])


def peak() -> float:
    """The most memory of this process, GiB; the kernel's `ru_maxrss` would count its parent's."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def _child(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.stable_diffusion", *arguments]
    quiet = {"DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **quiet}
    )
    return done.stdout


def show(rounds: Sequence[Mapping[str, Mapping[str, Any]]], folder: Path) -> None:
    """Print the table: processor seconds, ratios to the first peer with their spread, memory."""
    peers = list(rounds[0])
    truth = load_file(folder / f"{peers[0]}.out")
    for what in WHAT:
        if what not in rounds[0][peers[0]]:
            continue
        print(
            f"\n{what:22}{'cpu s':>8}{'clock s':>9}{'speed':>8}  {'(spread)':14}{'difference':>10}"
        )
        for peer in peers:
            ratios = [one[peers[0]][what][0] / one[peer][what][0] for one in rounds]
            cpu, clock = (min(one[peer][what][i] for one in rounds) for i in (0, 1))
            far = ""
            if what in truth:
                made = load_file(folder / f"{peer}.out")[what]
                far = f"{((made - truth[what]).norm() / truth[what].norm()).item():.1e}"
            spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
            middle = statistics.median(ratios)
            print(f"{peer:22}{cpu:8.2f}{clock:9.2f}{middle:8.2f}  {spread:14}{far:>10}")
    print(f"\n{'most memory':22}{'GiB':>8}")
    for peer in peers:
        print(f"{peer:22}{max(one[peer]['memory'] for one in rounds):8.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every peer in a process of its own, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=64, help="side of the latents")
    parser.add_argument("--steps", type=int, default=20, help="of the picture; 0 leaves it out")
    parser.add_argument(
        "--width",
        type=int,
        default=320,
        help="channels of the first level, a multiple of 160, or at most 64",
    )
    parser.add_argument("--repeats", type=int, default=2, help="of the step, the least counts")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer", choices=tuple(PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.peer:
        given = (asked.folder, asked.size, asked.steps, asked.repeats)
        print(json.dumps(measure(asked.peer, *given)))
        return
    if asked.folder:
        make(asked.folder, asked.width)
        return
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "pipeline"
        _child("--folder", str(folder), "--width", str(asked.width))
        sizes = [f"--{key}={getattr(asked, key)}" for key in ("size", "steps", "repeats")]
        rounds = []
        for _ in range(asked.rounds):
            found = {}
            for peer in PEERS:
                text = _child("--peer", peer, "--folder", str(folder), *sizes)
                found[peer] = json.loads(text.splitlines()[-1])
                print(peer, found[peer], file=sys.stderr, flush=True)
            rounds.append(found)
        threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
        print(
            f"Stable Diffusion 1.5, width {asked.width}, latents {asked.size}×{asked.size}, "
            f"{asked.steps} steps, {threads} threads, {asked.rounds} rounds"
        )
        show(rounds, folder)


if __name__ == "__main__":
    main()
