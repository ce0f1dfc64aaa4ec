"""The seed contract: a picture depends on its seed, not on its batch, place or process."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from model.tiny import tiny

from fromnoise.core.randomness import Noise
from fromnoise.model import Model

DETERMINISTIC, STOCHASTIC = "dpm++2m", "ddpm"


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def test_noise_is_the_same_bits_in_any_batch() -> None:
    like = torch.zeros(1, 3, 4, 4)
    alone = [Noise([seed]).normal(like) for seed in range(64)]
    together = Noise(list(range(64))).normal(torch.zeros(64, 3, 4, 4))
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    mixed = Noise(shuffled.tolist()).normal(torch.zeros(64, 3, 4, 4))
    assert torch.equal(torch.cat(alone), together)
    assert torch.equal(mixed, together[shuffled])
    # The control: another seed is another noise.
    assert not torch.equal(alone[0], alone[1])


@pytest.mark.parametrize("sampler", [DETERMINISTIC, STOCHASTIC])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_at_one_batch_shape_neighbours_and_place_change_no_bit(
    model: Model, sampler: str, guidance: float
) -> None:
    how = {"sampler": sampler, "guidance": guidance, "batch_size": 7}
    seeds, labels = [5, 6, 7, 8, 9, 10, 11], [0, 1, 2, 0, 1, 2, 0]
    together = model.sample(7, seed=seeds, label=labels, **how).tensor
    order = [3, 6, 0, 5, 2, 4, 1]
    shuffled = model.sample(
        7, seed=[seeds[i] for i in order], label=[labels[i] for i in order], **how
    ).tensor
    assert torch.equal(shuffled, together[order])
    alone = model.sample(1, seed=8, label=0, **how).tensor
    assert torch.equal(alone[0], together[3])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("sampler", [DETERMINISTIC, STOCHASTIC])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
def test_across_batch_sizes_only_rounding_differs(
    model: Model, sampler: str, dtype: str, tolerance: float
) -> None:
    pictures = [
        model.sample(9, label=1, sampler=sampler, batch_size=size, dtype=dtype)
        for size in (1, 4, 9)
    ]
    for other in pictures[1:]:
        gap = (other.tensor - pictures[0].tensor).abs().max().item()
        assert gap <= tolerance, gap


def test_float64_is_computed_in_float64(model: Model) -> None:
    single = list(model.stream(2, label=1, dtype="float32"))[-1].x
    double = list(model.stream(2, label=1, dtype="float64"))[-1].x
    assert double.dtype == torch.float64
    assert 0 < (single - double).abs().max().item() < 1e-3


def test_another_process_draws_the_same_bits(model: Model, tmp_path: Path) -> None:
    here = model.sample(3, label=2, sampler=STOCHASTIC, batch_size=4).tensor
    code = (
        "import sys, torch\n"
        "torch.set_num_threads(1)\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from model.tiny import tiny\n"
        "picture = tiny().sample(1, label=2, seed=2, sampler='ddpm', batch_size=4).tensor\n"
        f"torch.save(picture, {str(tmp_path / 'picture.pt')!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    there = torch.load(tmp_path / "picture.pt", weights_only=True)
    assert torch.equal(here[2], there[0])
