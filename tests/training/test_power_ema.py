"""Power-function averages: their profile, their tracking, and lengths chosen afterwards."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training import toy

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import load_tensors
from fromnoise.training import Run, checkpoint, snapshots
from fromnoise.training.power_ema import LARGEST, PowerEMA, combination, exponent, inner, width

TRACKED = (0.05, 0.1)


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97220), (0.10, 6.93720)])
def test_the_published_exponents(std: float, gamma: float) -> None:
    assert exponent(std) == pytest.approx(gamma, abs=5e-6)


@given(std=st.floats(0.002, LARGEST))
@settings(max_examples=60, deadline=None)
def test_width_and_exponent_are_inverse(std: float) -> None:
    assert width(exponent(std)) == pytest.approx(std, rel=1e-9)


@pytest.mark.parametrize("std", [0.0, -0.1, 0.2887, 1.0, math.nan])
def test_impossible_widths_are_refused(std: float) -> None:
    with pytest.raises(UsageError, match="width"):
        exponent(std)


def _impulses(std: float, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How much each step counts in the average: every step is its own unit vector."""
    module = nn.Linear(count, 1, bias=False).double()
    averages = PowerEMA(module, [std])
    for step in range(1, count + 1):
        module.weight.data.zero_()
        module.weight.data[0, step - 1] = 1.0
        averages.update(step)
    (value,) = averages.state().values()
    return value[0].numpy()


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_the_measured_profile_has_the_relative_width(std: float) -> None:
    count = 1500
    counts = _impulses(std, count)
    assert counts.sum() == pytest.approx(1.0, abs=1e-12)
    # Step τ stands for the time from τ − 1 to τ, of which 1/12 is variance inside.
    middle = np.arange(count) + 0.5
    mean = counts @ middle
    variance = counts @ (middle - mean) ** 2 + 1 / 12
    assert math.sqrt(variance) / count == pytest.approx(std, rel=1e-6)
    # What a step counts is the integral of the published profile over it.
    gamma = exponent(std)
    edges = (np.arange(count + 1) / count) ** (gamma + 1)
    np.testing.assert_allclose(counts, np.diff(edges), atol=1e-12)


