"""Small models learn what there is to learn, and say when drawn pictures are worth nothing."""

import pytest
import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.data.maps import MAP, NAMES, Maps
from fromnoise.evaluate.intervals import Estimate
from fromnoise.evaluate.learners import (
    Classifier,
    Detector,
    Examples,
    Learner,
    Score,
    Segmenter,
    boxes_of,
    mean_overlap,
    overlaps,
)
from fromnoise.evaluate.maps import measure_maps
from fromnoise.evaluate.usefulness import KEYS, Finding, best, summary, usefulness, usefulness_plot


@pytest.fixture(scope="module")
def maps() -> Examples:
    batch = Maps(32, count=160).batch(list(range(160)))
    return Examples(batch.x, batch.given[MAP])


def ones(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.float64)


class Told(Learner):
    """A learner that is as good as the share of 1 among its targets; two test pictures differ."""

    key = "accuracy"

    def __call__(self, train: Examples, test: Examples, seed: int) -> Score:
        share = train.target.double().mean() + 0.001 * seed
        return lambda weight: float((share * weight).sum() / weight.sum())


def shares(value: float, count: int = 20) -> Examples:
    target = torch.zeros(count, dtype=torch.int64)
    target[: round(value * count)] = 1
    return Examples(torch.zeros(count, 1, 2, 2), target)


def test_every_regime_source_and_scale_is_found_and_the_best_chosen() -> None:
    drawn = {1.0: shares(0.4), 2.0: shares(0.9), 5.0: shares(0.2)}
    learner = Told(2, 1)
    found = list(usefulness(learner, shares(0.5), shares(0.5), drawn, few=10, seeds=(0, 1)))
    assert len(found) == 2 * (1 + 2 * 3)
    chosen = best(found, "all", "synthetic")
    assert chosen.guidance == 2.0
    assert chosen.estimate.value == pytest.approx(0.9005)
    assert chosen.gain is not None and chosen.gain.value == pytest.approx(0.4)
    both = best(found, "all", "both")
    assert both.estimate.value == pytest.approx(0.7005)
    told = summary(found)
    assert set(told) == {"all", "few"}
    assert told["all"]["best_both"]["guidance"] == 2.0
    assert [one["guidance"] for one in told["few"]["by_guidance"]] == [1.0, 2.0, 5.0]
    assert all(key.startswith("usefulness.KEY") for key in KEYS) and usefulness_plot(
        {"accuracy": found}
    ).startswith(b"\x89PNG")


def test_drawn_pictures_that_are_no_better_gain_nothing() -> None:
    """The control: the same examples as real and as drawn."""
    found = list(usefulness(Told(2, 1), shares(0.5), shares(0.5), {1.0: shares(0.5)}, few=20))
    for one in found:
        if one.gain is not None:
            assert one.gain.value == pytest.approx(0.0, abs=1e-12)
            assert one.gain.low <= 0.0 <= one.gain.high


def test_the_best_scale_is_chosen_on_other_pictures_than_it_is_reported_on() -> None:
    def finding(scale: float, choosing: float, value: float) -> Finding:
        return Finding("all", "both", scale, Estimate(value), choosing)

    found = [finding(1.0, 0.5, 0.9), finding(2.0, 0.8, 0.1), finding(3.0, 0.8, 0.7)]
    assert best(found, "all", "both").guidance == 2.0
    with pytest.raises(UsageError, match="few"):
        best(found, "few", "both")
    with pytest.raises(UsageError, match="drawn"):
        list(usefulness(Told(2, 1), shares(0.5), shares(0.5), {}))


def test_a_learner_sees_as_many_batches_whatever_there_is() -> None:
    learner = Told(2, steps=7, batch=4)
    for count in (3, 4, 100):
        seen = torch.cat(list(learner.batches(count, 0)))
        assert len(seen) == 28
        times = torch.bincount(seen, minlength=count)
        assert int(times.max() - times.min()) <= 1
    assert torch.equal(
        torch.cat(list(learner.batches(9, 1))), torch.cat(list(learner.batches(9, 1)))
    )


def test_a_classifier_learns_what_can_be_seen() -> None:
    label = torch.arange(60) % 2
    x = torch.where(label == 1, 0.8, -0.8)[:, None, None, None].expand(60, 1, 8, 8)
    x = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    known, tested = Examples(x[:40], label[:40]), Examples(x[40:], label[40:])
    learner = Classifier(2, steps=30, batch=16)
    assert learner(known, tested, 0)(ones(20)) == 1.0
    wrong = Examples(known.x, 1 - known.target)
    assert learner(wrong, tested, 0)(ones(20)) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "classes"), [(Segmenter, 2), (Detector, len(NAMES))])
def test_dense_learners_learn_maps_and_repeat_themselves(
    maps: Examples, kind: type[Learner], classes: int
) -> None:
    # To tell kinds apart takes a segmenter longer than to tell things from background.
    target = maps.target.clamp(max=classes - 1)
    known, tested = Examples(maps.x[:128], target[:128]), Examples(maps.x[128:], target[128:])
    learner = kind(classes, steps=40, batch=8)
    score = learner(known, tested, 0)(ones(32))
    shuffled = Examples(known.x, known.target.roll(1, 0))
    assert learner(shuffled, tested, 0)(ones(32)) < score - 0.2
    short = kind(classes, steps=2, batch=4)
    assert short(known, tested, 3)(ones(32)) == short(known, tested, 3)(ones(32))


def test_mean_overlap_counts_pixels_of_all_pictures_together() -> None:
    found = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 0]]])
    true = torch.tensor([[[0, 1], [1, 0]], [[0, 0], [0, 1]]])
    shared, either = overlaps(found, true, 3)
    assert mean_overlap(shared, either) == pytest.approx((4 / 6 + 2 / 4) / 2)


def test_the_boxes_of_a_map_are_those_of_its_scene() -> None:
    maps = Maps(32, count=20)
    for index in range(20):
        scene = maps.scene(index)
        true = scene.boxes(32)
        found = boxes_of(maps.batch([index]).given[MAP][0])
        assert len(found.corners) == len(true)
        gaps = (found.corners[:, None] - true[None]).abs().amax(2)
        assert gaps.amin(1).max() < 1.2 and gaps.amin(0).max() < 1.2


def test_pictures_of_their_maps_score_well_and_of_others_badly(maps: Examples) -> None:
    some = Examples(maps.x[:40], maps.target[:40])
    good = measure_maps(some.target, some.x)
    assert good["map_miou"].value > 0.85 and good["map_kinds"].value > 0.95
    assert good["map_miou"].low <= good["map_miou"].value <= good["map_miou"].high
    bad = measure_maps(some.target.roll(1, 0), some.x)
    assert bad["map_miou"].value < 0.4 and bad["map_kinds"].value < 0.2
    with pytest.raises(ShapeError, match="maps asked for"):
        measure_maps(some.target, some.x[:3])


def test_examples_without_targets_are_refused() -> None:
    with pytest.raises(ShapeError, match="targets"):
        Examples(torch.zeros(2, 1, 2, 2), torch.zeros(3))
    with pytest.raises(UsageError, match="too few"):
        Told(1, 1)
