"""The text encoder that is trained with its model: vocabulary, chunks, weights, the null."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.decoders import ByteLevel

from fromnoise import FromNoiseError
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.encoders import ENCODERS, Conditioning
from fromnoise.encoders.prompts import escaped
from fromnoise.encoders.text import Text, learn_merges

CAPTIONS = [
    f"{count} {colour} {kind}"
    for count in ("a", "two", "three")
    for colour in ("red", "green", "blue")
    for kind in ("circle", "square", "triangle")
]


def encoder(**changes: object) -> Text:
    torch.manual_seed(0)
    merges = learn_merges(CAPTIONS, 330)
    made = Text(merges=merges, length=8, width=16, depth=2, heads=2, **changes)  # type: ignore[arg-type]
    return made.eval()


def test_merges_are_the_most_frequent_pairs_and_the_same_every_time() -> None:
    # Within " r r r r" every pair but one is of a space and r.
    assert learn_merges(["r r r r"], 259)[0] == "Ġ r"
    assert learn_merges(CAPTIONS, 330) == learn_merges(list(CAPTIONS), 330)


def test_words_of_the_captions_become_one_token_and_others_stay_bytes() -> None:
    made = encoder()
    assert made.count("two red circle") == (3,)
    assert made.tokenize("TWO  red ") == made.tokenize("two red")
    assert len(made.tokenize("zzz")) == 4  # a space and three bytes
    assert Text(length=8).tokenize("ab") == Text(length=8).tokenize("AB")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=24))
def test_every_text_has_tokens_that_say_it_again(text: str) -> None:
    made = Text(merges=learn_merges(CAPTIONS, 300), length=8)
    ids = made.tokenize(text)
    normal = made._tokenizer.normalizer.normalize_str(" ".join(text.split()))
    pieces = [made._tokenizer.id_to_token(i) for i in ids]
    assert all(piece is not None for piece in pieces)
    assert ByteLevel().decode(pieces).removeprefix(" ") == normal


def test_a_vocabulary_is_part_of_the_configuration() -> None:
    made = encoder()
    built = ENCODERS.build({"kind": "text", "merges": list(made.merges), "length": 8})
    assert built.tokenize("two red circle") == made.tokenize("two red circle")
    with pytest.raises(UsageError, match="not known by then"):
        Text(merges=["ab c"])
    with pytest.raises(UsageError, match="258 or more"):
        learn_merges(CAPTIONS, 100)


def test_a_prompt_is_told_alike_whatever_stands_beside_it() -> None:
    made = encoder()
    both = made.encode("prompt", ["a red circle", "two green square"], 2)
    alone = made.encode("prompt", "two green square", 1)
    assert both.tokens is not None and alone.tokens is not None
    torch.testing.assert_close(both.tokens.values[1:], alone.tokens.values)
    repeated = made.encode("prompt", "a red circle", 3)
    assert repeated.tokens is not None
    assert torch.equal(repeated.tokens.values[0], repeated.tokens.values[2])


def test_padding_says_nothing() -> None:
    """What fills a prompt up changes no token that counts; without the mask it would."""
    made = encoder()
    ids = torch.full((1, 8), -1)
    ids[0, :3] = torch.tensor([0, 70, 1])
    values, mask = made(ids)
    short = Text(merges=made.merges, length=3, width=16, depth=2, heads=2)
    weights = {k: v[:3] if k == "position" else v for k, v in made.state_dict().items()}
    short.load_state_dict(weights)
    expected, _ = short.eval()(ids[:, :3])
    torch.testing.assert_close(values[:, :3], expected)
    assert mask.sum() == 3
    unmasked, _ = made(ids.clamp(min=0))
    assert not torch.allclose(unmasked[:, :3], expected)


def test_weights_multiply_the_tokens_of_their_words() -> None:
    made = encoder()
    plain = made.encode("prompt", "two red circle", 1).tokens
    strong = made.encode("prompt", "two (red:1.5) circle", 1).tokens
    assert plain is not None and strong is not None
    ratio = strong.values[0] / plain.values[0]
    for place, weight in enumerate([1, 1, 1.5, 1, 1]):
        torch.testing.assert_close(ratio[place], torch.full((16,), float(weight)))


def test_a_long_prompt_is_several_chunks_and_a_short_one_beside_it_is_masked() -> None:
    made = encoder()
    long = "two red circle " * 4
    told = made.encode("prompt", [long, "two red circle"], 2).tokens
    assert told is not None and told.mask is not None
    assert made.count(long) == (6, 6)
    assert told.values.shape == (2, 16, 16)
    assert told.mask.sum(1).tolist() == [16, 5]
    first = made.encode("prompt", "two red circle two red circle", 1).tokens
    assert first is not None
    torch.testing.assert_close(told.values[0, :8], first.values[0])
    assert made.encode("prompt", "red BREAK blue", 1).tokens.values.shape[1] == 16  # type: ignore[union-attr]


def test_the_pooled_vector_is_the_mean_of_what_counts() -> None:
    told = encoder(pooled=True).encode("prompt", "two red circle", 1)
    assert told.tokens is not None
    mean = told.tokens.values[0, :5].mean(0) / 4
    torch.testing.assert_close(told.vector["prompt"][0], mean)


def test_the_null_is_the_empty_prompt_and_learns() -> None:
    made = encoder()
    empty, null = made.encode("prompt", "", 2).tokens, made.null("prompt", 2).tokens
    assert empty is not None and null is not None
    assert torch.equal(empty.values, null.values)
    null.values.square().sum().backward()
    assert made.position.grad is not None and float(made.position.grad.abs().sum()) > 0


def test_every_weight_learns_from_prompts() -> None:
    conditioning = Conditioning({"prompt": encoder(pooled=True)})
    condition = conditioning({"prompt": [escaped(c) for c in CAPTIONS[:4]]}, 4)
    assert condition.tokens is not None
    mask = condition.tokens.mask
    assert mask is not None
    torch.manual_seed(1)
    loss = (torch.randn(4, 8, 16) * condition.tokens.values * mask[..., None]).sum()
    loss.backward()
    for name, parameter in conditioning.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("raw", "error", "says"),
    [
        (["a", "b", "c"], ShapeError, "3 prompts given for 2"),
        ([1, 2], UsageError, "a prompt is text, not 1"),
        ("(red:much)", UsageError, "much"),
        ("red " * 4000, UsageError, "characters"),
    ],
)
def test_bad_prompts_are_refused(raw: object, error: type[FromNoiseError], says: str) -> None:
    with pytest.raises(error, match=says):
        encoder().encode("prompt", raw, 2)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="no room for words"):
        Text(length=2)
    with pytest.raises(UsageError, match="do not divide"):
        Text(width=10, heads=4)
