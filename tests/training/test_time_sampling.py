"""Training times: their distributions, and that each sample's own seed decides them."""

import pytest
import torch
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.schedules import Schedule
from fromnoise.training import TIME_SAMPLINGS, Draws
from fromnoise.training.draws import derive, seeded

COUNT = 20_000
EDM = schedules.edm()


def drawn(config: dict[str, object], schedule: Schedule = EDM) -> Tensor:
    draws = Draws.of_step(3, 1, range(COUNT), COUNT)
    t: Tensor = TIME_SAMPLINGS.build(config)(draws, schedule)
    assert t.dtype == torch.float64
    assert t.shape == (COUNT,)
    return t


def distance(values: Tensor, quantiles: Tensor) -> float:
    """Largest difference between two distributions (Kolmogorov), by sorted samples' ranks."""
    ranks = torch.linspace(0, 1, len(values), dtype=torch.float64)
    return (torch.searchsorted(values.sort().values, quantiles) / len(values) - ranks).abs().max()


def test_uniform_and_index_times_are_uniform() -> None:
    expected = torch.linspace(0, 1, COUNT, dtype=torch.float64)
    t = drawn({"kind": "uniform"})
    assert distance(t, expected) < 1.7 / COUNT**0.5
    assert t.min() > 0 and t.max() <= 1
    t = drawn({"kind": "index"}, schedules.linear(10))
    found, counts = (t * 10).round().unique(return_counts=True)
    assert found.tolist() == list(range(1, 11))
    assert (counts / COUNT - 0.1).abs().max() < 0.01


def test_log_normal_times_have_log_normal_ratios() -> None:
    ratio = -0.5 * EDM.log_snr(drawn({"kind": "log_normal", "mean": -1.2, "std": 1.2}))
    assert ratio.mean().item() == pytest.approx(-1.2, abs=0.03)
    assert ratio.std().item() == pytest.approx(1.2, abs=0.03)


def test_logit_normal_times_have_normal_logits() -> None:
    logit = torch.logit(drawn({"kind": "logit_normal", "mean": 0.5, "std": 0.8}))
    assert logit.mean().item() == pytest.approx(0.5, abs=0.03)
    assert logit.std().item() == pytest.approx(0.8, abs=0.03)


def test_low_discrepancy_times_are_evenly_spread() -> None:
    t = drawn({"kind": "low_discrepancy"})
    gaps = t.sort().values.diff()
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / COUNT), rtol=1e-6, atol=0)
    config = {"kind": "low_discrepancy", "start": 0.25, "end": 0.75}
    assert 0.25 < drawn(config).min() < drawn(config).max() <= 0.75


@pytest.mark.parametrize("kind", list(TIME_SAMPLINGS))
def test_a_samples_time_does_not_depend_on_how_the_batch_is_split(kind: str) -> None:
    steps = {"steps": 100} if kind == "loss_second_moment" else {}
    sampling = TIME_SAMPLINGS.build({"kind": kind, **steps})
    schedule = schedules.linear(100)
    whole = sampling(Draws.of_step(5, 9, range(16), 16), schedule)
    parts = [sampling(Draws.of_step(5, 9, span, 16), schedule) for span in (range(3), range(3, 16))]
    # Vectorised functions may round the last few of a batch differently.
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-15, atol=0)
    other = sampling(Draws.of_step(5, 10, range(16), 16), schedule)
    assert not torch.equal(whole, other)


def test_derived_seeds_do_not_collide_and_keep_their_values() -> None:
    seeds = {derive(s, step, 2, p) for s in range(3) for step in range(50) for p in range(128)}
    assert len(seeds) == 3 * 50 * 128
    assert all(0 <= seed < 2**63 for seed in seeds)
    # A change of these values would make every earlier run impossible to go on with.
    assert [derive(0, 1), derive(1, 2, 3)] == [3980143261097177850, 536453521966306493]


def test_seeding_within_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    with seeded(123, torch.device("cpu")):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(4), expected)
    with seeded(123, torch.device("cpu")):
        assert torch.equal(torch.rand(2), inside)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "log_normal", "std": 0.0},
        {"kind": "uniform", "start": 0.5, "end": 0.5},
        {"kind": "logit_normal", "std": -1.0},
        {"kind": "index", "steps": 0},
    ],
)
def test_impossible_distributions_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TIME_SAMPLINGS.build(config)


def test_index_needs_a_discrete_schedule() -> None:
    with pytest.raises(UsageError, match="discrete schedule"):
        drawn({"kind": "index"}, EDM)
