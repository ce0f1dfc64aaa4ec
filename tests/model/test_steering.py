"""All that steers one call together: negatives, schedules, guides, and what a recipe says of it."""

import pytest
import torch
from model.tiny import tiny, tiny_text
from torch import Tensor

from fromnoise import grids
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Denoiser
from fromnoise.guidance import (
    ClassifierFree,
    Decode,
    Thresholded,
    Wrapper,
    auto,
    color,
    loss,
    named,
    symmetry,
)
from fromnoise.model import Model
from fromnoise.samplers import get, last, sample

EXACT = {"dtype": "float32", "seed": 3}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


@pytest.fixture(scope="module")
def text() -> Model:
    return tiny_text()


def by_hand(model: Model, guided: Denoiser, condition, count: int) -> Tensor:  # type: ignore[no-untyped-def]
    """The samples of a call, made of its parts."""
    grid = grids.get(model.defaults.grid)(model.denoiser.process.clock, model.defaults.steps)
    noise = Noise([3 + i for i in range(count)])
    start = model.denoiser.process.prior(noise, torch.zeros(count, *model.shape), float(grid[0]))
    steps = sample(guided, get(model.defaults.sampler), grid, start, condition, noise)
    return model.decode(last(steps))


def test_a_negative_takes_the_place_of_the_null(model: Model) -> None:
    found = model.sample(3, label=1, negative=2, guidance=3.0, **EXACT).tensor
    away = model.condition(3, label=2)
    guided = ClassifierFree(model.prepared(torch.float32), 3.0, negative=away)
    assert torch.equal(found, by_hand(model, guided, model.condition(3, label=1), 3))
    assert not torch.equal(found, model.sample(3, label=1, guidance=3.0, **EXACT).tensor)
    named_so = model.sample(3, label=1, negative={"label": "2"}, guidance=3.0, **EXACT).tensor
    assert torch.equal(named_so, found)
    each = model.sample(3, label=1, negative=[2, 2, 2], guidance=3.0, **EXACT).tensor
    assert torch.equal(each, found)


def test_a_negative_alone_is_moved_away_from(model: Model) -> None:
    found = model.sample(2, negative=2, guidance=3.0, **EXACT).tensor
    guided = ClassifierFree(
        model.prepared(torch.float32), 3.0, negative=model.condition(2, label=2)
    )
    assert torch.equal(found, by_hand(model, guided, model.condition(2), 2))


def test_interval_rescale_and_threshold_are_those_of_the_wrappers(model: Model) -> None:
    how = {"guidance": 3.0, "interval": (0.2, 0.7), "rescale": 0.6, "threshold": 0.9}
    found = model.sample(3, label=1, **how, **EXACT).tensor  # type: ignore[arg-type]
    guided: Denoiser = ClassifierFree(
        model.prepared(torch.float32), 3.0, interval=(0.2, 0.7), rescale=0.6
    )
    guided = Thresholded(guided, 0.9)
    assert torch.equal(found, by_hand(model, guided, model.condition(3, label=1), 3))


class Noted(Wrapper):
    """Says when it is asked and when it has its answer."""

    def __init__(self, denoiser: Denoiser, name: str, notes: list[str]) -> None:
        super().__init__(denoiser)
        self.name, self.notes = name, notes

    def believe(self, ask, x, t, condition):  # type: ignore[no-untyped-def]
        self.notes.append(f"{self.name} asked")
        prediction = ask(x, t)
        self.notes.append(f"{self.name} answered {x.shape[0]} rows")
        return prediction


def test_the_first_guide_is_innermost_and_all_are_around_guidance(model: Model) -> None:
    notes: list[str] = []

    def noting(name: str):  # type: ignore[no-untyped-def]
        return lambda denoiser, decode: Noted(denoiser, name, notes)

    model.sample(
        2, label=1, guidance=2.0, guide=[noting("a"), noting("b")], steps=1, grid="uniform"
    )
    # They see each sample once: the pairs of guidance are made within.
    assert notes == ["b asked", "a asked", "a answered 2 rows", "b answered 2 rows"]


