"""Tiny networks and pipelines of diffusers, noise in every parameter, saved as it saves them."""

import math
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiTTransformer2DModel, UNet2DModel
from torch import Tensor, nn

UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": None,
}
DIT: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 4,
    "num_embeds_ada_norm": 1000,
}


def filled(model: nn.Module) -> Any:
    """A network with noise added to every parameter, also to those that start at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 0.2 if parameter.ndim == 1 else 1 / math.sqrt(parameter[0].numel())
            parameter.add_(noise * scale)
    return model.eval()


def unet(**changes: Any) -> UNet2DModel:
    return filled(UNet2DModel(**UNET | changes))


def dit(**changes: Any) -> DiTTransformer2DModel:
    """With one embedding for all blocks, as in every published file."""
    model = filled(DiTTransformer2DModel(**DIT | changes))
    shared = model.transformer_blocks[0].norm1.emb.state_dict()
    for block in model.transformer_blocks:
        block.norm1.emb.load_state_dict(shared)
    return model


def saved(folder: Path, pipeline: str, network: UNet2DModel, scheduler: Any) -> Any:
    """A pipeline, written to a folder."""
    made = getattr(diffusers, pipeline)(unet=network, scheduler=scheduler)
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder)
    return made


def start(count: int = 2, channels: int = 3, size: int = 8) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def walked(scheduler: Any, network: UNet2DModel, x: Tensor, steps: int) -> Tensor:
    """diffusers' own loop over a scheduler from x in our scaling, clipped to pictures."""
    scheduler.set_timesteps(steps)
    if type(scheduler).__name__.startswith(("Euler", "Heun", "LMS")):
        x = x * math.sqrt(float(scheduler.sigmas[0]) ** 2 + 1)
    for t in scheduler.timesteps:
        inside = scheduler.scale_model_input(x, t)
        x = scheduler.step(network(inside, t).sample, t, x).prev_sample
    return x.clamp(-1, 1)
