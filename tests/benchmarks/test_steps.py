"""The sweep of a trained run writes what it says; here of a run that has hardly been trained."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import steps
from benchmarks.output import NAMES
from fromnoise.cli.main import run as command
from fromnoise.evaluate import PixelFeatures, frechet_distance


@pytest.mark.slow
def test_a_sweep_measures_every_sampler_at_every_number_of_steps(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert command(["train", "digits-ddpm500", "--train.steps", "2", "--out", str(folder)]) == 0
    asked = ["--run", str(folder), "--samples", "60", "--steps", "2", "3"]
    steps.main([*asked, "--results", str(tmp_path), "--pictures", str(tmp_path)])

    found = json.loads((tmp_path / "steps.json").read_text("utf-8"))
    assert (tmp_path / "steps.png").stat().st_size > 10_000
    assert set(found["samplers"]) == set(NAMES)
    real = found["training_scans"]["frechet_distance"]["value"]
    for rows in found["samplers"].values():
        assert set(rows) == {"2", "3"}
        for one in rows.values():
            distance = one["frechet_distance"]
            assert distance["low"] <= distance["value"] <= distance["high"]
            # Two training steps leave a network that draws nothing like a digit.
            assert distance["value"] > 2 * real


def test_differences_are_sharper_than_the_distances_they_are_of() -> None:
    """The held-out sample's own chance is in both distances, and leaves their difference."""
    generator = torch.Generator().manual_seed(0)
    held_out, near = (torch.randn(150, 4, generator=generator).double() for _ in range(2))
    far = 1.3 * near
    measured = steps.Yardstick(PixelFeatures(), held_out)
    same, less = measured.difference(near, near), measured.difference(far, near)
    assert same.value == same.low == same.high == 0
    first, second = (frechet_distance(held_out, x) for x in (far, near))
    assert less.value == pytest.approx(first.value - second.value)
    assert less.low > 0
    assert less.high - less.low < (first.high - first.low) + (second.high - second.low)