def test_guides_that_only_look_change_no_bit(model: Model) -> None:
    plain = model.sample(2, label=1, guidance=2.0, **EXACT).tensor
    looking = [loss(symmetry(), 0.0), lambda denoiser, decode: denoiser]
    assert torch.equal(model.sample(2, label=1, guidance=2.0, guide=looking, **EXACT).tensor, plain)


def test_several_guides_act_at_once_and_pictures_keep_to_their_seeds(text: Model) -> None:
    """A guided picture does not depend on its neighbours, at one batch shape bit for bit."""
    guides = [loss(symmetry(), 5.0, limit=1.0), loss(color("blue"), 5.0, limit=1.0)]
    how = {"prompt": "red", "guide": guides, "batch_size": 3, "dtype": "float32"}
    both = text.sample(3, seed=[5, 6, 7], **how).tensor  # type: ignore[arg-type]
    alone = text.sample(1, seed=6, **how).tensor  # type: ignore[arg-type]
    assert torch.equal(alone[0], both[1])
    plain = text.sample(3, seed=[5, 6, 7], prompt="red", dtype="float32").tensor
    blue = torch.tensor([-1.0, -1.0, 1.0])
    assert ((both.mean((2, 3)) - blue).norm(dim=1) < (plain.mean((2, 3)) - blue).norm(dim=1)).all()
    assert (symmetry()(both) < 0.5 * symmetry()(plain)).all()


def test_a_guide_looks_at_what_the_codec_decodes(model: Model) -> None:
    seen: list[tuple[int, ...]] = []

    def look(denoiser: Denoiser, decode: Decode) -> Denoiser:
        seen.append(tuple(decode(torch.zeros(2, 1, 8, 8)).shape))
        return denoiser

    model.sample(2, label=1, guide=look, steps=1)
    assert set(seen) == {(2, 1, 8, 8)}


def test_a_prompt_that_changes_is_both_of_its_runs_in_turn(text: Model) -> None:
    how = {"guidance": 2.0, "steps": 5, "sampler": "ddim", **EXACT}
    steps = {
        prompt: list(text.stream(2, prompt=prompt, **how))  # type: ignore[arg-type]
        for prompt in ("red", "blue", "[red:blue:0.4]", "[red:blue:5]", "[red:blue:0]")
    }
    changing = steps["[red:blue:0.4]"]
    assert all(torch.equal(changing[i].x, steps["red"][i].x) for i in range(2))
    assert not torch.equal(changing[2].x, steps["red"][2].x)
    assert torch.equal(steps["[red:blue:5]"][-1].x, steps["red"][-1].x)
    assert torch.equal(steps["[red:blue:0]"][-1].x, steps["blue"][-1].x)
    onwards = text.sample(
        2, prompt="blue", guidance=2.0, sampler="ddim", dtype="float32", start=changing[1].x,
        grid=grids.get(text.defaults.grid)(text.denoiser.process.clock, 5)[2:],
    )  # fmt: skip
    torch.testing.assert_close(onwards.tensor, text.decode(changing[-1].x), rtol=1e-5, atol=1e-5)


def test_prompts_of_several_samples_and_negatives_change_by_themselves(text: Model) -> None:
    how = {"guidance": 2.0, "dtype": "float32", "batch_size": 2}
    prompts = ["[red:blue:0.4]", "[a|b]"]
    found = text.sample(2, prompt=prompts, negative="[old:new:0.6]", seed=0, **how).tensor  # type: ignore[arg-type]
    for i, prompt in enumerate(prompts):
        alone = text.sample(1, prompt=prompt, negative="[old:new:0.6]", seed=i, **how)  # type: ignore[arg-type]
        torch.testing.assert_close(alone.tensor[0], found[i], rtol=1e-5, atol=1e-5)
    other = text.sample(2, prompt=prompts, negative="old", seed=0, **how).tensor  # type: ignore[arg-type]
    assert not torch.equal(other, found)


