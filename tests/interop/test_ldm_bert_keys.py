"""The BERT of latent diffusion: diffusers' network and transformers' tokenizer on the same text."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import (
    LDMBertConfig,
    LDMBertModel,
)
from interop.foreign import filled
from transformers import BertTokenizer

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.encoders import ENCODERS, LDMBert
from fromnoise.encoders.wordpieces import WordPieces, WordPieceTokenizer, read_word_pieces
from fromnoise.interop.ldm_bert_keys import (
    PREFIX,
    config,
    config_of,
    open_bert,
    settings,
    to_ours,
    to_theirs,
)

PIECES = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "painting", "of", "the", "cat", "##s", "squirrel"),
    *("eat", "##ing", "burger", ",", ".", "!", "貓", "##e", "caf", "x", "##x"),
]
TINY: dict[str, Any] = {
    "vocab_size": 30,
    "max_position_embeddings": 12,
    "encoder_layers": 2,
    "encoder_ffn_dim": 24,
    "encoder_attention_heads": 3,
    "head_dim": 4,
    "d_model": 16,
}
PROMPTS = [
    "A painting of a Squirrel eating a burger",
    "cats, CATS!  the\tcafé 貓 [SEP] dog",
    "",
    "x" * 100 + " " + "x" * 101,
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline's `bert` and `tokenizer`, as diffusers and transformers save them."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    model = filled(LDMBertModel(LDMBertConfig(**TINY)))
    model.save_pretrained(tmp_path / "bert")
    return tmp_path


def reference(folder: Path) -> LDMBertModel:
    model = LDMBertModel(LDMBertConfig(**TINY)).eval()
    tensors, _ = load_tensors(folder / "bert" / "model.safetensors")
    model.load_state_dict(tensors)
    return model


def test_prompts_are_encoded_as_there(folder: Path) -> None:
    tokenizer = BertTokenizer.from_pretrained(folder / "tokenizer")
    encoder, model = open_bert(folder / "bert"), reference(folder)
    prompts = [PROMPTS[0], "Cats!", ""]
    read = tokenizer(prompts, padding="max_length", max_length=12, return_tensors="pt")
    assert read.input_ids.shape == (3, 12)
    for change in (lambda module: module, lambda module: module.double()):
        with torch.no_grad():
            expected = change(model)(read.input_ids).last_hidden_state
            told = change(encoder).encode("prompt", prompts, 3)
        assert told.tokens is not None and told.tokens.mask is None
        bound = 1e-10 if expected.dtype == torch.float64 else 1e-5
        torch.testing.assert_close(told.tokens.values, expected, atol=bound, rtol=bound)
    null = encoder.null("prompt", 2).tokens
    assert null is not None
    torch.testing.assert_close(null.values[1], expected[2], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_text_is_cut_as_there(folder: Path, prompt: str) -> None:
    theirs = BertTokenizer.from_pretrained(folder / "tokenizer")
    expected = theirs(prompt, add_special_tokens=False)["input_ids"]
    ours = read_word_pieces(folder / "tokenizer")
    assert WordPieceTokenizer(ours)(prompt) == expected
    theirs.save_pretrained(folder / "again")
    (folder / "again" / "vocab.txt").unlink(missing_ok=True)
    assert read_word_pieces(folder / "again") == ours


def test_capitals_are_kept_where_the_vocabulary_has_them(folder: Path) -> None:
    path = folder / "tokenizer"
    (path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cut = WordPieceTokenizer(read_word_pieces(path))
    assert cut("cat") == [PIECES.index("cat")] and cut("CAT") == [PIECES.index("[UNK]")]


def test_weights_and_configuration_come_back(folder: Path) -> None:
    encoder, model = open_bert(folder / "bert"), reference(folder)
    state = model.state_dict()
    back = to_theirs(encoder.state_dict(), encoder)
    assert state.keys() - back.keys() == {"to_logits.weight", "to_logits.bias"}
    assert all(torch.equal(back[name], state[name]) for name in back)
    written = json.loads(json.dumps(settings(encoder.config)))
    again = LDMBertConfig(**{key: written[key] for key in TINY})
    assert all(getattr(again, key) == value for key, value in TINY.items())
    assert ENCODERS.build(config(written, "here")).config == encoder.config


BLOCK = ["0.0", "0.1.to_q", "0.1.to_k", "0.1.to_v", "0.1.to_out", "1.0", "1.1.net.0.0", "1.1.net.2"]


def test_a_single_file_has_the_published_names() -> None:
    encoder = LDMBert(vocabulary=30, length=12, width=16, depth=2, heads=2, hidden=24)
    state = {name: value for name, value in encoder.state_dict().items() if name != "vocabulary"}
    file = to_theirs(state, encoder, "compvis")
    expected = {"token_emb", "pos_emb.emb", "norm"}
    for part in BLOCK:
        number, _, rest = part.partition(".")
        expected |= {f"attn_layers.layers.{2 * i + int(number)}.{rest}" for i in range(2)}
    names = {name.removeprefix(PREFIX).rpartition(".")[0] for name in file}
    assert names == expected
    assert f"{PREFIX}attn_layers.layers.0.1.to_q.bias" not in file
    found = config_of(file, "a file")
    assert ENCODERS.build(found).config == encoder.config
    logits = {f"{PREFIX}to_logits.weight": torch.zeros(1), f"{PREFIX}to_logits.bias": torch.ones(1)}
    back = to_ours(file | logits, encoder, "compvis")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_a_saved_encoder_reads_with_its_own_vocabulary(folder: Path) -> None:
    encoder = open_bert(folder / "bert")
    fresh = ENCODERS.build(encoder.config)
    with pytest.raises(UsageError, match="this ldm_bert encoder has no vocabulary"):
        fresh.count("a cat")
    fresh.load_state_dict(encoder.state_dict())
    assert fresh.count("a cat, a cat") == (5,)
    assert not any(parameter.requires_grad for parameter in fresh.parameters())
    values = [one.encode("prompt", "a (cat:1.5)", 1).tokens.values for one in (encoder, fresh)]
    assert torch.equal(*values)
    plain = encoder.encode("prompt", "a cat", 1).tokens
    assert not torch.equal(plain.values, values[0])
    long = fresh.encode("prompt", "cat " * 15, 1).tokens
    assert long.values.shape == (1, 24, 16)


def test_what_is_no_such_encoder_is_refused(folder: Path) -> None:
    bert, path = folder / "bert", folder / "bert" / "config.json"
    raw = json.loads(path.read_text())
    for changed, message in (
        ({"model_type": "bert"}, "model_type 'bert' is no ldmbert"),
        ({"activation_function": "relu"}, "activation_function"),
        ({"scale_embedding": True}, "scale_embedding"),
        ({"encoder_layers": 0}, "encoder_layers"),
        ({"encoder_layers": 3}, "lacks model.layers.2"),
        ({"encoder_layers": 1}, "no place for model.layers.1"),
    ):
        path.write_text(json.dumps(raw | changed))
        with pytest.raises(FileError, match=message):
            open_bert(bert)
    path.write_text(json.dumps(raw))
    tensors, _ = load_tensors(bert / "model.safetensors")
    with pytest.raises(FileError, match="mine holds no BERT of latent diffusion: it lacks"):
        config_of(tensors, "mine")
    with pytest.raises(FileError, match="holds no tokenizer.json, nor vocab.txt"):
        open_bert(bert, folder)
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    with pytest.raises(FileError, match="is no tokenizer of BERT"):
        open_bert(bert, folder)
    save_tensors(bert / "model.safetensors", {"one": torch.zeros(1)})
    with pytest.raises(FileError, match="has no place for one"):
        open_bert(bert)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (WordPieces(pieces={"[CLS]": 0}), r"no piece '\[SEP\]'"),
        (WordPieces(pieces={"a": 0, "b": 0}), "two pieces one id"),
        (WordPieces(pieces={"a": -1}), "below 0"),
    ],
)
def test_vocabularies_that_do_not_hold_together(vocabulary: WordPieces, message: str) -> None:
    with pytest.raises(FileError, match=message):
        WordPieceTokenizer(vocabulary)


def test_a_vocabulary_must_fit() -> None:
    pieces = WordPieces(pieces={piece: i for i, piece in enumerate(PIECES)})
    with pytest.raises(UsageError, match="for a tower that embeds 5"):
        LDMBert(vocabulary=5, width=8, depth=1, heads=1, hidden=8).set_vocabulary(pieces)
    with pytest.raises(UsageError, match="no room for words"):
        LDMBert(length=2, width=8, depth=1, heads=1, hidden=8)
