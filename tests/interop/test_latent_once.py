"""What is made once: a prompt's embedding in a call, its keys and values in a run."""

from collections import Counter

import pytest
import torch
from interop import latent_pipelines as tiny

import fromnoise as fn
from fromnoise.encoders import CLIPText
from fromnoise.layers.spatial_transformer import SpatialBlock
from fromnoise.model.told import Telling


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> fn.Model:
    return fn.load(tiny.saved(tmp_path_factory.mktemp("sd1"), "sd1")[1])


def counted(model: fn.Model, **asked: object) -> tuple[list[int], Counter[str]]:
    """The rows of each pass through the text tower, and the calls of each layer of keys."""
    passes: list[int] = []
    calls: Counter[str] = Counter()
    encoder = model.conditioning.encoders["prompt"]
    assert isinstance(encoder, CLIPText)
    handles = [encoder.tower.register_forward_hook(lambda _, ids, __: passes.append(len(ids[0])))]
    # The network as it is run: a readied copy of the model's.
    net = model.prepared(torch.float32).net
    for name, block in net.named_modules():
        if isinstance(block, SpatialBlock):
            for part in (block.cross.key, block.cross.value, block.cross.query):
                label = f"{name}.{'query' if part is block.cross.query else 'told'}"
                handles.append(
                    part.register_forward_hook(lambda *_, label=label: calls.update([label]))
                )
    try:
        model.sample(dtype="float32", **asked)  # type: ignore[arg-type]
    finally:
        for handle in handles:
            handle.remove()
    return passes, calls


@pytest.mark.parametrize("steps", [2, 5])
def test_once_whatever_the_steps(model: fn.Model, steps: int) -> None:
    """A prompt for all samples is one row, and so is its null; keys and values are made once."""
    passes, calls = counted(model, count=3, prompt="a cat", negative="a dog", steps=steps)
    # The negative stands in the place of the null, which nobody reads.
    assert passes == [1, 1]
    told = {name: count for name, count in calls.items() if name.endswith("told")}
    assert len(told) == 4 and set(told.values()) == {2}
    asked = [count for name, count in calls.items() if name.endswith("query")]
    assert set(asked) == {steps}


def test_without_a_negative_the_null_is_read_beside_the_prompt(model: fn.Model) -> None:
    assert counted(model, count=3, prompt="a cat", steps=2)[0] == [1, 1]


def test_prompts_that_differ_are_told_apart(model: fn.Model) -> None:
    """Two prompts are two rows of one pass; of a prompt that changes each part is read once."""
    passes, _ = counted(model, count=4, prompt=["a cat", "a dog", "a cat", "a dog"], steps=2)
    assert sorted(passes) == [1, 2]
    passes, calls = counted(model, count=1, prompt="[a cat:a dog:0.5]", steps=4)
    assert passes == [1, 1, 1]
    told = {count for name, count in calls.items() if name.endswith("told")}
    assert told == {4}


@pytest.mark.parametrize(
    ("asked", "texts"),
    [
        ({"prompt": "a cat"}, 2),
        ({"prompt": "a cat", "negative": "a dog"}, 2),
        ({"negative": "a dog"}, 2),
        ({"prompt": "[a cat:a dog:0.5]"}, 3),
        ({"prompt": "[a cat:a dog:0.5]", "negative": "rain"}, 3),
        ({"prompt": "a cat", "negative": "[rain:a cat:0.5]"}, 2),
    ],
)
def test_each_text_is_read_once_for_both_passes(
    model: fn.Model, asked: dict[str, str], texts: int
) -> None:
    """The null is the empty prompt: one more text, where no negative stands in its place."""
    for hires in (None, fn.Hires(2.0)):
        passes, _ = counted(model, count=2, steps=4, hires=hires, guidance=2.0, **asked)
        assert passes == [1] * texts, (asked, hires)


def test_what_is_kept_of_one_call_is_not_told_in_the_next(model: fn.Model) -> None:
    """The control: weights that change between two calls change what is told."""
    encoder = model.conditioning.encoders["prompt"]
    assert isinstance(encoder, CLIPText)
    first = model.sample(1, prompt="a cat", negative="a dog", steps=2, guidance=3.0).tensor
    again = model.sample(1, prompt="a cat", negative="a dog", steps=2, guidance=3.0).tensor
    weight = encoder.tower.norm.weight
    with torch.no_grad():
        weight.mul_(3.0)
        try:
            other = model.sample(1, prompt="a cat", negative="a dog", steps=2, guidance=3.0).tensor
        finally:
            weight.div_(3.0)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_negative_is_what_is_told_in_the_place_of_the_null(model: fn.Model) -> None:
    """With and without what was encoded before, bit for bit."""
    conditioning = model.conditioning
    telling = Telling({"prompt": "a cat"}, {"prompt": "a dog"}, (0, 1), (8, 8), 2)
    with torch.no_grad():
        ((_, told),) = telling.over(conditioning)
        ((_, once_more),) = telling.over(conditioning)
        cat, dog = (conditioning({"prompt": text}, 2, (8, 8)) for text in ("a cat", "a dog"))
    for one in (told, once_more):
        assert one is not None and one.tokens and one.null and one.null.tokens
        assert cat.tokens and dog.tokens and cat.null and cat.null.tokens
        assert torch.equal(one.tokens.values, cat.tokens.values)
        assert torch.equal(one.null.tokens.values, dog.tokens.values)
        assert not torch.equal(one.null.tokens.values, cat.null.tokens.values)
