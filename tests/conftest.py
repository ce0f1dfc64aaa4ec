"""What every test runs under: one thread, repeatable properties, checked shapes."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

torch.set_num_threads(1)
settings.register_profile("fromnoise", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("fromnoise")


def _modules_with_shapes() -> list[str]:
    """The modules whose signatures carry shapes: wrapping the others would only cost time."""
    source = Path(__file__).parents[1] / "src"
    files = (p for p in source.rglob("*.py") if "jaxtyping import" in p.read_text("utf-8"))
    return [".".join(p.relative_to(source).with_suffix("").parts) for p in files]


install_import_hook(_modules_with_shapes(), "shapes.checked")
