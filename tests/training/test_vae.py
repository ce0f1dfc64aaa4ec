"""The autoencoder's loss: the bound, its weight, its warm-up, what costs nothing; resuming."""

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from training import toy

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.nets import build
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.schedules import flow
from fromnoise.training import Draws, Run, Task, TrainSettings
from fromnoise.training.objective import Objective
from fromnoise.training.objectives import OBJECTIVES, objective_of
from fromnoise.training.settings import (
    AnyObjective,
    ObjectiveSettings,
    VaeSettings,
)
from fromnoise.training.vae import Variational, autoencoder, vae

READING = {"kind": "x0", "clock": "time", "clock_scale": 1.0}


def objective(kind: str = "vae", **choices: Any) -> Variational:
    torch.manual_seed(0)
    accepts = {"vector": {"label": 2}}
    groups = {"groups": [1, 1]} if kind == "hvae" else {}
    size = {"shape": [2], "width": 16, "depth": 1, "accepts": accepts, **groups}
    net = build({"kind": kind, **size})
    denoiser = NetworkDenoiser(net, flow(), PARAMETERIZATIONS.build(READING))
    return vae(denoiser, Conditioning({"label": Label(2)}), VaeSettings(**choices), None)


def loss(made: Objective, size: int = 16) -> float:
    batch, draws = toy.Points(size).batch(range(size)), Draws.of_step(0, 0, range(size), size)
    (phase,) = made.phases(batch, draws)
    return phase.loss.item()


@pytest.mark.parametrize("kind", ["vae", "hvae"])
def test_the_loss_is_the_bound_in_bits(kind: str) -> None:
    made = objective(kind)
    batch, draws = toy.Points(16).batch(range(16)), Draws.of_step(0, 0, range(16), 16)
    draws.noise.uniform(torch.empty(16, 1))
    told = made.conditioning({"label": batch.label}, 16)
    passage = autoencoder(made.denoiser).passage(batch.x, draws.noise.normal(batch.x), told)
    nats = torch.stack(passage.kl).sum(0) - passage.output.log_prob(batch.x)
    assert loss(made) == pytest.approx(nats.mean().item() / (2 * math.log(2)), rel=1e-5)


def test_the_weight_of_the_divergence_rises_and_is_one_where_it_is_measured() -> None:
    plain, risen, none = objective(), objective(warmup=10), objective(beta=0.0)
    assert loss(risen) < loss(plain)
    for _ in range(9):
        risen.after_step()
    assert loss(risen) == pytest.approx(loss(plain), rel=1e-6)
    assert loss(none) < loss(plain)
    for made in (plain, risen, none):
        made.eval()
    assert loss(none) == loss(plain)
    assert "taken" in risen.state_dict()


def test_a_group_under_its_free_nats_costs_them_and_is_not_pressed() -> None:
    made = objective(free_nats=50.0)
    assert loss(made) > loss(objective())
    batch, draws = toy.Points(16).batch(range(16)), Draws.of_step(0, 0, range(16), 16)
    (phase,) = made.phases(batch, draws)
    phase.loss.backward()
    free = autoencoder(made.denoiser)
    priced = objective(free_nats=0.0)
    draws = Draws.of_step(0, 0, range(16), 16)
    (phase,) = priced.phases(batch, draws)
    phase.loss.backward()
    pressed = autoencoder(priced.denoiser)
    first, second = (next(iter(net.parameters())).grad for net in (free, pressed))
    assert first is not None and second is not None
    assert not torch.allclose(first, second)


def _run(folder: Path, made: Objective) -> Run:
    train = TrainSettings(**toy.SMALL).model_dump(mode="json")
    return Run(folder, {"recipe": "toy", "train": train}, Task(made, toy.Points(), toy.Points(16)))


@pytest.mark.parametrize("kind", ["vae", "hvae"])
def test_a_run_goes_on_bit_for_bit(tmp_path: Path, kind: str) -> None:
    choices = {"warmup": 8, "condition_dropout": 0.2}
    whole = objective(kind, **choices)
    list(_run(tmp_path / "whole", whole).train())
    loop = _run(tmp_path / "half", objective(kind, **choices)).train()
    for _ in range(6):
        next(loop)
    loop.close()
    rest = objective(kind, **choices)
    list(_run(tmp_path / "half", rest).train())
    assert toy.digest(rest) == toy.digest(whole)


def test_a_network_that_is_no_autoencoder_is_refused() -> None:
    reading = PARAMETERIZATIONS.build(READING)
    with pytest.raises(UsageError, match="needs a network vae or hvae"):
        vae(NetworkDenoiser(toy.network(), flow(), reading), Conditioning({}), VaeSettings(), None)


def test_every_kind_of_settings_has_its_objective() -> None:
    kinds = [get_args(part)[0] for part in get_args(get_args(AnyObjective)[0])]
    named = [c.model_fields["kind"].default for c in kinds]
    assert sorted(named) == sorted([*OBJECTIVES, "autoencoder"])
    made = objective_of(ObjectiveSettings(), objective().denoiser, Conditioning({}))
    assert type(made).__name__ == "Denoising"


def test_settings_without_a_kind_are_those_of_denoising() -> None:
    """Recipes and runs written before there was a choice."""
    from pydantic import TypeAdapter

    adapter: TypeAdapter[AnyObjective] = TypeAdapter(AnyObjective)
    assert adapter.validate_python({"weighting": "snr"}) == ObjectiveSettings(weighting="snr")
    assert adapter.validate_python({"kind": "vae", "beta": 2.0}) == VaeSettings(beta=2.0)
    for wrong in ({"kind": "other"}, {"kind": "vae", "weighting": "snr"}):
        with pytest.raises(ValueError, match="kind|weighting|tag"):
            adapter.validate_python(wrong)
