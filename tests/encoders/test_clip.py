"""CLIP's towers: published counts, transformers' numbers, prompts as an encoder tells them."""

from pathlib import Path
from typing import Any

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
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from fromnoise.core.errors import FileError, FromNoiseError, ShapeError, UsageError
from fromnoise.encoders import ENCODERS, Conditioning, Label
from fromnoise.encoders.clip import CLIPText, texts
from fromnoise.encoders.clip_towers import (
    CLIP,
    TEXTS,
    VISIONS,
    TextSettings,
    TextTower,
    VisionTower,
)
from fromnoise.encoders.prompts import weighted
from fromnoise.encoders.tokenizers import Tokenizer, Vocabulary, read_vocabulary
from fromnoise.interop import clip_keys

CLOSE = 1e-5


def counted(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def bare(name: str, **changes: Any) -> TextSettings:
    return TEXTS[name].model_copy(update={"projection": None, **changes})


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: TextTower(bare("vit-l/14")), 123_060_480),
        (lambda: TextTower(TEXTS["vit-l/14"]), 123_650_304),
        (lambda: TextTower(bare("vit-h/14", depth=23)), 340_387_840),
        (lambda: TextTower(bare("vit-h/14")), 352_984_064),
        (lambda: TextTower(TEXTS["vit-bigg/14"]), 694_659_840),
        (
            lambda: VisionTower(VISIONS["vit-l/14"].model_copy(update={"projection": None})),
            303_179_776,
        ),
        (lambda: VisionTower(VISIONS["vit-l/14"]), 303_966_208),
        (lambda: CLIP(TEXTS["vit-l/14"], VISIONS["vit-l/14"]), 427_616_513),
        (lambda: CLIP(TEXTS["vit-b/32"], VISIONS["vit-b/32"]), 151_277_313),
        (lambda: CLIP(TEXTS["vit-b/16"], VISIONS["vit-b/16"]), 149_620_737),
        (lambda: CLIPText(), 123_060_480),
        (lambda: CLIPText(pooled=True), 123_650_304),
    ],
)
def test_the_published_counts(build, count):
    with torch.device("meta"):
        assert counted(build()) == count


@pytest.mark.parametrize(("name", "millions"), [("vit-h/14", 986.11), ("vit-bigg/14", 2539.57)])
def test_the_counts_that_openclip_publishes_in_millions(name, millions):
    with torch.device("meta"):
        assert round(counted(CLIP(TEXTS[name], VISIONS[name])) / 1e6, 2) == millions


def text_model(kind: Any = CLIPTextModelWithProjection, **changes: Any) -> Any:
    torch.manual_seed(0)
    return randomised(kind(CLIPTextConfig(**{**TEXT, **changes})))


def encoder_of(model: Any, folder: Path | None = None, **options: Any) -> CLIPText:
    projected = "text_projection.weight" in model.state_dict()
    settings = clip_keys.text_settings(model.config.to_dict(), projected)
    made = CLIPText(settings, **options)
    made.tower.load_state_dict(clip_keys.to_ours(model.state_dict(), made.tower))
    if folder is not None:
        made.set_vocabulary(read_vocabulary(folder))
    return made


def ids(batch: int = 4, seed: int = 0) -> torch.Tensor:
    """Rows as a tokenizer frames them, the texts of different lengths."""
    made = torch.full((batch, 77), 513)
    made[:, 0] = 512
    generator = torch.Generator().manual_seed(seed)
    for i, row in enumerate(made):
        row[1 : 4 + 20 * i] = torch.randint(0, 512, (3 + 20 * i,), generator=generator)
    return made


def far(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize("normed", [True, False])
def test_a_text_tower_follows_transformers(activation, skip, normed):
    model = text_model(hidden_act=activation)
    theirs = model(ids(), output_hidden_states=True)
    wanted = theirs.hidden_states[-1 - skip]
    if normed:
        wanted = model.text_model.final_layer_norm(wanted)
    if normed and skip == 0:
        assert torch.equal(wanted, theirs.last_hidden_state)
    ours = encoder_of(model, skip=skip, normed=normed, pooled=True)
    states, vector = ours.states(ids())
    assert wanted.std() > 0.1 and theirs.text_embeds.std() > 0.1
    assert far(states, wanted) < CLOSE and far(vector, theirs.text_embeds) < CLOSE


@torch.no_grad()
def test_the_wrong_activation_would_be_seen():
    model = text_model(hidden_act="gelu")
    settings = clip_keys.text_settings(model.config.to_dict(), True)
    other = CLIPText(settings.model_copy(update={"activation": "quick_gelu"}), pooled=True)
    other.tower.load_state_dict(clip_keys.to_ours(model.state_dict(), other.tower))
    assert far(other.states(ids())[1], model(ids()).text_embeds) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("end", "pad"), [(513, 513), (513, 0), (2, 1)])
