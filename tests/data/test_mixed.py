"""Mixed labels: weights are chances, and all else is the data as it was."""

import pytest
import torch

from fromnoise import data
from fromnoise.core.errors import UsageError
from fromnoise.data import Digits, MixedLabels, load


def test_a_weight_is_the_chance_of_its_class() -> None:
    """Among samples told (a, 1 − a) with a in a narrow range, a share a is of the first class."""
    whole = Digits()
    told, own = [], []
    for seed in range(40):
        made = MixedLabels(whole, share=1.0, seed=seed)
        told.append(made.weights)
        own.append(made.labels)
    weights, labels = torch.cat(told), torch.cat(own)
    rows = torch.arange(len(labels))
    first = weights.argmax(1)
    top = weights[rows, first]
    right = (first == labels).double()
    for low in (0.5, 0.6, 0.7, 0.8, 0.9):
        here = (top >= low) & (top < low + 0.1)
        error = (right[here].mean() - top[here].double().mean()).abs()
        assert error < 4 * (0.25 / here.sum()) ** 0.5
        # The control: the label is not always the likelier one.
        assert right[here].mean() < 0.999 or low == 0.9


def test_weights_add_up_and_a_share_of_them_is_plain() -> None:
    made = MixedLabels(Digits(), share=0.3)
    assert torch.allclose(made.weights.sum(1), torch.ones(len(made)))
    assert ((made.weights > 0).sum(1) <= 2).all()
    plain = (made.weights.max(1).values == 1).double().mean().item()
    assert plain == pytest.approx(0.7, abs=0.04)
    assert torch.equal(MixedLabels(Digits(), 0.0).weights.argmax(1), Digits().labels)


def test_it_is_the_same_data_with_weights_given() -> None:
    config = {"kind": "mixed_labels", "whole": {"kind": "digits"}, "share": 1.0, "seed": 3}
    made, whole = load(config), Digits()
    one, other = made.batch([5, 7]), whole.batch([5, 7])
    assert torch.equal(one.x, other.x) and torch.equal(one.label, other.label)
    assert torch.equal(one.given["label"], made.weights[[5, 7]])
    again = data.DATA.build(made.config)
    assert torch.equal(again.weights, made.weights)
    assert not torch.equal(MixedLabels(whole, 1.0, seed=4).weights, made.weights)
    # Held out are the same scans as of the data itself.
    for mine, theirs in zip(made.split(0.2), whole.split(0.2), strict=True):
        assert (mine.indices == theirs.indices).all()
    train, _ = made.split(0.2)
    assert torch.equal(train.batch([0]).given["label"][0], made.weights[train.indices[0]])


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(UsageError, match="two classes or more"):
        MixedLabels(load({"kind": "points", "shape": "checkerboard", "count": 50}))
    with pytest.raises(UsageError, match="share 1.5"):
        MixedLabels(Digits(), share=1.5)
