"""Folders that transformers writes are opened as they are, and answer alike."""

from pathlib import Path

import pytest
import torch
from encoders.tiny_clip import TEXT, VISION, randomised, write_vocabulary
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from fromnoise.core.errors import FromNoiseError
from fromnoise.encoders import Conditioning
from fromnoise.encoders.clip import texts
from fromnoise.interop.clip_folder import open_clip, open_image, open_text


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text encoders of a pipeline of the kind of Stable Diffusion XL, and a whole CLIP."""
    root = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    for name, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        randomised(kind(CLIPTextConfig(**TEXT))).save_pretrained(root / f"text_encoder{name}")
        write_vocabulary(root / f"tokenizer{name}", pad="!" if name else "<|endoftext|>")
    config = CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
    randomised(CLIPModel(config)).save_pretrained(root / "clip")
    theirs = CLIPTokenizer.from_pretrained(write_vocabulary(root / "files"))
    theirs.save_pretrained(root / "clip")
    return root


@torch.no_grad()
def test_two_encoders_as_stable_diffusion_xl_has_them(pipeline):
    """Penultimate states of both without the norm, side by side; the vector of the second."""
    first = open_text(pipeline / "text_encoder", skip=1, normed=False)
    second = open_text(pipeline / "text_encoder_2", skip=1, normed=False, pooled=True)
    found = [e.encode("prompt", "a cat", 1) for e in (first, second)]
    for i, (name, kind) in enumerate((("", CLIPTextModel), ("_2", CLIPTextModelWithProjection))):
        signs = CLIPTokenizer.from_pretrained(pipeline / f"tokenizer{name}", model_max_length=77)
        ids = signs("a cat", padding="max_length", return_tensors="pt")["input_ids"]
        assert ids[0, -1] == (0 if name else 513)
        theirs = kind.from_pretrained(pipeline / f"text_encoder{name}")(
            ids, output_hidden_states=True
        )
        tokens = found[i].tokens
        assert tokens is not None
        assert torch.allclose(tokens.values, theirs.hidden_states[-2], atol=1e-5)
    assert torch.allclose(found[1].vector["prompt"], theirs.text_embeds, atol=1e-5)
    assert not found[0].vector
    assert not any(parameter.requires_grad for parameter in second.parameters())


@torch.no_grad()
def test_a_whole_clip_compares_texts_with_pictures(pipeline):
    clip, signs = open_clip(pipeline / "clip")
    theirs = CLIPModel.from_pretrained(pipeline / "clip")
    encoder = open_text(pipeline / "clip", pooled=True)
    assert encoder.tokenizer("a cat") == signs("a cat")
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = texts(["a cat", "a red dog"], encoder)
    wanted = theirs(input_ids=ids, pixel_values=pictures).logits_per_image
    assert torch.allclose(clip(ids, pictures), wanted, atol=1e-4)
    image = open_image(pipeline / "clip")
    assert torch.allclose(
        image.embedding(pictures), theirs.get_image_features(pictures).pooler_output, atol=1e-5
    )


def test_widths_are_fitted_afresh(pipeline):
    both = Conditioning(
        {
            "prompt": open_text(pipeline / "text_encoder", width=6),
            "look": open_image(pipeline / "clip", gives="token", width=6),
        }
    )
    told = both({"prompt": "a cat"}, 2)
    assert told.tokens is not None and told.tokens.values.shape == (2, 78, 6)
    learns = {name for name, p in both.named_parameters() if p.requires_grad}
    assert all(".fit." in name for name in learns) and len(learns) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "config.json").write_text('{"model_type": "t5"}'), "'t5' is no CLIP"),
        (lambda f: (f / "config.json").write_text("[]"), "is no CLIP"),
        (
            lambda f: (f / "config.json").write_text(
                '{"model_type": "clip_text_model", "hidden_size": -1}'
            ),
            "config.json: width",
        ),
        (
            lambda f: (f / "config.json").write_text(
                '{"model_type": "clip_text_model", "hidden_size": 16, "num_hidden_layers": 3, '
                '"vocab_size": 600, "num_attention_heads": 5}'
            ),
            "5 attention heads do not divide width 16",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b"short"), "model.safetensors"),
        (
            lambda f: (f / "model.safetensors").rename(f / "model.bin"),
            "is a pickle; it can run code",
        ),
        (lambda f: (f / "vocab.json").unlink(), "holds no tokenizer.json"),
    ],
)
def test_what_cannot_be_opened_says_so_in_one_line(change, message, tmp_path):
    CLIPTextModel(CLIPTextConfig(**TEXT)).save_pretrained(tmp_path / "own")
    write_vocabulary(tmp_path / "own")
    open_text(tmp_path / "own")
    change(tmp_path / "own")
    with pytest.raises(FromNoiseError) as caught:
        open_text(tmp_path / "own")
    assert message in str(caught.value) and "\n" not in str(caught.value)