def test_a_worse_copy_is_told_the_same_through_its_own_encoders(text: Model) -> None:
    worse = tiny_text(seed=1)
    found = text.sample(2, prompt="red", guide=auto(worse, 2.0), **EXACT).tensor
    condition, own = text.condition(2, prompt="red"), worse.condition(2, prompt="red")
    assert condition is not None and own is not None and condition.tokens is not None
    assert own.tokens is not None
    assert not torch.equal(condition.tokens.values, own.tokens.values)

    class Own(Wrapper):
        def believe(self, ask, x, t, condition):  # type: ignore[no-untyped-def]
            return self.denoiser(x, t, own)

    guided = auto(Own(worse.prepared(torch.float32)), 2.0)(
        text.prepared(torch.float32), lambda z: z
    )
    with torch.no_grad():
        assert torch.equal(found, by_hand(text, guided, condition, 2))
    itself = text.sample(2, prompt="red", guide=auto(text, 3.0), **EXACT).tensor
    plain = text.sample(2, prompt="red", **EXACT).tensor
    torch.testing.assert_close(itself, plain, rtol=1e-4, atol=1e-5)


def test_a_worse_copy_is_run_in_the_type_of_the_model(model: Model) -> None:
    """In float64 a batch changes nothing that float32 would show."""
    how = {"label": 1, "guide": auto(tiny(seed=1), 2.0), "dtype": "float64"}
    one, three = (model.sample(3, batch_size=batch, **how).tensor for batch in (1, 3))  # type: ignore[arg-type]
    assert torch.equal(one, three)


def test_a_recipe_says_what_steered(text: Model) -> None:
    def opens(source: str) -> Model:
        raise AssertionError(source)

    stream = text.stream(
        2, prompt=["red", "blue"], negative="old", guidance=2.0, interval=(0.1, 0.8), rescale=0.5,
        guide=[named("color:blue:3", opens), loss(symmetry())], threshold=0.99,
    )  # fmt: skip
    recipe = stream.recipe
    assert recipe["negative"] == "old"
    assert recipe["interval"] == [0.1, 0.8]
    assert recipe["rescale"] == 0.5
    assert recipe["guide"] == ["color:blue:3", "given"]
    assert recipe["threshold"] == 0.99
    plain = text.stream(1).recipe
    assert [plain[key] for key in ("negative", "interval", "guide", "threshold")] == [
        None, None, [], None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"label": 1, "negative": 2}, "there is none; give guidance"),
        ({"label": 1, "interval": (0.1, 0.5)}, "there is none; give guidance"),
        ({"label": 1, "rescale": 0.5}, "there is none; give guidance"),
        ({"label": 1, "guidance": 2.0, "negative": 7}, "label 7"),
        ({"label": 1, "guidance": 2.0, "negative": "  "}, "negative prompt is empty"),
        ({"label": 1, "guidance": 2.0, "interval": (0.5, 0.1)}, "lower first"),
        ({"label": 1, "guidance": 2.0, "rescale": 2.0}, "not a share"),
        ({"label": 1, "threshold": 0.0}, "not a share"),
        ({"label": 1, "guide": "color:blue"}, "no guide"),
        ({"label": 1, "guide": [3]}, "no guide"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a cat"}, "not told a prompt; it takes label"),
        ({"label": 1, "guidance": "3"}, "no number"),
        ({"label": 1, "guidance": 2.0, "interval": (0.0, 0.5, 1.0)}, "not two times"),
        ({"label": 1, "guidance": 2.0, "interval": 0.5}, "not two times"),
        ({"label": 1, "guidance": 2.0, "rescale": "0.5"}, "not a share"),
        ({"prompt": ["", "a"]}, "prompt is empty"),
        ({"inputs": {"prompt": " "}}, "prompt is empty"),
        ({"inputs": {"depth": 1}}, "not told a depth"),
        ({"label": 1, "inputs": {"label": 2}}, "given twice"),
    ],
)
def test_what_cannot_steer_this_model_is_said_at_once(
    model: Model, arguments: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        model.stream(2, **arguments)  # type: ignore[arg-type]
