"""Tiny CLIP parts: vocabularies on disk, sizes for transformers, random weights that count."""

import json
import math
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn

START, END = "<|startoftext|>", "<|endoftext|>"

TEXT = {
    "vocab_size": 600,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 12,
    "max_position_embeddings": 77,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "projection_dim": 12,
    "image_size": 32,
    "patch_size": 8,
}


def write_vocabulary(folder: Path, merges: tuple[str, ...] = (), pad: str = END) -> Path:
    """Every byte, with and without the end of a word, the merges, and the two ends last."""
    signs = sorted(ByteLevel.alphabet())
    signs += [f"{sign}</w>" for sign in signs]
    signs += [merge.replace(" ", "") for merge in merges] + [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {sign: i for i, sign in enumerate(signs)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    config = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights large enough that everything in the module counts."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if name.endswith("logit_scale"):
            continue
        scale = 0.3 if parameter.ndim == 1 else 1 / math.sqrt(parameter[0].numel())
        if "position" in name or "token_embedding" in name:
            scale = 0.7
        noise = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data = noise + (1.0 if parameter.ndim == 1 and "norm" in name else 0.0)
    return module.eval()
