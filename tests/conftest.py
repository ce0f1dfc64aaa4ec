"""What every test runs under: one thread, repeatable properties, checked shapes."""

import gc
import os
import shutil
from pathlib import Path

from hypothesis import settings
from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
_MEMORY = Path("/dev/shm")
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2**32:
    # What is saved is flushed: on a disk the tests would mostly wait for it.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

settings.register_profile("fromnoise", derandomize=True, deadline=None, max_examples=20)
settings.load_profile("fromnoise")


def _modules_with_shapes() -> list[str]:
    """The modules whose signatures carry shapes: wrapping the others would only cost time."""
    source = Path(__file__).parents[1] / "src"
    files = (p for p in source.rglob("*.py") if "jaxtyping import" in p.read_text("utf-8"))
    return [".".join(p.relative_to(source).with_suffix("").parts) for p in files]


install_import_hook(_modules_with_shapes(), "shapes.checked")

# What is imported stays: looking through all of it for garbage took a sixth of the suite's time.
gc.disable()


def pytest_collection_finish() -> None:
    """In a process that runs tests: the one that only hands them out has no need of torch."""
    import torch

    torch.set_num_threads(1)
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    gc.enable()
