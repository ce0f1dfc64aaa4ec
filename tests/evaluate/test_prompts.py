"""Judging pictures by their prompts: the data's own pictures are right, others' are not."""

import numpy as np
import pytest
import torch

from fromnoise import data
from fromnoise.core.errors import UsageError
from fromnoise.data import fonts
from fromnoise.data.scenes import KINDS
from fromnoise.evaluate.prompts import ALL, emoji_judge, judge_of, prompt_sets, scene_judge, shares

SCENES = data.Shapes(32, count=400, without=("red star", "green circle"))


def has_font() -> bool:
    try:
        fonts.colour_font()
    except UsageError:
        return False
    return True


def test_drawn_scenes_are_what_their_captions_say_and_not_what_others_say() -> None:
    batch = SCENES.batch(range(60))
    assert batch.caption is not None
    found = dict(shares(scene_judge(batch.x, batch.caption)))
    assert all(estimate.value == 1.0 for estimate in found.values())
    assert set(found) == {"kind", "colour", "size", "count", "position", ALL, "attributes"}
    # The same pictures under each other's captions.
    moved = dict(shares(scene_judge(batch.x, [*batch.caption[1:], batch.caption[0]])))
    assert moved[ALL].value < 0.1 and moved["colour"].value < 0.5


def test_a_share_counts_only_prompts_that_speak_of_the_attribute() -> None:
    verdicts = scene_judge(SCENES.batch([0, 0]).x, ["a red square", "two red squares on the left"])
    position = verdicts["position"]
    assert torch.isnan(position[0]) and not torch.isnan(position[1])
    assert bool(torch.isnan(verdicts["size"]).all())


def test_prompts_are_told_apart_by_what_training_has_seen() -> None:
    train, held_out = SCENES.split(0.2)
    sets = prompt_sets(train, held_out, 50)
    seen = set(train.captions(np.arange(len(train))) or ())
    assert set(sets) == {"seen", "unseen", "unseen_pairs"}
    assert set(sets["seen"]) <= seen and len(sets["seen"]) == 50
    assert not set(sets["unseen"]) & seen and len(sets["unseen"]) > 10
    for caption in sets["unseen_pairs"]:
        assert caption not in seen
        assert all(pair in ("red star", "green circle") for pair in _pairs(caption)), caption


def _pairs(caption: str) -> list[str]:
    words = caption.replace("circles", "circle").replace("stars", "star").split()
    return [f"{words[i - 1]} {word}" for i, word in enumerate(words) if word in KINDS]


def test_data_without_a_judge_has_none() -> None:
    assert judge_of(data.load("digits")) is None
    assert judge_of(SCENES.split(0.2)[0]) is scene_judge
    with pytest.raises(UsageError, match="no captions"):
        prompt_sets(*data.load("digits").split(0.2), 10)


@pytest.mark.slow
@pytest.mark.skipif(not has_font(), reason="no colour-emoji font is installed")
def test_emoji_are_their_own_nearest_and_dyed_ones_are_of_their_colour() -> None:
    emoji = data.Emoji(16, dyed=True)
    judge = emoji_judge(emoji)
    places = [i for i, e in enumerate(emoji.entries) if e.caption.endswith(" apple")]
    batch = emoji.batch(places)
    assert batch.caption is not None
    noisy = batch.x + 0.05 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(0))
    found = dict(shares(judge(noisy, batch.caption)))
    assert found["sign"].value == found["colour"].value == 1.0
    wrong = dict(shares(judge(batch.x, ["blue cat face"] * len(places))))
    assert wrong["sign"].value == 0 and 0 < wrong["colour"].value < 0.5
    with pytest.raises(UsageError, match="no caption of these emoji"):
        judge(batch.x[:1], ["a spaceship made of cheese"])
