"""Inputs are left out at the shares asked for, all at once or each by itself, repeatably."""

from typing import Any

import pytest
import torch

from fromnoise.core.config import validated
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.data import Batch
from fromnoise.encoders import (
    Attributes,
    Augmentation,
    Conditioning,
    Label,
    LabelMap,
    LowResolution,
)
from fromnoise.layers.condition import Condition
from fromnoise.training.draws import Draws
from fromnoise.training.dropout import Dropout
from fromnoise.training.objective import condition_of
from fromnoise.training.settings import GanSettings, ObjectiveSettings, VaeSettings, VdmSettings

COUNT = 4000


def conditioning() -> Conditioning:
    return Conditioning(
        {"label": Label(2), "style": Label(["ink", "oil"]), "map": LabelMap(2),
         "augment": Augmentation(1)}
    )  # fmt: skip


def batch(count: int = COUNT) -> Batch:
    return Batch(
        torch.zeros(count, 1, 2, 2),
        torch.zeros(count, dtype=torch.int64),
        torch.arange(count),
        augment=torch.ones(count, 1),
        given={
            "style": torch.ones(count, dtype=torch.int64),
            "map": torch.ones(count, 2, 2, dtype=torch.int64),
        },
    )


def draws(count: int = COUNT, seed: int = 0, step: int = 0) -> Draws:
    return Draws.of_step(seed, step, range(count), count)


def told(shares: Any, source: Draws) -> dict[str, torch.Tensor]:
    """Of which samples each input is told, read off what a network would see."""
    model = conditioning()
    count = len(source.noise)
    chance = source.noise.uniform(torch.empty(count, 1))[:, 0]
    seen = condition_of(model, batch(count), chance, Dropout(shares, model), source.noise)
    assert seen is not None
    return heard(seen)


def heard(seen: Condition) -> dict[str, torch.Tensor]:
    vectors = {name: value.sum(1) > 0 for name, value in seen.vector.items()}
    return vectors | {"map": seen.channels["map"].flatten(1).sum(1) > 0}


def test_one_share_drops_all_that_may_be_dropped_together() -> None:
    kept = told(0.3, draws())
    assert kept["label"].float().mean().item() == pytest.approx(0.7, abs=0.03)
    assert torch.equal(kept["label"], kept["style"]) and torch.equal(kept["label"], kept["map"])
    assert kept["augment"].all()


def test_shares_by_name_are_drawn_each_by_itself_and_after_the_one_for_all() -> None:
    kept = told({"all": 0.2, "label": 0.25, "map": 0.5}, draws())
    wanted = {"label": 0.8 * 0.75, "map": 0.8 * 0.5, "style": 0.8, "augment": 1.0}
    for name, share in wanted.items():
        assert kept[name].float().mean().item() == pytest.approx(share, abs=0.03), name
    together = (kept["label"] & kept["map"]).float().mean().item()
    assert together == pytest.approx(0.8 * 0.75 * 0.5, abs=0.03)
    assert not (kept["label"] & ~kept["style"]).any()
    nothing = ~(kept["label"] | kept["map"] | kept["style"])
    assert nothing.float().mean().item() == pytest.approx(0.2, abs=0.03)


def test_what_is_dropped_follows_from_seed_step_and_place_alone() -> None:
    shares = {"label": 0.5, "map": 0.5}
    whole = told(shares, draws(64))
    assert all(torch.equal(v, told(shares, draws(64))[k]) for k, v in whole.items())
    part = Draws.of_step(0, 0, range(16, 32), 64)
    halves = told(shares, part)
    assert all(torch.equal(v[16:32], halves[k]) for k, v in whole.items())
    other = told(shares, draws(64, step=1))
    assert not torch.equal(whole["label"], other["label"])


def test_without_shares_by_name_nothing_more_is_drawn() -> None:
    """Runs from before there were any go on as they would have."""
    after = []
    for shares in (0.3, {"all": 0.3}, {"all": 0.3, "label": 0.0}):
        source = draws(8)
        told(shares, source)
        after.append(source.noise.normal(torch.empty(8, 3)))
    assert torch.equal(after[0], after[1]) and not torch.equal(after[0], after[2])
    plain = Noise(draws(8).noise.seeds)
    plain.uniform(torch.empty(8, 1))
    assert torch.equal(after[0], plain.normal(torch.empty(8, 3)))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (1.5, "all is 1.5; use a share from 0 to 1"),
        ({"label": -0.1}, "label is -0.1"),
        ({"lable": 0.1}, "'lable'; what can be dropped: label, style, map, all"),
        ({"augment": 0.1}, "'augment'; what can be dropped"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Dropout(shares, conditioning())


@pytest.mark.parametrize("kind", [ObjectiveSettings, VdmSettings, VaeSettings, GanSettings])
def test_settings_take_a_share_or_shares_by_name(kind: Any) -> None:
    more = {"discriminator": {}} if kind is GanSettings else {}
    for shares in (0.1, {"all": 0.1, "label": 0.2}):
        assert kind(condition_dropout=shares, **more).condition_dropout == shares
    for shares in (1.1, {"label": 1.1}, {"label": "much"}):
        with pytest.raises(UsageError, match="condition_dropout"):
            validated(kind, {"condition_dropout": shares, **more}, "settings")


def test_what_the_data_gives_is_told_and_what_it_does_not_know_is_refused() -> None:
    model = Conditioning({"size": Attributes({"height": (0.0, 2.0)})})
    chance, source = torch.zeros(4), draws(4)
    some = Batch(torch.zeros(4, 1), None, torch.arange(4), given={"size": torch.ones(4, 1)})
    seen = condition_of(model, some, chance, None, source.noise)
    assert seen is not None and seen.vector["size"].tolist() == [[0.0, 1.0]] * 4
    with pytest.raises(
        UsageError, match="told a size, which this data does not know; it gives map"
    ):
        condition_of(model, Batch(some.x, None, some.index, given={"map": some.x}), chance, None,
                     source.noise)  # fmt: skip


def test_a_small_picture_is_made_of_the_sample_in_training_and_repeats() -> None:
    model = Conditioning({"low": LowResolution(2, channels=1)})
    some = Batch(torch.rand(4, 1, 8, 8), None, torch.arange(4))
    seen = [condition_of(model, some, torch.zeros(4), None, draws(4).noise) for _ in range(2)]
    assert seen[0] is not None and seen[1] is not None
    assert seen[0].channels["low"].shape == (4, 1, 8, 8)
    assert torch.equal(seen[0].channels["low"], seen[1].channels["low"])
    assert seen[0].vector["low"][:, 0].unique().numel() == 4
