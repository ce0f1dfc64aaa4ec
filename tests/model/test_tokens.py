"""A model says how many tokens a prompt has, by the encoders that read it."""

import pytest
from model.tiny import tiny

from fromnoise.core.errors import UsageError
from fromnoise.encoders import Conditioning, Label, Text


def test_tokens_are_counted_by_the_encoders_that_read_prompts() -> None:
    model = tiny()
    model.conditioning = Conditioning({"label": Label(3), "prompt": Text(length=6, width=8)})
    assert model.tokens("abc") == {"prompt": (4,)}  # bytes, and the space in front
    assert model.tokens("(abcd:2) BREAK") == model.tokens("abc" + " d") | {"prompt": (4, 1)}
    with pytest.raises(UsageError, match="not a finite number"):
        model.tokens("(a:x)")


def test_a_model_without_prompts_says_so() -> None:
    with pytest.raises(UsageError, match="reads no prompts; it takes label"):
        tiny().tokens("abc")
