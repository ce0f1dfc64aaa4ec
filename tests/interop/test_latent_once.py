"""What is made once: a prompt's embedding in a call, its keys and values in a run."""

from collections import Counter

import pytest
import torch
from interop import latent_pipelines as tiny

import fromnoise as fn
from fromnoise.encoders import CLIPText
from fromnoise.layers.spatial_transformer import SpatialBlock


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
    # Each part of a condition with a negative is encoded with its own null.
    assert passes == [1] * len(passes) and len(passes) <= 4
    told = {name: count for name, count in calls.items() if name.endswith("told")}
    assert len(told) == 4 and set(told.values()) == {2}
    asked = [count for name, count in calls.items() if name.endswith("query")]
    assert set(asked) == {steps}


def test_without_a_negative_the_null_is_read_beside_the_prompt(model: fn.Model) -> None:
    assert counted(model, count=3, prompt="a cat", steps=2)[0] == [1, 1]


def test_prompts_that_differ_are_told_apart(model: fn.Model) -> None:
    """Two prompts are two rows of one pass; a prompt that changes in the run is read again."""
    passes, _ = counted(model, count=4, prompt=["a cat", "a dog", "a cat", "a dog"], steps=2)
    assert sorted(passes) == [1, 2]
    passes, calls = counted(model, count=1, prompt="[a cat:a dog:0.5]", steps=4)
    assert len(passes) == 4
    told = {count for name, count in calls.items() if name.endswith("told")}
    assert told == {4}
