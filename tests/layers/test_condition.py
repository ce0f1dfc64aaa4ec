"""Conditions: three slots, merged by name, chosen row by row."""

import pytest
import torch

from fromnoise.core.errors import ShapeError
from fromnoise.layers.condition import Condition, Tokens, concatenate, merge, where


def condition(batch: int = 2, fill: float = 1.0, length: int = 3, mask: bool = False) -> Condition:
    values = torch.full((batch, length, 5), fill)
    return Condition(
        channels={"depth": torch.full((batch, 1, 4, 4), fill)},
        vector={"label": torch.full((batch, 10), fill)},
        tokens=Tokens(values, torch.ones(batch, length, dtype=torch.bool) if mask else None),
    )


def test_batch() -> None:
    assert condition(3).batch == 3
    assert Condition().batch is None
    assert Condition(vector={"size": torch.zeros(4, 2)}).batch == 4
    assert Condition(tokens=Tokens(torch.zeros(5, 1, 1))).batch == 5


def test_map_reaches_every_tensor_and_the_null() -> None:
    told = Condition(
        condition(mask=True).channels,
        condition().vector,
        condition(mask=True).tokens,
        null=condition(fill=0.0),
    )
    seen: list[tuple[int, ...]] = []
    told.map(lambda v: seen.append(tuple(v.shape)) or v)  # type: ignore[func-returns-value]
    assert len(seen) == 4 + 3
    assert told.to("cpu").null is not None


def test_rows() -> None:
    told = Condition(
        vector={"label": torch.eye(4)}, null=Condition(vector={"label": -torch.eye(4)})
    )
    part = told.rows(torch.tensor([2, 0]))
    assert torch.equal(part.vector["label"], torch.eye(4)[[2, 0]])
    assert part.null is not None
    assert torch.equal(part.null.vector["label"], -torch.eye(4)[[2, 0]])
    assert told.rows(slice(0, 1)).batch == 1


def test_where_picks_row_by_row() -> None:
    keep = torch.tensor([True, False, True])
    made = where(keep, condition(3, 1.0), condition(3, 0.0))
    assert made.vector["label"][:, 0].tolist() == [1, 0, 1]
    assert made.channels["depth"][:, 0, 0, 0].tolist() == [1, 0, 1]
    assert made.tokens is not None
    assert made.tokens.values[:, 0, 0].tolist() == [1, 0, 1]
    assert made.tokens.mask is None


def test_concatenate() -> None:
    made = concatenate(condition(2, 1.0), condition(1, 0.0))
    assert made.batch == 3
    assert made.vector["label"][:, 0].tolist() == [1, 1, 0]
    assert made.tokens is not None
    assert made.tokens.values.shape == (3, 3, 5)


@pytest.mark.parametrize("masks", [(False, False), (True, False), (False, True)])
def test_tokens_of_different_lengths_are_padded_and_masked(masks: tuple[bool, bool]) -> None:
    long, short = condition(2, 1.0, 5, masks[0]), condition(1, 2.0, 3, masks[1])
    for first, second in ((long, short), (short, long)):
        made = concatenate(first, second).tokens
        assert made is not None
        assert made.mask is not None
        assert made.values.shape == (3, 5, 5)
        counts = made.mask.sum(1).tolist()
        assert sorted(counts) == [3, 5, 5]
        row = counts.index(3)
        assert made.mask[row].tolist() == [True] * 3 + [False] * 2
        assert bool((made.values[row, :3] == 2).all())
    chosen = where(torch.tensor([True, False]), condition(2, 1.0, 5), condition(2, 0.0, 3)).tokens
    assert chosen is not None
    assert chosen.mask is not None
    assert chosen.mask.sum(1).tolist() == [5, 3]


def test_one_mask_is_not_lost() -> None:
    """A condition with a mask beside one without: the other counts everywhere."""
    masked = Condition(tokens=Tokens(torch.ones(1, 2, 1), torch.tensor([[True, False]])))
    bare = Condition(tokens=Tokens(torch.ones(1, 2, 1)))
    made = concatenate(masked, bare).tokens
    assert made is not None
    assert made.mask is not None
    assert made.mask.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize(
    "other",
    [
        Condition(vector={"label": torch.ones(2, 10)}),
        Condition(condition().channels, {"size": torch.ones(2, 1)}, condition().tokens),
        Condition(condition().channels, condition().vector),
        Condition(),
    ],
)
def test_different_slots_are_refused(other: Condition) -> None:
    for first, second in ((condition(), other), (other, condition())):
        with pytest.raises(ShapeError, match="different parts"):
            concatenate(first, second)
        with pytest.raises(ShapeError, match="different parts"):
            where(torch.tensor([True, False]), first, second)


def test_merge_unites_names_and_joins_tokens() -> None:
    text = Condition(
        tokens=Tokens(torch.ones(2, 3, 5)), null=Condition(tokens=Tokens(torch.zeros(2, 3, 5)))
    )
    picture = Condition(
        vector={"label": torch.ones(2, 4)},
        tokens=Tokens(torch.full((2, 2, 5), 2.0), torch.tensor([[True, False]] * 2)),
        null=Condition(vector={"label": torch.zeros(2, 4)}, tokens=Tokens(torch.zeros(2, 2, 5))),
    )
    made = merge(text, picture)
    assert list(made.vector) == ["label"]
    assert made.tokens is not None
    assert made.tokens.values[0, :, 0].tolist() == [1, 1, 1, 2, 2]
    assert made.tokens.mask is not None
    assert made.tokens.mask[0].tolist() == [True, True, True, True, False]
    assert made.null is not None
    assert made.null.tokens is not None
    assert made.null.tokens.values.shape == (2, 5, 5)
    # Where one part cannot be dropped there is no null of the whole.
    assert merge(text, Condition(vector={"size": torch.ones(2, 1)})).null is None
    assert merge().batch is None
    assert merge(text).tokens is text.tokens


def test_merge_refuses_one_name_twice() -> None:
    with pytest.raises(ShapeError, match="share the name 'depth'"):
        merge(condition(), condition())


def test_types_follow_the_first() -> None:
    told = Condition(vector={"label": torch.ones(1, 2, dtype=torch.float64)})
    null = Condition(vector={"label": torch.zeros(1, 2)})
    assert concatenate(told, null).vector["label"].dtype == torch.float64
    assert where(torch.tensor([False]), told, null).vector["label"].dtype == torch.float64
