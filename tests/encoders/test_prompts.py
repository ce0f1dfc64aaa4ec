"""Prompts read as AUTOMATIC1111 reads them: its published examples, and laws on any text."""

import math
import time
from contextlib import suppress
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.encoders.prompt_schedule import DEEPEST, schedule
from fromnoise.encoders.prompts import (
    BREAK,
    LONGEST,
    MOST_CHUNKS,
    Chunk,
    Part,
    chunks,
    counts,
    escaped,
    framed,
    parse,
    weighted,
)

SIGNS = "()[]\\:|,. 1aB\n"
PROMPTS = st.text(alphabet=SIGNS, max_size=40) | st.text(max_size=20)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.5730000000000004),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641000000000006),
                (".", 1.1),
            ],
        ),
    ],
)
def test_the_published_examples_of_weights(prompt, parts):
    assert parse(prompt) == tuple(parts)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("", []),
        ("()", []),
        ("((a))", [("a", 1.1 * 1.1)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("(a: 1.3 )b", [("a", 1.3), ("b", 1.0)]),
        ("(a:-.5)", [("a", -0.5)]),
        ("(a:0)", [("a", 0.0)]),
        ("a) b] c:1.3)", [("a) b] c:1.3)", 1.0)]),
        ("[a:1.3)", [("a:1.3)", 1 / 1.1)]),
        ("(16:9 \\: the width:2)", [("16:9 : the width", 2.0)]),
        ("(Star Wars: A New Hope)", [("Star Wars: A New Hope", 1.1)]),
        (r"\\ \a \(", [("\\ a (", 1.0)]),
        ("a BREAK (b BREAK\n c:2)", [("a", 1.0), BREAK, ("b", 2.0), BREAK, ("c", 2.0)]),
        ("BREAKFAST break", [("BREAKFAST break", 1.0)]),
        ("BREAK", [BREAK]),
    ],
)
def test_what_the_examples_leave_open(prompt, parts):
    assert parse(prompt) == tuple(parts)


@pytest.mark.parametrize(
    "weight",
    ["x", "", " ", "nan", "inf", "-inf", "1e400", "1,3", "1.2.3", "--1", "1_0", "0x1", "½"],
)
def test_a_weight_that_is_no_finite_number_is_refused_with_the_way_out(weight):
    with pytest.raises(UsageError, match=r"not a finite number; write \(text:1.3\)"):
        parse(f"a cat (red:{weight}) on a mat")
    # Without a bracket it is text, as everywhere.
    assert parse(f"red:{weight}") == (Part(f"red:{weight}"),)


def test_weights_that_multiply_beyond_reason_and_long_prompts_are_refused():
    with pytest.raises(UsageError, match="multiply to 1e"):
        parse("((a:1e10):1e10)")
    with pytest.raises(UsageError, match="10,001 characters"):
        parse("a" * (LONGEST + 1))
    with pytest.raises(UsageError, match="is text, not 3"):
        parse(3)


def test_the_worst_prompts_take_no_longer_than_they_should():
    started = time.process_time()
    for prompt in ("(" * LONGEST, "([" * (LONGEST // 2), ":" * LONGEST, "(:" * (LONGEST // 2)):
        with suppress(UsageError):
            parse(prompt)
            schedule(prompt, 3)
    parse("(a:" + " " * (LONGEST - 3))
    schedule("[" * (LONGEST // 2) + "]" * (LONGEST // 2), 3)
    assert time.process_time() - started < 8


@given(st.text(max_size=40).filter(lambda text: "BREAK" not in text))
def test_escaped_text_means_itself(text):
    assert parse(escaped(text)) == ((Part(text),) if text else ())
    assert schedule(escaped(text), 3) == [(3, escaped(text))]


@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ab ,()[]:\\", min_size=1, max_size=8),
            st.floats(-8, 8).map(lambda weight: round(weight, 3)),
        ),
        max_size=6,
    )
)
def test_parts_written_as_a_prompt_are_read_again(pairs):
    parts = parse("".join(f"({escaped(text)}:{weight})" for text, weight in pairs))
    assert "".join(part.text for part in parts) == "".join(text for text, _ in pairs)
    per_sign = [weight for text, weight in pairs for _ in text]
    assert [part.weight for part in parts for _ in part.text] == per_sign
    assert all(a.weight != b.weight for a, b in pairwise(parts))


@given(PROMPTS)
def test_any_text_is_read_or_refused(prompt):
    parts: tuple[Part, ...] = ()
    with suppress(UsageError):
        parts = parse(prompt)
    assert all(math.isfinite(part.weight) for part in parts)
    assert all(part.text or part == BREAK for part in parts)


STEPS = 10


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", [(i + 1, ("a", "(b:1.1)")[i % 2]) for i in range(10)]),
        ("[fe|]male", [(i + 1, ("female", "male")[i % 2]) for i in range(10)]),
        (
            "[fe|||]male",
            [(i + 1, ("female", "male", "male", "male")[i % 4]) for i in range(10)],
        ),
    ],
)
def test_the_published_examples_of_schedules(prompt, expected):
    assert schedule(prompt, STEPS) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("[a:b:0.4]", [(4, "a"), (10, "b")]),
        ("[a::0.4]", [(4, "a"), (10, "")]),
        ("[a:b:1.0]", [(10, "a")]),
        ("[a:b:1]", [(1, "a"), (10, "b")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-2]", [(10, "b")]),
        ("[a:b:99]", [(10, "a")]),
        ("[a:b:1e999]", [(10, "a")]),
        ("[a:b:c:0.4]", [(10, "[a:b:c:0.4]")]),
        ("[a:b:x]", [(10, "[a:b:x]")]),
        (r"\[a:b:0.4]", [(10, r"\[a:b:0.4]")]),
        (r"[a\:b:0.4]", [(4, ""), (10, r"a\:b")]),
        ("(a [b|c]:1.2)", [(i + 1, f"(a {'bc'[i % 2]}:1.2)") for i in range(10)]),
        ("[a ( b:0.4] )", [(10, "[a ( b:0.4] )")]),
    ],
)
def test_schedules_the_examples_leave_open(prompt, expected):
    assert schedule(prompt, STEPS) == expected