def test_the_vector_is_read_where_the_text_ends(end, pad):
    model = text_model(CLIPTextModel, eos_token_id=end)
    rows = ids()
    rows[rows == 513] = pad
    for i, row in enumerate(rows):
        row[4 + 20 * i] = 513
    # A sign above the end, as textual inversion adds, moves the largest id but not the end.
    rows[1, 2] = 590
    ours = encoder_of(model, pooled=True)
    assert far(ours.states(rows)[1], model(rows).pooler_output) < CLOSE


@torch.no_grad()
def test_a_picture_tower_and_both_follow_transformers():
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = randomised(CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)))
    ours = VisionTower(clip_keys.vision_settings(model.config.to_dict(), True))
    ours.load_state_dict(clip_keys.to_ours(model.state_dict(), ours))
    theirs = model(pictures, output_hidden_states=True)
    seen = ours(pictures)
    assert far(seen.embedding, theirs.image_embeds) < CLOSE
    for a, b in zip(seen.states, theirs.hidden_states, strict=True):
        assert far(a, b) < CLOSE
    both = randomised(
        CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12))
    )
    raw = both.config.to_dict()
    mine = CLIP(clip_keys.text_settings(raw, True), clip_keys.vision_settings(raw, True))
    mine.load_state_dict(clip_keys.to_ours(both.state_dict(), mine))
    logits = both(input_ids=ids(), pixel_values=pictures).logits_per_image
    assert logits.std() > 0.2
    assert far(mine(ids(), pictures), logits) < CLOSE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("clip"))


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["", "a cat", "A photo of a cat, it's 3 metres!"])
def test_a_prompt_is_told_as_transformers_would(folder, prompt):
    model = text_model()
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    framed = tokenizer(prompt, padding="max_length", return_tensors="pt")["input_ids"]
    theirs = model(framed)
    told = encoder_of(model, folder, pooled=True).encode("prompt", prompt, 2)
    assert told.tokens is not None and told.tokens.mask is None
    assert told.tokens.values.shape == (2, 77, 16)
    for row in range(2):
        assert far(told.tokens.values[row], theirs.last_hidden_state[0]) < CLOSE
        assert far(told.vector["prompt"][row], theirs.text_embeds[0]) < CLOSE


@torch.no_grad()
def test_weights_and_long_prompts(folder):
    model = text_model(CLIPTextModel)
    encoder = encoder_of(model, folder)
    tokens = Tokenizer(read_vocabulary(folder))
    words = "a b, " * 40
    long = encoder.encode("prompt", f"(red:1.5) {words}", 1).tokens
    assert long is not None and long.mask is None
    all_ids = [*tokens("red"), *tokens(words)]
    assert encoder.count(f"(red:1.5) {words}") == (75, len(all_ids) - 75)
    assert encoder.count("") == (0,)
    assert long.values.shape[1] == 2 * 77
    rows, weights = torch.full((2, 77), 513), torch.ones(2, 77)
    rows[:, 0] = 512
    rows[0, 1:76] = torch.tensor(all_ids[:75])
    rows[1, 1 : len(all_ids) - 74] = torch.tensor(all_ids[75:])
    weights[0, 1 : 1 + len(tokens("red"))] = 1.5
    states = weighted(model(rows).last_hidden_state, weights)
    assert far(long.values[0], states.flatten(0, 1)) < CLOSE
    plain = encoder.encode("prompt", f"red {words}", 1).tokens
    assert plain is not None and far(plain.values, long.values) > 1e-3


@torch.no_grad()
def test_a_sample_does_not_see_the_length_of_its_neighbours(folder):
    encoder = encoder_of(text_model(CLIPTextModel), folder)
    prompts = ["a cat", "a cat BREAK a dog", "a cat"]
    told = encoder.encode("prompt", prompts, 3).tokens
    assert told is not None and told.mask is not None
    assert told.mask.sum(1).tolist() == [77, 154, 77]
    alone = encoder.encode("prompt", "a cat", 1).tokens
    assert alone is not None
    assert torch.allclose(told.values[0, :77], alone.values[0], atol=1e-6)
    assert torch.equal(told.values[0], told.values[2])
    assert (told.values[0, 77:] == 0).all()


def test_a_prompt_may_change_over_a_run(folder):
    encoder = tiny(read_vocabulary(folder))
    assert encoder.schedule("a [b:c:0.5]", 4) == [(2, "a b"), (4, "a c")]


def test_the_comma_rule(folder):
    sizes = {"backtrack": 20}
    encoder = encoder_of(text_model(CLIPTextModel), folder, **sizes)
    prompt = "c " * 70 + ", red roses"
    assert encoder.count(prompt)[0] == 71
    assert encoder_of(text_model(CLIPTextModel), folder).count(prompt)[0] == 75


def test_its_null_is_the_empty_prompt_and_it_is_rebuilt_with_its_vocabulary(folder):
    encoder = encoder_of(text_model(), folder, pooled=True, width=8)
    again = ENCODERS.build(encoder.config)
    with pytest.raises(UsageError, match="no vocabulary"):
        again.encode("prompt", "a cat", 1)
    again.load_state_dict(encoder.state_dict())
    assert again.config == encoder.config and again.vector_width == 12
    for a, b in (
        (encoder.null("prompt", 2), again.encode("prompt", "", 2)),
        (encoder.encode("prompt", "(a cat:2)", 2), again.encode("prompt", "(a cat:2)", 2)),
    ):
        assert a.tokens is not None and b.tokens is not None
        assert a.tokens.values.shape == (2, 77, 8)
        assert torch.equal(a.tokens.values, b.tokens.values)
        assert torch.equal(a.vector["prompt"], b.vector["prompt"])


