"""Where measured figures go: tables on the screen, JSON here, pictures into the guide."""

from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"

NAMES = ("ddpm", "ddpm_no_noise", "ddim", "dpm++2m", "deis", "unipc")
"""The samplers whose quality is measured against the number of steps."""

STEPS = (5, 10, 20, 50, 100, 200, 500)

TITLES = {"ddpm_no_noise": "ddpm, no noise", "deis": "deis (order 3)", "unipc": "unipc (order 2)"}


def title(name: str) -> str:
    """The sampler's name as tables and plots show it."""
    return TITLES.get(name, name)


def header(steps: Sequence[int]) -> str:
    """The first line of a table of one column for each number of steps."""
    return f"{'steps':16s}" + "".join(f"{count:>9d}" for count in steps)


def row(name: str, values: Mapping[int, float], form: str) -> str:
    """A sampler's line of that table; `form` is the format of a value."""
    return f"{title(name):16s}" + "".join(f"{value:>9{form}}" for value in values.values())