def test_impossible_schedules_are_refused():
    with pytest.raises(UsageError, match="0 steps"):
        schedule("a", 0)
    deep = DEEPEST + 2
    with pytest.raises(UsageError, match="more than 50 deep"):
        schedule("[a:" * deep + "b" + ":1]" * deep, 3)


@given(PROMPTS, st.integers(1, 12))
def test_any_schedule_covers_every_step_once(prompt, steps):
    prompts = schedule(prompt, steps)
    ends = [end for end, _ in prompts]
    assert ends == sorted(set(ends)) and ends[0] >= 1 and ends[-1] == steps


def letters(text: str) -> list[int]:
    """A tokenizer: one id for each letter."""
    return [ord(sign) for sign in text if sign != " "]


def spelled(parts: tuple[Chunk, ...]) -> list[str]:
    return ["".join(map(chr, part.ids)) for part in parts]


@pytest.mark.parametrize(
    ("prompt", "comma", "expected"),
    [
        ("", None, [""]),
        ("abc", None, ["abc"]),
        ("abcde", None, ["abcde"]),
        ("abcdef", None, ["abcde", "f"]),
        ("a BREAK b", None, ["a", "b"]),
        ("a BREAK", None, ["a"]),
        ("BREAK a", None, ["", "a"]),
        ("ab,cdef", None, ["ab,cd", "ef"]),
        ("ab,cdef", 44, ["ab,", "cdef"]),
        ("a,bcdef", 44, ["a,bcd", "ef"]),  # the comma is too far back
        ("abcd,ef", 44, ["abcd,", "ef"]),
        ("abc,e,f", 44, ["abc,e", ",f"]),  # a comma opens no chunk of its own
        ("abc,e", 44, ["abc,e"]),
    ],
)
def test_long_prompts_are_cut(prompt, comma, expected):
    parts = chunks(prompt, letters, length=5, comma=comma, backtrack=3)
    assert spelled(parts) == expected
    assert counts(parts) == tuple(map(len, expected))


@given(st.text(alphabet="abc,()", max_size=40), st.integers(1, 7), st.booleans())
@settings(max_examples=200)
def test_no_token_and_no_weight_is_lost_between_chunks(prompt, length, commas):
    parts = chunks(prompt, letters, length, ord(",") if commas else None, backtrack=2)
    found = [pair for part in parts for pair in zip(part.ids, part.weights, strict=True)]
    assert found == [(i, weight) for text, weight in parse(prompt) for i in letters(text)]
    assert all(len(part.ids) <= length for part in parts)


def test_too_many_chunks_are_refused():
    assert len(chunks("a" * (5 * MOST_CHUNKS), letters, 5)) == MOST_CHUNKS
    with pytest.raises(UsageError, match="more than 32 chunks of 5 tokens"):
        chunks("a" * (5 * MOST_CHUNKS + 1), letters, 5)
    with pytest.raises(UsageError, match="more than 32"):
        chunks("a BREAK " * (MOST_CHUNKS + 1), letters, 5)
    with pytest.raises(UsageError, match="chunks of 0"):
        chunks("a", letters, 0)


def test_chunks_are_framed_and_filled():
    parts = (Chunk((1, 2), (1.0, 1.5)), Chunk())
    ids, weights = framed(parts, 5, start=8, end=9, pad=0)
    assert ids.tolist() == [[8, 1, 2, 9, 0], [8, 9, 0, 0, 0]]
    assert weights.tolist() == [[1.0, 1.0, 1.5, 1.0, 1.0], [1.0] * 5]
    ids, weights = framed(parts, 3, start=None, end=None, pad=7)
    assert ids.tolist() == [[1, 2, 7], [7, 7, 7]] and weights[0].tolist() == [1.0, 1.5, 1.0]
    with pytest.raises(ShapeError, match="4 tokens with its ends, where 3 fit"):
        framed(parts, 3, start=8, end=9, pad=0)


def test_weights_scale_embeddings_and_each_chunk_keeps_its_mean():
    values = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)) + 1
    weights = torch.ones(3, 5)
    weights[1, 2] = 1.3
    weights[2] = torch.tensor([1.0, 0.2, 3.0, 1.0, 1.0])
    out = weighted(values, weights)
    assert torch.equal(out[0], values[0])
    for i in (1, 2):
        # A1111's arithmetic, one sample at a time.
        expected = values[i] * weights[i][:, None]
        expected = expected * (values[i].mean() / expected.mean())
        assert torch.allclose(out[i], expected, atol=1e-6)
        assert abs(out[i].mean() - values[i].mean()) < 1e-6
    assert not torch.allclose(out[1], values[1])
    # Neighbours change nothing, bit for bit.
    assert torch.equal(weighted(values[2:], weights[2:])[0], out[2])


def test_weights_of_one_change_no_bit_and_no_weight_at_all_stays_finite():
    values = torch.randn(2, 5, 4)
    assert weighted(values, torch.ones(2, 5)) is values
    assert torch.equal(weighted(values, torch.zeros(2, 5)), torch.zeros_like(values))
