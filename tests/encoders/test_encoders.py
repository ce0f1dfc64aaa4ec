"""Labels become exact vectors or a clear error; the null is what dropping leaves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fromnoise.core.errors import FromNoiseError, ShapeError, UsageError
from fromnoise.encoders import ENCODERS, Conditioning, Label

NAMES = ["cat", "dog", "1990"]


def vector(raw: Any, batch: int = 2) -> torch.Tensor:
    return Label(NAMES).encode("label", raw, batch).vector["label"]


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        (1, [1, 1]),
        ("dog", [1, 1]),
        (1990, [2, 2]),
        ([0, "dog"], [0, 1]),
        ((np.int64(2), 0), [2, 0]),
        (torch.tensor([2, 1]), [2, 1]),
        (torch.tensor(2), [2, 2]),
        (np.array([0, 2]), [0, 2]),
    ],
)
def test_a_label_is_one_hot(raw: Any, rows: list[int]) -> None:
    assert torch.equal(vector(raw), torch.eye(3)[rows])


def test_classes_mix_with_the_weights_given() -> None:
    mixed = torch.tensor([[0.25, 0.75, 0.0]])
    assert torch.equal(vector({"cat": 0.25, 1: 0.75}), mixed.expand(2, 3))
    assert torch.equal(vector([{0: 0.25, "dog": 0.75}, 2]), torch.cat([mixed, torch.eye(3)[2:]]))
    assert torch.equal(vector(mixed.expand(2, 3)), mixed.expand(2, 3))
    assert torch.equal(vector({0: 1.5, 2: -0.5}), torch.tensor([[1.5, 0.0, -0.5]]).expand(2, 3))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (3, "label 3 is not a class .* 0 to 2, or a name: cat, dog, 1990"),
        (-1, "label -1"),
        ("cow", "label 'cow'"),
        (1.0, "label 1.0"),
        (True, "label True"),
        (None, "label None"),
        ({1, 2}, "label {1, 2}"),
        ([0, 7], "label 7"),
        ([0, 1, 2], "3 labels given for 2 samples"),
        ([], "0 labels given for 2"),
        ({"cow": 1.0}, "label 'cow'"),
        ({0: float("nan")}, "class 0 has weight nan"),
        ({0: "much"}, "class 0 has weight 'much'"),
        (torch.ones(2, 4), "4 weights given for 3 classes"),
        (torch.tensor([0.0, 1.0]), "label 0.0"),
    ],
)
def test_a_wrong_label_is_refused_with_the_right_ones(raw: Any, message: str) -> None:
    with pytest.raises(FromNoiseError, match=message):
        vector(raw)


def test_rows_of_one_label_do_not_share_memory() -> None:
    rows = vector(0)
    rows[0] = 5.0
    assert torch.equal(rows[1], torch.eye(3)[0])


@pytest.mark.parametrize("classes", [0, -3, [], ["a", "a"]])
def test_impossible_classes_are_refused(classes: Any) -> None:
    with pytest.raises(UsageError, match="at least one class"):
        Label(classes)


def conditioning() -> Conditioning:
    return Conditioning({"label": Label(3), "style": Label(["ink", "oil"])})


def test_encoders_merge_and_what_is_left_out_is_null() -> None:
    condition = conditioning()({"label": [0, 2]}, 2)
    assert torch.equal(condition.vector["label"], torch.eye(3)[[0, 2]])
    assert torch.equal(condition.vector["style"], torch.zeros(2, 2))
    assert condition.null is not None
    for name, value in condition.null.vector.items():
        assert torch.equal(value, torch.zeros_like(condition.vector[name]))


def test_dropping_leaves_the_null_exactly_where_it_is_asked_to() -> None:
    model = conditioning()
    raw = {"label": [0, 1, 2], "style": "oil"}
    keep = torch.tensor([True, False, True])
    condition = model(raw, 3)
    dropped = model(raw, 3, keep={"label": keep, "style": keep})
    null = model.null(3)
    for name in ("label", "style"):
        assert torch.equal(dropped.vector[name][[0, 2]], condition.vector[name][[0, 2]])
        assert torch.equal(dropped.vector[name][1], null.vector[name][1])
        assert not torch.equal(condition.vector[name][1], null.vector[name][1])


def test_an_input_the_model_does_not_take_is_refused_with_those_it_takes() -> None:
    with pytest.raises(UsageError, match="prompt; it takes label, style"):
        conditioning()({"prompt": "a cat"}, 1)
    with pytest.raises(UsageError, match="label; it takes nothing"):
        Conditioning({})({"label": 1}, 1)
    assert Conditioning({})({}, 2).batch is None


def test_it_is_rebuilt_from_its_configuration() -> None:
    built = Conditioning.build(conditioning().config)
    assert built.config == conditioning().config
    assert built.config["style"] == {"kind": "label", "classes": ["ink", "oil"]}
    assert torch.equal(built({"style": "ink"}, 1).vector["style"], torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: ENCODERS.build({"kind": "lable", "classes": 3}), UsageError),
        (lambda: ENCODERS.build({"kind": "label", "clases": 3}), UsageError),
        (lambda: ENCODERS.build({"kind": "label", "classes": "ten"}), UsageError),
        (lambda: conditioning()({}, 2, keep={"label": torch.ones(1) > 0}), ShapeError),
    ],
)
def test_wrong_configurations_and_shapes_raise(
    build: Callable[[], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        build()
