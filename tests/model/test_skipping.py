"""Clip skip reads prompts from an earlier layer, as transformers counts them, and only then."""

import pytest
import torch
from model.tiny import tiny, tiny_text
from model.tiny_latent import TOWER, tiny_latent

from fromnoise.core.errors import UsageError
from fromnoise.encoders import CLIPText, Conditioning
from fromnoise.model import Model
from fromnoise.model.skipping import skipping


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_latent(tmp_path_factory.mktemp("latent"))


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_layer_is_counted_from_the_last(layer: int, model: Model) -> None:
    text = model.conditioning.encoders["prompt"]
    assert isinstance(text, CLIPText)
    found = skipping(model, layer)({"prompt": "a cat"}, 1).tokens
    ids = text._rows("a cat").ids
    with torch.no_grad():
        states = text.tower(ids).states
        expected = text.tower.norm(states[len(states) - layer])
    assert found is not None and torch.equal(found.values, expected)
    assert text.skip == 0 and len(states) == TOWER.depth + 1


def test_one_layer_less_draws_another_picture_and_leaves_the_model_alone(model: Model) -> None:
    asked = {"prompt": "a cat", "steps": 3}
    plain = model.sample(1, **asked)
    assert torch.equal(model.sample(1, clip_skip=1, **asked).tensor, plain.tensor)
    skipped = model.sample(1, clip_skip=2, **asked)
    assert not torch.equal(skipped.tensor, plain.tensor)
    assert skipped.recipe["clip_skip"] == 2
    assert torch.equal(model.sample(1, **asked).tensor, plain.tensor)


def test_encoders_inside_others_are_found(model: Model) -> None:
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = model.conditioning.encoders["prompt"]
            self.other = torch.nn.Linear(2, 2)

    both = Both()
    wrapped = Conditioning({})
    wrapped.encoders["prompt"] = both  # type: ignore[assignment]
    whole = Model(model.denoiser, model.shape, model.codec, wrapped)
    changed = skipping(whole, 3)
    inner = changed.encoders["prompt"]
    assert inner.first.skip == 2 and both.first.skip == 0
    assert inner.other is both.other
    assert inner.first.tower is both.first.tower


@pytest.mark.parametrize("layer", [0, 4, -1, 1.5, True])
def test_layers_that_are_not_there(layer: object, model: Model) -> None:
    with pytest.raises(UsageError, match="from 1, the last, to 3, the first"):
        model.stream(1, prompt="a", clip_skip=layer)  # type: ignore[arg-type]


def test_models_without_clip_refuse_it() -> None:
    for other, takes in ((tiny(), "label"), (tiny_text(), "prompt")):
        with pytest.raises(UsageError, match=f"has none; it takes {takes}"):
            other.stream(1, clip_skip=2)
