"""Pictures, depths, label maps and small pictures become exact channels, or a clear error."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fromnoise import nets
from fromnoise.core.errors import FileError, FromNoiseError
from fromnoise.core.images import to_tensor
from fromnoise.core.randomness import Noise
from fromnoise.encoders import (
    ENCODERS,
    ClassChannels,
    Conditioning,
    Depth,
    Encoder,
    Label,
    LabelMap,
    LowResolution,
    Picture,
)
from fromnoise.layers.condition import Condition, concatenate, where

RANDOM = torch.Generator().manual_seed(0)
PIXELS = torch.rand(2, 3, 4, 6, generator=RANDOM) * 2 - 1
IDS = torch.tensor([[[0, 1, 2], [2, 1, 0]], [[1, 1, 1], [0, 2, 0]]])


def channels(encoder: Encoder, raw: Any, batch: int = 2) -> torch.Tensor:
    return encoder.encode("it", raw, batch).channels["it"]


def test_a_picture_is_itself_for_all_samples_or_for_each() -> None:
    assert torch.equal(channels(Picture(), PIXELS), PIXELS)
    assert torch.equal(channels(Picture(), PIXELS[0]), PIXELS[:1].expand(2, -1, -1, -1))
    assert torch.equal(channels(Picture(), [PIXELS[1], PIXELS[0]]), PIXELS.flip(0))
    assert torch.equal(channels(Picture(1), PIXELS[:, :1].double().numpy()), PIXELS[:, :1])


@pytest.mark.parametrize(
    "encoder", [Picture(2), Depth(), LabelMap(3), LowResolution(2, channels=2)]
)
@pytest.mark.parametrize("kind", ["fixed", "learned"])
def test_the_null_is_the_same_in_every_place_of_every_size(encoder: Encoder, kind: str) -> None:
    if kind == "learned":
        if isinstance(encoder, LabelMap):
            return
        config = {**encoder.config, "null": "learned"}
        encoder = ENCODERS.build(config)
        encoder.nothing.data.normal_()
    null = encoder.null("it", 2).channels["it"]
    assert null.shape == (2, encoder.width)
    net = nets.build(small(it=encoder.width) | {"accepts": accepts(encoder)})
    vector = encoder.null("it", 2).vector
    torch.nn.init.normal_(net.leave.weight)
    for size in (4, 8):
        spread = null[:, :, None, None].expand(2, -1, size, size)
        x, time = torch.zeros(2, 1, size, size), torch.zeros(2)
        got = net(x, time, Condition({"it": null}, vector))
        assert torch.equal(got, net(x, time, Condition({"it": spread}, vector)))
    (net(x, time, Condition({"it": null}, vector)) ** 2).sum().backward()
    assert sum(p.grad is not None for p in encoder.parameters()) == (kind == "learned")


def accepts(encoder: Encoder) -> dict[str, Any]:
    vector = {k: v.shape[1] for k, v in encoder.null("it", 1).vector.items()}
    return {"channels": {"it": encoder.width}, "vector": vector}


def small(**told: int) -> dict[str, Any]:
    return {
        "kind": "unet", "in_channels": 1, "channels": 8, "multipliers": [1, 2], "blocks": 1,
        "style": {"groups": 4}, "accepts": {"channels": told},
    }  # fmt: skip


def test_a_null_meets_a_picture_in_guidance_and_in_dropout() -> None:
    model = Conditioning({"it": Picture(null=0.5)})
    told = model({"it": PIXELS}, 2, (4, 6))
    assert told.null is not None
    both = concatenate(told, told.null).channels["it"]
    assert torch.equal(both[:2], PIXELS)
    assert torch.equal(both[2:], torch.full_like(PIXELS, 0.5))
    picked = where(torch.tensor([False, True]), told, told.null).channels["it"]
    assert torch.equal(picked, torch.stack([both[2], PIXELS[1]]))


def test_pictures_take_the_size_of_the_sample() -> None:
    """Twice as large by PIL's own bilinear filter, which is another implementation."""
    model = Conditioning({"it": Picture(1)})
    grey = PIXELS[:1, :1]
    for space in ((8, 12), (2, 3)):
        got = model({"it": grey}, 1, space).channels["it"][0, 0]
        image = Image.fromarray(grey[0, 0].numpy(), "F")
        outside = image.resize(space[::-1], Image.Resampling.BILINEAR)
        torch.testing.assert_close(got, torch.from_numpy(np.array(outside)), atol=1e-5, rtol=0)
    flat = model({"it": torch.full((1, 5, 5), 0.25)}, 1, (8, 8)).channels["it"]
    torch.testing.assert_close(flat, torch.full((1, 1, 8, 8), 0.25))