def test_the_tower_is_frozen_and_the_fit_is_not(folder):
    settings = TextSettings(vocabulary=600, width=16, depth=2, heads=2, hidden=16)
    encoder = CLIPText(settings, width=8)
    encoder.set_vocabulary(read_vocabulary(folder))
    learns = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert learns == {"fit.weight", "fit.bias"}
    tokens = encoder.encode("prompt", "a cat", 1).tokens
    assert tokens is not None
    tokens.values.sum().backward()
    assert encoder.fit.weight.grad is not None
    assert all(p.requires_grad for p in CLIPText(settings, frozen=False).parameters())


def test_encoders_of_different_widths_are_refused_until_they_are_fitted(folder):
    small = TextSettings(vocabulary=600, width=16, depth=1, heads=2, hidden=16)
    large = small.model_copy(update={"width": 24})
    vocabulary = read_vocabulary(folder)

    def both(width: int | None) -> Conditioning:
        return Conditioning(
            {
                "prompt": CLIPText(small).set_vocabulary(vocabulary),
                "other": CLIPText(large, width=width).set_vocabulary(vocabulary),
                "label": Label(3),
            }
        )

    with pytest.raises(UsageError, match=r"prompt \(16\), other \(24\).*width"):
        both(None)
    told = both(16)({"prompt": "a cat", "other": "a cat BREAK b", "label": 1}, 2)
    assert told.tokens is not None and told.tokens.values.shape == (2, 77 + 154, 16)
    assert told.null is not None and told.null.tokens is not None
    assert told.null.tokens.values.shape == (2, 154, 16)
    assert set(told.vector) == {"label"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda v: CLIPText("vit-x"), "unknown CLIP text tower 'vit-x'"),
        (lambda v: CLIPText("vit-l/14", skip=12), "12 of 12 layers left out"),
        (lambda v: tiny(v).encode("prompt", 3, 1), "a prompt is text, not 3"),
        (lambda v: tiny(v).encode("prompt", [3], 1), "a prompt is text, not 3"),
        (lambda v: tiny(v).encode("prompt", ["a"], 2), "1 prompts given for 2 samples"),
        (lambda v: tiny(v).encode("prompt", "(a:x)", 1), "'x' in '(a:x)' is not a finite number"),
        (lambda v: tiny(v).encode("prompt", "a cat " * 2000, 1), "12,000 characters"),
        (lambda v: tiny(v).encode("prompt", "BREAK " * 40, 1), "more than 32 chunks"),
        (lambda v: tiny(v, 500), "ids up to 513 for a tower that embeds 500"),
        (lambda v: CLIPText("vit-l/14").set_vocabulary(Vocabulary(signs={}, merges=[])), "no sign"),
        (lambda v: TextTower(SMALL)(torch.zeros(1, 78, dtype=torch.long)), "78 tokens for a text"),
        (lambda v: ENCODERS.build({"kind": "clip", "tower": {"depth": 0}}), "depth"),
    ],
)
def test_bad_input_gives_one_clear_line(build, message, folder):
    with torch.device("meta"), pytest.raises(FromNoiseError) as caught:
        build(read_vocabulary(folder))
    assert message in str(caught.value) and "\n" not in str(caught.value)


SMALL = TextSettings(vocabulary=600, width=8, depth=1, heads=2, hidden=8)


def tiny(vocabulary: Vocabulary, size: int = 600) -> CLIPText:
    with torch.device("cpu"):
        return CLIPText(SMALL.model_copy(update={"vocabulary": size})).set_vocabulary(vocabulary)


def test_plain_texts_for_comparison_with_pictures(folder):
    encoder = CLIPText(SMALL).set_vocabulary(read_vocabulary(folder))
    theirs = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
    table = ["", "(a cat:1.3)", "a b " * 60]
    wanted = theirs(table, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    assert torch.equal(texts(table, encoder), wanted)


def test_towers_refuse_what_does_not_fit():
    vision = VISIONS["vit-b/32"].model_copy(update={"size": 30})
    with pytest.raises(UsageError, match="patches of 32 do not divide 30"):
        VisionTower(vision)
    with pytest.raises(UsageError, match="projected to None and pictures to 512"):
        CLIP(SMALL, VISIONS["vit-b/32"])
    small = VISIONS["vit-b/32"].model_copy(update={"size": 32, "width": 8, "depth": 1, "heads": 2})
    with pytest.raises(ShapeError, match=r"\(B, 3, 32, 32\)"):
        VisionTower(small)(torch.zeros(1, 3, 16, 16))
    with pytest.raises(FileError, match="hidden_act 'relu'"):
        clip_keys.text_settings({"hidden_act": "relu"}, False)
