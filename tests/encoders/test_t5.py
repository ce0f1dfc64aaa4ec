"""T5 from a folder: transformers' own states, nothing of it saved, and clear lines without it."""

import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from fromnoise.core.errors import FileError, FromNoiseError, UsageError
from fromnoise.encoders import ENCODERS, T5, Conditioning, Label

WORDS = ["<pad>", "</s>", "<unk>", "a", "cat", "dog", "red", "on", "the", "mat", ","]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("t5")
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    T5EncoderModel(config).save_pretrained(path)
    return path


def t5(folder: Path, **options) -> T5:
    return T5(str(folder), states=16, length=8, **options)


def values(encoder: T5, prompt) -> torch.Tensor:
    batch = 1 if isinstance(prompt, str) else len(prompt)
    tokens = encoder.encode("prompt", prompt, batch).tokens
    assert tokens is not None
    return tokens.values


def test_its_states_are_those_of_transformers(folder):
    network = T5EncoderModel.from_pretrained(folder).eval()
    told = t5(folder).encode("prompt", ["a cat on the mat", "red"], 2).tokens
    assert told is not None and told.mask is not None
    rows = torch.tensor([[3, 4, 7, 8, 9, 1, 0, 0], [6, 1, 0, 0, 0, 0, 0, 0]])
    mask = rows != 0
    with torch.no_grad():
        wanted = network(input_ids=rows, attention_mask=mask.long()).last_hidden_state
    assert torch.equal(told.mask, mask) and wanted.std() > 0.1
    assert torch.allclose(told.values, wanted, atol=1e-6)


def test_prompts_have_the_syntax_and_any_length(folder):
    encoder = t5(folder)
    assert encoder.count("a cat") == (2,) and encoder.count("") == (0,)
    assert encoder.count("a cat on the mat, " * 2) == (7, 5)
    long = encoder.encode("prompt", ["a cat on the mat, " * 2, "a"], 2).tokens
    assert long is not None and long.mask is not None
    assert long.mask.sum(1).tolist() == [8 + 6, 2]
    heavy, plain = values(encoder, "a (cat:1.5)"), values(encoder, "a cat")
    assert not torch.allclose(heavy, plain) and abs(heavy.mean() - plain.mean()) < 1e-6
    assert torch.equal(values(encoder, "(a cat:1)"), plain)


def test_only_its_fit_is_saved_and_learns(folder):
    encoder = t5(folder, width=6)
    encoder.encode("prompt", "a cat", 1)
    assert set(encoder.state_dict()) == {"fit.weight", "fit.bias"}
    values(encoder, "a cat").sum().backward()
    assert encoder.fit.weight.grad is not None
    assert values(encoder, "a").shape == (1, 8, 6)
    again = ENCODERS.build(encoder.config)
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(values(again, "a cat"), values(encoder, "a cat"))
    null = again.null("prompt", 2).tokens
    assert null is not None and torch.equal(null.values, values(again, ["", ""]))


def test_it_stands_beside_other_encoders(folder):
    both = Conditioning({"prompt": t5(folder), "label": Label(3)})
    told = both({"prompt": "a cat", "label": 2}, 2)
    assert told.tokens is not None and told.tokens.values.shape == (2, 8, 16)
    assert told.null is not None and told.null.tokens is not None
    assert told.null.tokens.mask is not None and told.null.tokens.mask.sum().item() == 2


def test_without_transformers_one_line_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'fromnoise\[text\]'"):
        t5(folder).encode("prompt", "a cat", 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: T5(str(f), states=512), "width 16, not 512; give states=16"),
        (lambda f: T5(str(f / "nothing"), states=16), "no T5 encoder could be opened from"),
        (lambda f: T5("", states=16), "no T5 encoder could be opened from"),
        (lambda f: T5(str(f), length=1), "1 tokens of width 512"),
        (lambda f: T5(str(f), dtype="int8"), "dtype 'int8' is unknown; use float32, bfloat16"),
        (lambda f: T5(str(f), states=16), "is not a finite number"),
    ],
)
def test_bad_input_gives_one_clear_line(build, message, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FromNoiseError) as caught:
        build(folder).encode("prompt", "(a:x)", 1)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_pickled_weights_are_not_opened(folder, tmp_path):
    for path in folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    state = T5EncoderModel.from_pretrained(folder).state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileError, match="no T5 encoder could be opened"):
        T5(str(tmp_path), states=16).encode("prompt", "a", 1)