def test_a_depth_has_a_scale_of_its_own_or_a_given_one() -> None:
    metres = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[10.0, 10.0], [10.0, 10.0]]])
    each = channels(Depth("each"), metres)
    assert torch.equal(each[0, 0], torch.tensor([[-1.0, -0.5], [0.0, 1.0]]))
    assert torch.isfinite(each).all() and len(each[1].unique()) == 1
    given_scale = channels(Depth((0.0, 20.0)), metres[:, None])
    torch.testing.assert_close(given_scale[:, 0], metres / 10.0 - 1.0)
    plain = metres / 10.0 - 1.0
    assert torch.equal(channels(Depth(), plain)[:, 0], plain)
    assert torch.equal(channels(Depth(), plain[0]), plain[:1, None].expand(2, -1, -1, -1))


def test_a_label_map_is_one_hot_and_what_has_no_class_is_nothing() -> None:
    planes = channels(LabelMap(3), IDS)
    assert torch.equal(planes.argmax(1), IDS)
    assert torch.equal(planes.sum(1), torch.ones(2, 2, 3))
    holes = IDS.clone()
    holes[0, 0, 0] = 255
    told = channels(LabelMap(["sky", "sea", "sand"], unknown=255), holes)
    assert torch.equal(told[:, :, 0, 1:], planes[:, :, 0, 1:])
    assert told[0, :, 0, 0].tolist() == [0, 0, 0]


