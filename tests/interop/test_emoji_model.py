"""The model that comes with the package: it is here, small, and draws what it is asked for."""

import torch

import fromnoise as fn
from fromnoise.interop import builtin


def folder_size() -> int:
    return sum(path.stat().st_size for path in (builtin.folder() / "emoji").iterdir())


def test_it_comes_along_and_is_small() -> None:
    assert "emoji" in builtin.names()
    assert folder_size() <= 12_000_000
    card = (builtin.folder() / "emoji.md").read_text("utf-8")
    assert "Licence" in card and "Open" in card


def test_colours_are_those_asked_for() -> None:
    """Prompts whose colour is plain; swapped, they are wrong."""
    model = fn.load("emoji")
    prompts = ["red heart", "green heart", "blue heart"]
    drawn = model.sample(3, prompt=prompts, steps=8, seed=0).tensor
    ink = [picture[:, (picture < 0.5).any(0)].mean(1) for picture in drawn]
    assert [int(mean.argmax()) for mean in ink] == [0, 1, 2]
    assert model.tokens("red heart") == {"prompt": (2,)}


def test_guidance_towards_a_colour_changes_the_picture() -> None:
    model = fn.load("emoji")
    towards = fn.guidance.loss(fn.guidance.color("blue"), 5.0, limit=1.0)
    plain = model.sample(1, prompt="cat face", steps=4).tensor
    blue = model.sample(1, prompt="cat face", steps=4, guide=[towards]).tensor
    assert float(blue[:, 2].mean() - blue[:, 0].mean()) > float(
        plain[:, 2].mean() - plain[:, 0].mean()
    )
    assert bool(torch.isfinite(blue).all())
