"""The ids of prompts are those of transformers' CLIPTokenizer; the vocabulary travels whole."""

import json
from pathlib import Path

import pytest
from encoders.tiny_clip import END, START, write_vocabulary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from fromnoise.core.errors import FileError, FromNoiseError
from fromnoise.encoders.tokenizers import (
    Tokenizer,
    Vocabulary,
    from_bytes,
    read_vocabulary,
    to_bytes,
)
from fromnoise.encoders.wordpieces import WordPieces

MERGES = (
    "t h", "th e</w>", "a n", "an d</w>", "i n", "in g</w>", "c a", "ca t</w>", "ca t", "e r",
    "er s</w>", "' s</w>", "! !", "1 2", "Ã ©", "p h", "ph o", "pho t", "phot o</w>", "s t", "r e",
    ". .", ".. .</w>",
)  # fmt: skip

WORDS = [
    "", " ", "a", "A", "a cat", "a  cat\n\tsits", "The CAT and the dog", "photos of cats",
    "the", "it's", "IT'S", "we're they'll I'd I'm can't you've", "'s 't 'S", "rock'n'roll",
    "o'clock", "3", "1990", "12,345.67", "4k 8K", "1st 2nd", "½ ² ①", "٣٤", "Ⅳ", "naïve café",
    "cafe\u0301", "Ångström \u212b", "ÀÉÎÕÜ", "straße STRASSE", "İstanbul ıstanbul", "Москва",
    "北京的猫", "東京タワー", "서울", "مرحبا", "שלום", "नमस्ते", "ไทย", "🙂",
    "👩‍👩‍👧‍👦 family", "🏳️‍🌈", "a🍎b", "👍🏽", "©®™", "…", "...", "....", "!!!!", "?!?!",
    "--", "a-b_c", "(a:1.3)", "[b]", "{c}", "<d>", "a,b;c:d", "@me #tag",
    "https://example.org/a?b=c&d=%20", "$100 €50 £3", "100%", "x^2+y^2=z^2",
    "\u00a0nbsp\u00a0", "\u200bzero", "\ufeffbom", "a\x00b", "a\x7fb", "\u2028line",
    "tab\there", "new\nline", "\r\n", "“quoted” ‘words’", "it’s", "«a»", "a/b\\c", "~`",
    "ａｂｃ", "ﬁre", "ǅ ǆ Ǆ", "Σίσυφος ΣΑΣ", "n\u0303", "\u0301", "\U0001d400", "\U00020000",
    "\uffff", "a" * 300, "ab " * 200, "supercalifragilisticexpialidocious",
    "an astronaut riding a horse, highly detailed, trending on artstation, 8k, (masterpiece:1.2)",
    START, END, f"a {END} b", f"a{END}b", f"{START}the{END}", "<|ENDOFTEXT|>", "<|endoftext|",
    "|endoftext|>",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("clip"), MERGES)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def expected(theirs: CLIPTokenizer, text: str) -> list[int]:
    ids: list[int] = theirs(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def test_ids_are_those_of_transformers(folder: Path, theirs: CLIPTokenizer) -> None:
    ours = Tokenizer(read_vocabulary(folder))
    pairs = [f"{a} {b}" for a, b in zip(WORDS, reversed(WORDS), strict=True)]
    table = [*WORDS, *pairs, *(text.upper() for text in WORDS)]
    assert len(table) >= 200
    wrong = [text for text in table if ours(text) != expected(theirs, text)]
    assert not wrong
    # The merges are at work: without them the same words have more tokens.
    assert len(ours("the photo")) == 2


@given(text=st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_of_any_text_are_those_of_transformers(
    folder: Path, theirs: CLIPTokenizer, text: str
) -> None:
    assert Tokenizer(read_vocabulary(folder))(text) == expected(theirs, text)


def test_a_framed_text_is_that_of_transformers(folder: Path, theirs: CLIPTokenizer) -> None:
    ours = Tokenizer(read_vocabulary(folder))
    assert [ours.start, *ours("a cat"), ours.end] == theirs("a cat")["input_ids"]
    assert ours.pad == theirs.pad_token_id
    assert ours.comma == expected(theirs, ",")[0]


def test_the_small_vocabulary_of_the_tests_of_diffusers(tmp_path: Path) -> None:
    signs = (
        "l o w e r s t i d n lo l</w> w</w> r</w> t</w> low</w> er</w> lowest</w> newer</w> wider "
        f"<unk> {START} {END}"
    ).split()
    (tmp_path / "vocab.json").write_text(json.dumps({sign: i for i, sign in enumerate(signs)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nl o\nlo w</w>\ne r</w>\n")
    (tmp_path / "special_tokens_map.json").write_text('{"unk_token": "<unk>"}')
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer(read_vocabulary(tmp_path))
    assert ours("lower newer") == [10, 2, 16, 9, 3, 2, 16]
    for text in ("lower newer", "a cat", "lowest!", "xyz"):
        assert ours(text) == expected(theirs, text), text


def test_tokenizer_json_is_read_as_the_two_files_are(
    folder: Path, theirs: CLIPTokenizer, tmp_path: Path
) -> None:
    theirs.add_tokens(["<cat-toy>"], special_tokens=True)
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    ours = Tokenizer(read_vocabulary(tmp_path))
    before = Tokenizer(read_vocabulary(folder))
    for text in WORDS:
        assert ours(text) == before(text), text
    # A sign of its own, as textual inversion adds.
    assert ours("a <cat-toy>!") == expected(theirs, "a <cat-toy>!")
    assert ours.vocabulary.size == before.vocabulary.size + 1


def test_a_vocabulary_comes_back_from_its_bytes(folder: Path) -> None:
    vocabulary = read_vocabulary(folder)
    assert from_bytes(Vocabulary, to_bytes(vocabulary)) == vocabulary
    with pytest.raises(FileError, match="the saved vocabulary"):
        from_bytes(Vocabulary, b"{")
    with pytest.raises(FromNoiseError, match="the saved vocabulary"):
        from_bytes(Vocabulary, b'{"signs": {"a": "b"}, "merges": []}')


def test_a_vocabulary_of_another_kind_is_refused(folder: Path) -> None:
    with pytest.raises(FromNoiseError, match="the saved vocabulary: unknown key|is missing"):
        from_bytes(WordPieces, to_bytes(read_vocabulary(folder)))


def test_another_pad_is_read(tmp_path: Path) -> None:
    ours = Tokenizer(read_vocabulary(write_vocabulary(tmp_path, pad="!")))
    assert ours.pad == 0 and ours.end == 513


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "merges.txt").unlink(), "holds no tokenizer.json, nor vocab.json"),
        (lambda f: (f / "vocab.json").write_text("[]"), "holds no JSON object"),
        (lambda f: (f / "vocab.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "vocab.json").write_text('{"a": 0}'), "no sign '<|startoftext|>'"),
        (lambda f: (f / "vocab.json").write_text('{"a": "x"}'), "vocab.json: signs.a"),
        (lambda f: (f / "merges.txt").write_text("q zz\n"), "do not fit its signs"),
        (lambda f: (f / "merges.txt").write_text("a\n"), "the merge 'a' of"),
        (lambda f: (f / "merges.txt").write_bytes(b"\xff\xfe"), "cannot be read"),
        (
            lambda f: (f / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}'),
            "no tokeni",
        ),
        (
            lambda f: (f / "tokenizer.json").write_text(
                '{"model": {"end_of_word_suffix": "</w>", "merges": 3}}'
            ),
            "no list of merges",
        ),
        (
            lambda f: (f / "added_tokens.json").write_text('{"<x>": 9000}'),
            "'<x>' has id 9000; the next free one is 514",
        ),
    ],
)
def test_damaged_files_are_refused_in_one_line(change, message, tmp_path):
    folder = write_vocabulary(tmp_path)
    change(folder)
    with pytest.raises(FromNoiseError) as caught:
        Tokenizer(read_vocabulary(folder))("a cat")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("ids", [{"a": -1, "b": 0}, {"a": 0, "b": 0}])
def test_ids_that_clash_are_refused(ids):
    with pytest.raises(FileError, match="an id below 0, or two signs one id"):
        Tokenizer(Vocabulary(signs=ids, merges=[], start="a", end="b", pad="a", unknown="b"))