@given(size=st.tuples(st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=25, deadline=None)
def test_a_map_of_another_size_still_has_one_class_in_each_place(size: tuple[int, int]) -> None:
    planes = Conditioning({"it": LabelMap(3)})({"it": IDS}, 2, size).channels["it"]
    assert planes.shape == (2, 3, *size)
    assert torch.equal(planes.sum(1), torch.ones(2, *size))
    image = Image.fromarray(IDS[0].numpy().astype(np.uint8))
    if size[0] % 2 == 0 and size[1] % 3 == 0:
        outside = np.array(image.resize(size[::-1], Image.Resampling.NEAREST))
        assert np.array_equal(planes[0].argmax(0).numpy(), outside)


def test_class_channels_are_the_labels_in_every_place() -> None:
    for raw in (1, [0, 2], {0: 0.5, 2: 0.5}):
        assert torch.equal(channels(ClassChannels(3), raw), Label(3).vector(raw, 2))
    with pytest.raises(FromNoiseError, match="label 7 is not a class"):
        channels(ClassChannels(3), 7)


def test_a_small_picture_is_the_mean_of_the_sample_with_noise_of_the_level_told() -> None:
    encoder = LowResolution(2, noise=0.8)
    x = torch.rand(500, 3, 4, 6, generator=RANDOM) * 2 - 1
    parts = encoder.drawn(None, Noise(0, 500), x)
    clean = x.reshape(500, 3, 2, 2, 2, 3).mean((3, 5))
    torch.testing.assert_close(parts["picture"], clean)
    level = parts["level"]
    assert level.min() >= 0 and level.max() < 0.8 and abs(level.mean() - 0.4) < 0.03
    told = encoder.encode("it", parts, 500)
    s = level[:, None, None, None]
    noise = (told.channels["it"] - torch.sqrt(1 - s**2) * clean) / s
    torch.testing.assert_close(noise, parts["noise"], atol=1e-3, rtol=1e-3)
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    angles = torch.arccos(told.vector["it"][:, 0]) / math.pi
    torch.testing.assert_close(angles, level, atol=2e-3, rtol=0)
    again = encoder.drawn(None, Noise(0, 500), x)
    assert torch.equal(again["noise"], parts["noise"])


def test_sampling_gives_the_level_and_its_noise_is_that_of_the_seed() -> None:
    model = Conditioning({"it": LowResolution(4, noise=0.5, level=0.1)})
    picture = torch.zeros(3, 4, 4)

    def ask(raw: Any, seeds: list[int]) -> torch.Tensor:
        return model(model.ready({"it": raw}, seeds, (8, 8)), len(seeds), (8, 8)).channels["it"]

    three = ask({"picture": picture, "level": 0.3}, [5, 6, 7])
    assert torch.equal(three[1:2], ask({"picture": picture, "level": 0.3}, [6]))
    assert not torch.equal(three[0], three[1])
    assert ask({"picture": picture, "level": 0.0}, [5]).abs().max() == 0
    default = ask(picture, [5])
    torch.testing.assert_close(default * 3, three[:1])
    start = Noise([5]).normal(torch.empty(1, 3, 4, 4))
    drawn = model.ready({"it": picture}, [5], (8, 8))["it"]["noise"]
    assert not torch.allclose(drawn, start)


def test_guidance_leaves_in_what_is_never_dropped() -> None:
    both = {"it": LowResolution(4, channels=1, droppable=False), "label": Label(3)}
    model = Conditioning(both)
    raw = {"it": torch.ones(1, 4, 4), "label": [0, 1]}
    keep = {name: torch.tensor([True, False]) for name in both}
    told = model(raw, 2, (8, 8), keep)
    assert told.channels["it"].min() == 1
    assert told.vector["label"].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert told.null is not None
    assert torch.equal(told.null.channels["it"], told.channels["it"])
    assert torch.equal(told.null.vector["it"], told.vector["it"])
    assert told.null.vector["label"].abs().max() == 0
    free = Conditioning({**both, "it": LowResolution(4, channels=1)})(raw, 2, (8, 8))
    assert free.null is not None and free.null.channels["it"].abs().max() == 0


def test_pictures_and_paths_are_opened_at_the_edge(tmp_path: Path) -> None:
    colour = Image.fromarray((PIXELS[0].permute(1, 2, 0).numpy() * 127 + 128).astype(np.uint8))
    path = tmp_path / "picture.png"
    colour.save(path)
    exact = to_tensor(colour)
    for raw in (colour, path, str(path), np.asarray(colour)):
        assert torch.equal(Picture().opened(raw, (4, 6)), exact)
    several = Picture().opened([colour, colour.resize((12, 8))], (4, 6))
    assert several.shape == (2, 3, 4, 6) and torch.equal(several[0], exact)
    grey = Picture(1).opened(colour, (4, 6))
    assert torch.equal(grey, to_tensor(colour.convert("L")))
    assert Picture().opened(PIXELS, (4, 6)) is PIXELS
    small = LowResolution((2, 3)).opened({"picture": [path, colour], "level": 0.1}, (4, 6))
    assert small["picture"].shape == (2, 3, 2, 3) and small["level"] == 0.1


def test_depths_of_sixteen_bits_and_maps_with_a_palette_keep_their_numbers(tmp_path: Path) -> None:
    deep = np.array([[0, 65535], [257, 32768]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "depth.png")
    got = Depth((0.0, 10.0)).opened(tmp_path / "depth.png", (2, 2))
    torch.testing.assert_close(got, torch.from_numpy(deep.astype(np.float32)) / 6553.5)
    ids = IDS[0].numpy().astype(np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.save(tmp_path / "map.png")
    encoder = LabelMap(3)
    assert torch.equal(encoder.opened(tmp_path / "map.png", (2, 3)), IDS[0])
    assert torch.equal(encoder.opened([Image.fromarray(ids)] * 2, (2, 3)), IDS[:1].expand(2, 2, 3))
    for wrong in (LabelMap(3), Depth()):
        with pytest.raises(FileError, match="picture in RGB"):
            wrong.opened(Image.new("RGB", (3, 2)), (2, 3))
    with pytest.raises(FileError, match="no-such"):
        encoder.opened(tmp_path / "no-such.png", (2, 3))


WRONG = [
    (Picture(), PIXELS[:, :1], r"shape \(2, 1, 4, 6\); give \(3, size, size\) for all"),
    (Picture(), PIXELS[:1].expand(3, -1, -1, -1), "3 of it given for 2 samples"),
    (Picture(), PIXELS * 128, "goes from .* it takes -1 to 1"),
    (Picture(), PIXELS * math.nan, "goes from nan"),
    (Picture(), torch.zeros(3, 4, 4, dtype=torch.uint8), "whole numbers .* or a picture"),
    (Picture(), "cat", "a it is a picture, or a tensor of its numbers, not str 'cat'"),
    (Picture(), [PIXELS[0], PIXELS[1, :, :2]], r"different sizes, \(3, 2, 6\) and \(3, 4, 6\)"),
    (Depth(), torch.full((4, 4), 3.0), "takes -1 to 1"),
    (Depth("each"), torch.full((4, 4), math.inf), "not finite"),
    (Depth(), torch.zeros(2, 3, 4, 4), r"shape \(2, 3, 4, 4\)"),
    (LabelMap(3), IDS + 1, "holds class 3; this model knows 0 to 2$"),
    (LabelMap(3, unknown=9), IDS - 1, "class -1; this model knows 0 to 2, and 9 for none"),
    (LabelMap(3), IDS.float(), "holds torch.float32; give whole numbers"),
    (LabelMap(3), IDS[:, None], "shape"),
    (LowResolution(4), {"picture": PIXELS, "level": 0.9, "noise": None}, "from 0 to 0.5"),
    (LowResolution(4), {"picture": PIXELS, "level": [0.1]}, r"\(1,\) levels of it .* 2 samples"),
    (LowResolution(4), {"picture": PIXELS, "levle": 0.1}, "no 'levle'; it takes picture, level"),
    (LowResolution(4), {"level": 0.1}, "without its picture"),
    (LowResolution(4), {"picture": PIXELS, "level": 0.1}, "needs its noise"),
]


@pytest.mark.parametrize(("encoder", "raw", "message"), WRONG)
def test_wrong_input_is_refused_with_what_is_right(
    encoder: Encoder, raw: Any, message: str
) -> None:
    with pytest.raises(FromNoiseError, match=message):
        channels(encoder, raw)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "picture", "channels": 0},
        {"kind": "picture", "null": "none"},
        {"kind": "depth", "scale": [2.0, 1.0]},
        {"kind": "map", "classes": []},
        {"kind": "map", "classes": 0},
        {"kind": "class_channels", "classes": ["a", "a"]},
        {"kind": "low_resolution", "size": 0},
        {"kind": "low_resolution", "size": 4, "noise": 0.2, "level": 0.3},
        {"kind": "low_resolution", "size": 4, "noise": 1.5},
    ],
)
def test_what_they_cannot_be(config: dict[str, Any]) -> None:
    with pytest.raises(FromNoiseError):
        ENCODERS.build(config)


@pytest.mark.parametrize(
    "made",
    [Picture(1, null="learned"), Depth("each"), LabelMap(["a", "b"], 255), ClassChannels(3),
     LowResolution((2, 4), channels=1, noise=0.3, level=0.1, droppable=False)],
)  # fmt: skip
def test_it_is_rebuilt_from_its_configuration(made: Encoder) -> None:
    again = ENCODERS.build(made.config)
    assert again.config == made.config and type(again) is type(made)
    assert again.state_dict().keys() == made.state_dict().keys()
