"""The table of names, the options of `get`, and the errors they give."""

import re
from collections.abc import Callable

import pytest
import torch
from walks import mixture

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.samplers import (
    ALIASES,
    SAMPLERS,
    AncestralNoise,
    AnnealedLangevin,
    Churn,
    DDIMInverse,
    Langevin,
    PredictorCorrector,
    Sampler,
    get,
    last,
    sample,
)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("Euler a", "euler_a"),
        ("euler_ancestral", "euler_a"),
        ("DPM++ 2M", "dpm++2m"),
        ("dpmpp_2m", "dpm++2m"),
        ("DPM++ 2M SDE", "dpm++2m_sde"),
        ("dpmpp_3m_sde", "dpm++3m_sde"),
        ("DPM++ 2S a", "dpm++2s_a"),
        ("dpmpp_2s_ancestral", "dpm++2s_a"),
        ("dpm_2_ancestral", "dpm2_a"),
        ("dpm_2", "dpm2"),
        ("DPM2 a", "dpm2_a"),
        ("LMS", "lms"),
        ("UniPC", "unipc2"),
        ("deis", "deis3"),
        ("DDIMScheduler", "ddim"),
        ("HeunScheduler", "heun"),
    ],
)
def test_names_as_users_type_them(typed: str, name: str) -> None:
    assert get(typed) is SAMPLERS[name]


def test_every_name_and_alias_is_found() -> None:
    assert all(get(name) is sampler for name, sampler in SAMPLERS.items())
    assert all(get(alias) is SAMPLERS[name] for alias, name in ALIASES.items())


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown sampler 'dpm\+\+2n'.*dpm\+\+2m"):
        get("dpm++2n")


def test_options_reach_the_sampler() -> None:
    assert get("ddim", eta=0.3) == type(get("ddim"))(0.3)
    assert get("euler_a", eta=0.0) == AncestralNoise(get("euler"), 0.0)
    assert get("dpm++2m", eta=1.0) == get("dpm++2m_sde")
    assert get("dpm++2m_sde", eta=0.0).rule == get("dpm++2m").rule  # type: ignore[attr-defined]
    assert get("heun", churn=7.0) == Churn(get("heun"), 7.0)
    assert get("edm", churn=7.0) == Churn(get("heun"), 7.0)
    assert get("pc", snr=0.1).snr == 0.1  # type: ignore[attr-defined]
    assert get("ode", tolerance=1e-3).rtol == 1e-3  # type: ignore[attr-defined]


SDE = {"dpm++1", "dpm++2m", "dpm++2m_sde", "dpm++3m", "dpm++3m_published", "dpm++3m_sde"}
MEMORYLESS = {
    *("euler", "heun", "edm", "dpm2", "dpm-solver-3", "dpm++1", "deis1", "dpm++2s", "dpm++3s")
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("option", ["eta", "churn", "snr", "tolerance"])
def test_an_option_is_taken_or_refused_by_name(name: str, option: str) -> None:
    takes = {
        "eta": name in ("ddpm", "ddim", "maskgit") or name.endswith("_a") or name in SDE,
        "churn": name in MEMORYLESS,
        "snr": name == "pc",
        "tolerance": name == "ode",
    }
    if takes[option]:
        assert get(name, **{option: 0.5}) != SAMPLERS[name]
    else:
        with pytest.raises(UsageError, match=f"{re.escape(name)}.*{option}"):
            get(name, **{option: 0.5})


@pytest.mark.parametrize(
    "make",
    [
        lambda: get("ddim", eta=1.5),
        lambda: get("ddim", eta=-0.1),
        lambda: get("euler_a", eta=-1.0),
        lambda: get("dpm++2m", eta=-1.0),
        lambda: get("heun", churn=-1.0),
        lambda: get("pc", snr=0.0),
        lambda: get("ode", tolerance=-1.0),
        lambda: PredictorCorrector(get("ddpm"), corrector_steps=0),
        lambda: Langevin(ratio=0.0),
        lambda: AnnealedLangevin(repeats=0),
        lambda: DDIMInverse(iterations=-1),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], Sampler]) -> None:
    with pytest.raises(UsageError):
        make()


def test_churn_without_a_plan_says_so() -> None:
    sampler = get("edm")
    x = torch.zeros(1, 1)
    bound = mixture(schedules.vp()).bind(None, torch.zeros(2))
    with pytest.raises(UsageError, match="plan"):
        sampler.step(bound, x, 1.0, 0.5, sampler.init(x, 1.0), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ddpm", "dpm++2m_sde", "euler_a"])
def test_fresh_noise_only_on_the_way_to_the_data(name: str) -> None:
    grid = torch.tensor([0.2, 0.5], dtype=torch.float64)
    with pytest.raises(UsageError, match="on the way to the data"):
        last(sample(mixture(schedules.vp()), get(name), grid, torch.zeros(1, 1)))


def test_the_inverse_walks_away_from_the_data() -> None:
    grid = torch.tensor([0.5, 0.2], dtype=torch.float64)
    with pytest.raises(UsageError, match="reverse the grid"):
        last(sample(mixture(schedules.vp()), get("ddim_inverse"), grid, torch.zeros(1, 1)))
