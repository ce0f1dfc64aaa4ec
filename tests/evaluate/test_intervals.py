"""Intervals against scipy, and what they promise."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fromnoise.core.errors import UsageError
from fromnoise.evaluate.intervals import Estimate, mean, repeated, wilson


@given(st.integers(1, 3000), st.floats(0, 1))
def test_wilson_is_scipys(count: int, share: float):
    successes = round(share * count)
    theirs = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    found = wilson(successes, count)
    assert found.low == pytest.approx(theirs.low, abs=1e-12)
    assert found.high == pytest.approx(theirs.high, abs=1e-12)
    assert found.low <= found.value <= found.high


def test_repeated_runs_widen_the_interval_by_their_spread():
    steady, shaky = repeated([0.9, 0.9, 0.9], 400), repeated([0.85, 0.9, 0.95], 400)
    assert steady.value == pytest.approx(0.9) and shaky.value == pytest.approx(0.9)
    alone = wilson(360, 400)
    assert (steady.low, steady.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    # Var = .9·.1/400 + .05²/3 against .9·.1/400: 2.17 times as wide.
    ratio = (shaky.high - shaky.low) / (steady.high - steady.low)
    assert ratio == pytest.approx(math.sqrt(1 + (0.05**2 / 3) / (0.09 / 400)), rel=0.02)
    perfect = repeated([1.0, 1.0], 100)
    assert perfect.value == perfect.high == 1.0 and perfect.low < 0.97


def test_the_mean_covers_the_truth():
    generator = torch.Generator().manual_seed(0)
    found = [mean(torch.randn(50, generator=generator)) for _ in range(300)]
    assert 0.9 <= sum(e.low <= 0 <= e.high for e in found) / 300 <= 0.99


def test_json_has_no_infinities_and_leaves_out_what_there_is_none_of():
    inner = Estimate(0.5, 0.4, 0.6)
    made = Estimate(math.inf, more={"real": inner, "k": 3}).as_json()
    assert json.loads(json.dumps(made, allow_nan=False)) == {
        "value": None,
        "real": {"value": 0.5, "low": 0.4, "high": 0.6},
        "k": 3,
    }
    with pytest.raises(UsageError, match="not a share"):
        wilson(3, 2)
