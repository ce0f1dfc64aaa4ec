"""Pictures as CLIP sees them: transformers' own numbers, and embeddings that a network is told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from encoders.tiny_clip import VISION, randomised
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from fromnoise.core.errors import FromNoiseError
from fromnoise.core.images import to_tensor
from fromnoise.encoders import ENCODERS, CLIPImage, Conditioning
from fromnoise.encoders.clip_vision import STD, prepared, seen
from fromnoise.interop import clip_keys


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with hard edges and some noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(columns / (5 + i) + rows / (9 - i)) for i in range(3)]
    pixels = 127 + 100 * np.stack(waves, -1) + rng.normal(0, 8, (height, width, 3))
    pixels[: height // 3, : width // 4] = (255, 0, 30)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


SIZES = [(224, 224), (300, 224), (640, 427), (427, 641), (50, 80), (1000, 225), (32, 32), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_pictures_are_prepared_as_transformers_does(size):
    image = picture(*size)
    wanted = CLIPImageProcessorPil()(image, return_tensors="pt")["pixel_values"][0]
    found = prepared(image)
    assert found.shape == (3, 224, 224) and wanted.std() > 0.1
    assert (found - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_other_modes_are_prepared_as_transformers_does(mode):
    image = picture(90, 70).convert(mode)
    wanted = CLIPImageProcessorPil()(image, return_tensors="pt")["pixel_values"][0]
    assert (prepared(image) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_tensors_are_seen_within_a_level_of_pictures(size):
    image = picture(*size)
    x = to_tensor(image)[None].requires_grad_()
    found = seen(x)
    assert found.shape == (1, 3, 224, 224)
    assert (found[0] - prepared(image)).abs().max() < 1.5 / 255 / min(STD)
    found.square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def model() -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    made: CLIPVisionModelWithProjection = randomised(
        CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))
    )
    return made


def encoder(**options) -> CLIPImage:
    network = model()
    projected = options.get("gives") != "patches"
    made = CLIPImage(clip_keys.vision_settings(network.config.to_dict(), projected), **options)
    made.tower.load_state_dict(clip_keys.to_ours(network.state_dict(), made.tower))
    return made


@torch.no_grad()
def test_a_picture_is_told_as_transformers_would(tmp_path: Path):
    image = picture(60, 40)
    image.save(tmp_path / "a.png")
    size = {"shortest_edge": 32}
    processor = CLIPImageProcessorPil(size=size, crop_size={"height": 32, "width": 32})
    theirs = model()(processor(image, return_tensors="pt")["pixel_values"])
    vector = encoder()
    for raw in (image, tmp_path / "a.png", str(tmp_path / "a.png"), np.asarray(image), [image] * 2):
        told = vector.encode("look", vector.opened(raw, (8, 8)), 2).vector["look"]
        assert told.shape == (2, 12)
        assert torch.allclose(told, theirs.image_embeds.expand(2, -1), atol=1e-4)
    unit = encoder(unit=True).encode("look", image, 1).vector["look"]
    assert torch.allclose(unit, torch.nn.functional.normalize(theirs.image_embeds), atol=1e-4)
    token = encoder(gives="token").encode("look", image, 1).tokens
    assert token is not None and torch.allclose(token.values[:, 0], theirs.image_embeds, atol=1e-4)
    patches = encoder(gives="patches").encode("look", image, 1).tokens
    wanted = model().vision_model.post_layernorm(theirs.last_hidden_state)
    assert patches is not None and torch.allclose(patches.values, wanted, atol=1e-4)


@torch.no_grad()
def test_tensors_and_embeddings_are_told_too():
    vector = encoder()
    image = picture(32, 32)
    x = to_tensor(image)
    of_picture = vector.encode("look", image, 1).vector["look"]
    assert torch.allclose(vector.encode("look", x, 1).vector["look"], of_picture, atol=1e-5)
    pair = vector.encode("look", torch.stack([x, -x]), 2).vector["look"]
    assert torch.allclose(pair[:1], of_picture, atol=1e-5) and not torch.allclose(pair[0], pair[1])
    again = vector.encode("look", of_picture[0], 3).vector["look"]
    assert torch.equal(again, of_picture.expand(3, -1))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (2, 12)),
        ({"gives": "token", "width": 8}, (2, 1, 8)),
        ({"gives": "patches"}, (2, 17, 16)),
    ],
)
def test_its_null_is_zeros_of_the_shape_it_gives(options, shape):
    made = encoder(**options)
    both = Conditioning({"look": made})
    told = both({"look": picture(9, 7)}, 2)
    assert told.null is not None
    value, null = (
        c.vector["look"] if made.slot == "vector" else c.tokens.values for c in (told, told.null)
    )
    assert value.shape == null.shape == shape
    assert not null.any() and value.any()
    again = ENCODERS.build(made.config)
    assert again.slot == made.slot and again.width == made.width
    learns = {name for name, p in made.named_parameters() if p.requires_grad}
    assert learns == ({"fit.weight", "fit.bias"} if "width" in options else set())


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (torch.zeros(2, 3, 8, 8), "2 pictures given for 3 samples"),
        ([picture(4, 4)] * 2, "2 pictures given for 3 samples"),
        (torch.zeros(2, 8, 8), "(B, 1 or 3, H, W), not (1, 2, 8, 8)"),
        (torch.zeros(5), "not (5,); an embedding would be (12,)"),
        (torch.zeros(3, 8, 8, dtype=torch.long), "finite floats in [-1, 1], not torch.int64"),
        (torch.full((3, 8, 8), torch.nan), "finite floats"),
        ("no-such-file.png", "no-such-file.png"),
        ({"a": 1}, "a path, a PIL picture or a tensor"),
    ],
)
def test_bad_input_gives_one_clear_line(raw, message):
    made = encoder()
    with pytest.raises(FromNoiseError) as caught:
        made.encode("look", made.opened(raw, (8, 8)), 3)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_width_of_a_vector_is_refused():
    with pytest.raises(FromNoiseError, match="the network embeds"):
        encoder(width=4)