def test_inner_products_are_the_integrals() -> None:
    time = (np.arange(400_000) + 0.5) / 400_000 * 10

    def profile(t: float, gamma: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.where(time < t, (gamma + 1) * time**gamma / t ** (gamma + 1), 0.0)

    for first, second in (((4.0, 6.9), (10.0, 17.0)), ((8.0, 17.0), (5.0, 3.0))):
        exact = (profile(*first) * profile(*second)).sum() * 10 / len(time)
        found = inner(*[np.asarray(v) for v in (*first, *second)])
        assert float(found) == pytest.approx(exact, rel=1e-4)


class _Walk:
    """A recorded trajectory: a network of one matrix that drifts and shakes, as training does."""

    def __init__(self, count: int, every: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.module = nn.Linear(40, 5, bias=False)
        self.averages = PowerEMA(self.module, TRACKED)
        self.kept: list[tuple[int, float, torch.Tensor]] = []
        self.path: list[torch.Tensor] = []
        start, end = (torch.randn(5, 40, generator=generator) for _ in range(2))
        for step in range(1, count + 1):
            shake = 0.3 * torch.randn(5, 40, generator=generator)
            drift = end + (start - end) * math.exp(-4 * step / count)
            self.module.weight.data.copy_(drift + shake)
            self.averages.update(step)
            self.path.append(self.module.weight.detach().clone())
            if step % every == 0:
                state = self.averages.state()
                self.kept += [(step, s, state[f"{s:g}/weight"].clone()) for s in TRACKED]

    def tracked(self, std: float, step: int) -> torch.Tensor:
        """The average really followed along the path, in float64."""
        module = nn.Linear(40, 5, bias=False).double()
        averages = PowerEMA(module, [std])
        for number, weight in enumerate(self.path[:step], start=1):
            module.weight.data.copy_(weight)
            averages.update(number)
        return next(iter(averages.state().values()))

    def chosen(self, std: float, step: int) -> tuple[torch.Tensor, float]:
        used = [one for one in self.kept if one[0] <= step]
        shares, error = combination([t for t, _, _ in used], [s for _, s, _ in used], step, std)
        pairs = zip(shares, used, strict=True)
        return sum((c * w.double() for c, (_, _, w) in pairs), torch.zeros(5, 40)), error


@pytest.fixture(scope="module")
def walk() -> _Walk:
    return _Walk(600, 25)


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("std", TRACKED)
def test_a_tracked_length_is_given_back(walk: _Walk, std: float) -> None:
    for step in (300, 600):
        found, error = walk.chosen(std, step)
        assert _distance(found, walk.tracked(std, step)) < 1e-5
        assert error < 1e-6


@pytest.mark.parametrize(("std", "bound"), [(0.04, 5e-3), (0.07, 5e-4), (0.15, 1e-3), (0.2, 3e-3)])
def test_another_length_is_the_one_that_would_have_been_tracked(
    walk: _Walk, std: float, bound: float
) -> None:
    wanted = walk.tracked(std, 600)
    found, error = walk.chosen(std, 600)
    assert _distance(found, wanted) < bound
    # The control: the nearer of the averages at hand is many times farther off.
    at_hand = min(_distance(walk.tracked(s, 600), wanted) for s in TRACKED)
    assert _distance(found, wanted) < at_hand / 10
    assert error < 0.1


def test_more_snapshots_are_closer() -> None:
    def error(every: int) -> float:
        steps = [t for t in range(every, 1001, every) for _ in TRACKED]
        return combination(steps, TRACKED * (1000 // every), 1000, 0.07)[1]

    assert error(20) < error(50) / 5 < error(200) / 25


def test_weights_that_stand_still_come_out_unchanged_from_few_snapshots() -> None:
    shares, _ = combination([500, 500, 1000, 1000], TRACKED * 2, 1000, 0.2)
    assert sum(shares) == pytest.approx(1.0, abs=1e-9)
    # The control: left to come out by itself, the sum is several percent off.
    t, gammas = np.asarray([500.0, 500, 1000, 1000]), np.asarray([exponent(s) for s in TRACKED * 2])
    matrix = inner(t[:, None], gammas[:, None], t[None], gammas[None])
    wanted = inner(t, gammas, np.asarray(1000.0), np.asarray(exponent(0.2)))
    assert abs(np.linalg.solve(matrix, wanted).sum() - 1) > 0.02


def _tracked(folder: Path, **changes: Any) -> Run:
    return toy.run(folder, {"post_hoc": [0.05, 0.1], "snapshot_every": 3, **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that tracked two averages."""
    made = _tracked(tmp_path_factory.mktemp("tracked") / "run")
    list(made.train())
    return made


def test_a_run_keeps_snapshots_and_averages_come_from_them(whole: Run) -> None:
    kept = snapshots.found(whole.folder)
    assert [one.step for one in kept] == [3, 6, 9, 12]
    assert all(one.stds == TRACKED for one in kept)
    last = checkpoint.steps(whole.folder)[-1]
    running = load_tensors(last / "power_ema.safetensors")[0]
    one = snapshots.average(kept, 0.1)
    assert one.weights.keys() == dict(whole.task.objective.named_parameters()).keys()
    for name, value in one.weights.items():
        torch.testing.assert_close(value, running[f"0.1/{name}"], rtol=1e-5, atol=1e-6)
    assert snapshots.average(kept, 0.05, step=6).step == 6
    with pytest.raises(UsageError, match="after step 2"):
        snapshots.average(kept, 0.1, step=2)


def test_half_precision_takes_half_the_space(tmp_path: Path, whole: Run) -> None:
    list(_tracked(tmp_path, snapshot_precision="float16").train())
    runs = (whole.folder, tmp_path)
    sizes = [
        (run / "snapshots" / "step-00000012" / "averages.safetensors").stat().st_size
        for run in runs
    ]
    assert sizes[1] < 0.75 * sizes[0]
    full, half = (snapshots.average(snapshots.found(run), 0.07) for run in runs)
    for name, value in full.weights.items():
        torch.testing.assert_close(half.weights[name], value, rtol=2e-2, atol=2e-3)


def _interrupted(folder: Path) -> None:
    """The same run, stopped after step 7 and gone on with from the checkpoint of step 4."""
    loop = _tracked(folder).train()
    for _ in range(7):
        next(loop)
    loop.close()
    list(_tracked(folder).train())


def test_stopped_and_resumed_the_averages_are_the_same_bits(tmp_path: Path, whole: Run) -> None:
    _interrupted(tmp_path)
    for step in (3, 6, 9, 12):
        ours, theirs = (
            load_tensors(run / "snapshots" / f"step-{step:08d}" / "averages.safetensors")[0]
            for run in (whole.folder, tmp_path)
        )
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_comparison_sees_lost_averages(
    tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PowerEMA, "load", lambda self, state: None)
    _interrupted(tmp_path)
    ours, theirs = (
        load_tensors(checkpoint.steps(run)[-1] / "power_ema.safetensors")[0]
        for run in (whole.folder, tmp_path)
    )
    assert any(not torch.equal(v, theirs[k]) for k, v in ours.items())


def test_the_weights_do_not_notice_that_averages_are_tracked(tmp_path: Path, whole: Run) -> None:
    plain = toy.run(tmp_path, {})
    list(plain.train())
    assert toy.digest(plain.task.objective) == toy.digest(whole.task.objective)


def test_a_damaged_snapshot_is_passed_over(tmp_path: Path, whole: Run) -> None:
    shutil.copytree(whole.folder / "snapshots", tmp_path / "snapshots")
    file = tmp_path / "snapshots" / "step-00000009" / "averages.safetensors"
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    told: list[str] = []
    kept = snapshots.found(tmp_path, told.append)
    assert [one.step for one in kept] == [3, 6, 12]
    assert "step-00000009" in told[0]
    assert snapshots.average(kept, 0.1).error < 1e-6


def test_a_run_without_snapshots_says_how_to_have_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--train\.post-hoc"):
        snapshots.average(snapshots.found(tmp_path), 0.1)


def test_averages_of_another_run_are_refused() -> None:
    averages = PowerEMA(nn.Linear(2, 2), TRACKED)
    with pytest.raises(FileError, match="do not belong"):
        averages.load({"0.05/weight": torch.zeros(2, 2)})
    state = {k: torch.zeros(3, 3) for k in averages.state()}
    with pytest.raises(FileError, match="shape"):
        averages.load(state)
