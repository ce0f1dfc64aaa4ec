"""What networks of latents are told besides prompts: masks, small pictures, depths, sizes."""

from typing import Any

import pytest
import torch
from encoders.tiny_clip import write_vocabulary
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.errors import FromNoiseError, ShapeError, UsageError
from fromnoise.core.images import to_pil
from fromnoise.core.randomness import Noise
from fromnoise.encoders import (
    CLIPText,
    Conditioning,
    Disparity,
    Inpainting,
    JoinedCLIP,
    Noised,
    PictureSizes,
)
from fromnoise.encoders.clip_towers import TextSettings
from fromnoise.encoders.tokenizers import read_vocabulary
from fromnoise.layers.condition import Condition


class Halved:
    """A codec that can be checked by hand: four channels, the picture's mean over 2×2 squares."""

    factor = 2

    def encode(self, x: Tensor) -> Tensor:
        small = torch.nn.functional.avg_pool2d(x, 2)
        return torch.cat([small, small.mean(1, keepdim=True)], dim=1)


def told(encoder: Any, raw: Any, batch: int = 2, name: str = "it", **more: Any) -> Condition:
    conditioning = Conditioning({name: encoder})
    ready = conditioning.ready({name: raw}, range(batch), (4, 6), Halved(), **more)
    condition: Condition = conditioning(ready, batch, (4, 6))
    return condition


PICTURE = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
MASK = torch.zeros(8, 12)
MASK[2:6, 3:8] = 1


def test_inpainting_is_the_mask_and_the_latents_of_what_is_kept() -> None:
    found = told(Inpainting(), {"picture": PICTURE, "mask": MASK}).channels
    assert torch.equal(found["mask"], MASK[None, None, ::2, ::2].expand(2, -1, -1, -1))
    kept = Halved().encode((PICTURE * (1 - MASK))[None])
    assert torch.equal(found["masked"], kept.expand(2, -1, -1, -1))
    files = told(Inpainting(), {"picture": to_pil(PICTURE), "mask": to_pil(MASK[None] * 2 - 1)})
    assert torch.equal(files.channels["mask"], found["mask"])
    assert torch.allclose(files.channels["masked"], found["masked"], atol=1 / 127)


def test_inpainting_each_sample_and_none() -> None:
    both = torch.stack([PICTURE, -PICTURE])
    found = told(Inpainting(), {"picture": both, "mask": MASK}).channels["masked"]
    assert torch.equal(found[0], -found[1])
    nothing = told(Inpainting(), None)
    assert (nothing.channels["mask"] == 1).all() and (nothing.channels["masked"] == 0).all()
    assert nothing.null is not None and nothing.null.channels["mask"].shape == (2, 1, 4, 6)
    latents = told(Inpainting(), {"masked": torch.ones(4, 4, 6), "mask": MASK})
    assert (latents.channels["masked"] == 1).all()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (PICTURE, "given as a picture and a mask"),
        ({"mask": MASK}, "'picture' and 'mask', or 'masked' and 'mask', not 'mask'"),
        ({"picture": PICTURE, "mask": MASK, "x": 1}, "'picture' and 'mask'"),
        ({"picture": PICTURE, "mask": MASK * 2}, "takes 0 to 1"),
        ({"picture": PICTURE * 3, "mask": MASK}, "takes -1 to 1"),
        ({"picture": PICTURE[:2], "mask": MASK}, "has shape"),
        ({"picture": "nowhere.png", "mask": MASK}, "nowhere.png does not exist"),
        ({"picture": torch.stack([PICTURE] * 3), "mask": MASK}, "3 of masked given for 2"),
    ],
)
def test_what_is_no_inpainting(raw: Any, message: str) -> None:
    with pytest.raises(FromNoiseError, match=message):
        told(Inpainting(), raw)


def noised(**more: Any) -> Noised:
    return Noised(schedules.scaled_linear(1000, 1e-4, 0.02), **more)


def test_a_small_picture_with_the_noise_of_its_level() -> None:
    small = PICTURE[:, ::2, ::2]
    eps = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1))
    found = told(noised(), {"picture": small, "level": 100, "noise": eps})
    kept = float(schedules.scaled_linear(1000, 1e-4, 0.02).alphas_cumprod[100])
    wanted = kept**0.5 * small + (1 - kept) ** 0.5 * eps
    assert torch.allclose(found.channels["it"], wanted.expand(2, -1, -1, -1), atol=1e-6)
    assert found.vector["label"].argmax(1).tolist() == [100, 100]
    # Both halves of guidance are told the same.
    assert found.null is not None and torch.equal(found.null.channels["it"], found.channels["it"])
    each = told(noised(), {"picture": small, "level": [0, 350]}).vector["label"]
    assert each.argmax(1).tolist() == [0, 350]


def test_the_noise_of_a_small_picture_is_of_its_seed() -> None:
    small = PICTURE[:, ::2, ::2]
    first = noised().drawn({"picture": small}, Noise([1, 2]))["noise"]
    other = noised().drawn({"picture": small}, Noise([2, 1]))["noise"]
    assert torch.equal(first, other.flip(0)) and not torch.equal(first[0], first[1])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "give it as the input it"),
        ({"level": 3}, "give it as the input it"),
        ({"picture": PICTURE, "level": 351}, "not from 0 to 350"),
        ({"picture": PICTURE, "level": 0.5}, "a whole number from 0 to 350"),
        ({"picture": PICTURE, "level": [1, 2, 3]}, "levels of it given for 2"),
        ({"picture": PICTURE, "sigma": 1}, "it has no 'sigma'"),
    ],
)
def test_what_is_no_small_picture(raw: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        told(noised(), raw)


def test_depths_have_their_own_range_and_are_told_to_both_halves() -> None:
    depth = torch.arange(24.0).reshape(4, 6)
    found = told(Disparity(), depth)
    assert torch.allclose(found.channels["it"][0, 0], 2 * depth / 23 - 1)
    assert found.null is not None and torch.equal(found.null.channels["it"], found.channels["it"])
    large = torch.rand(1, 9, 17)
    sized = torch.nn.functional.interpolate(large[None], (4, 6), mode="bicubic")[0]
    wanted = 2 * (sized - sized.min()) / (sized.max() - sized.min()) - 1
    assert torch.allclose(told(Disparity(), large).channels["it"][1], wanted, atol=1e-6)
    with pytest.raises(UsageError, match="no network that finds depths was named"):
        told(Disparity(), {"picture": PICTURE})
    with pytest.raises(UsageError, match="a grey picture"):
        told(Disparity(), None)


@pytest.mark.slow
def test_a_folder_without_a_network_that_finds_depths(tmp_path: Any) -> None:
    with pytest.raises(FromNoiseError, match="no DPT could be opened from"):
        told(Disparity(str(tmp_path)), {"picture": PICTURE})


def test_sizes_are_those_of_the_sample_unless_said() -> None:
    assert told(PictureSizes(), None).vector["it"].tolist() == [[8, 12, 0, 0, 8, 12]] * 2
    crop = told(PictureSizes(), {"crop": [[1, 2], [3, 4]]}).vector["it"]
    assert crop[:, 2:4].tolist() == [[1, 2], [3, 4]]
    whole = told(PictureSizes(), [1, 2, 3, 4, 5, 6]).vector["it"]
    assert whole[1].tolist() == [1, 2, 3, 4, 5, 6]
    for raw, message in (
        ({"crop": 3}, "the crop of it is 3"),
        ({"score": 3}, "it has no 'score'"),
        ([1, 2], "give \\(6,\\)"),
        ({"target": "x"}, "is no number"),
    ):
        with pytest.raises(UsageError, match=message):
            told(PictureSizes(), raw)


def test_what_guidance_moves_away_from_has_the_lower_score() -> None:
    found = told(PictureSizes(6.0), {"crop": [1, 2]})
    assert found.vector["it"][0].tolist() == [8, 12, 1, 2, 6]
    assert found.null is not None and found.null.vector["it"][0].tolist() == [8, 12, 1, 2, 2.5]
    conditioning = Conditioning({"it": PictureSizes(6.0)})
    ready = conditioning.ready({}, [0], (4, 6), Halved())
    negative = conditioning(ready, 1, (4, 6), against=["it"])
    assert negative.vector["it"][0].tolist() == [8, 12, 0, 0, 2.5]


def test_towers_beside_each_other(tmp_path: Any) -> None:
    words = read_vocabulary(write_vocabulary(tmp_path))
    sizes = {"vocabulary": 600, "depth": 2, "heads": 2, "hidden": 8, "end": 513}
    towers = [
        CLIPText(TextSettings(width=width, projection=6, **sizes), skip=1, normed=False, pooled=p)
        for width, p in ((8, False), (12, True))
    ]
    for tower in towers:
        tower.set_vocabulary(words)
    joined = JoinedCLIP(*towers)
    long = "a very long prompt " * 9
    found = joined.encode("prompt", ["a cat", long], 2)
    parts = [tower.encode("prompt", ["a cat", long], 2) for tower in towers]
    assert found.tokens is not None and parts[0].tokens is not None and parts[1].tokens is not None
    beside = torch.cat([part.tokens.values for part in parts if part.tokens], dim=2)
    assert torch.equal(found.tokens.values, beside)
    assert found.tokens.mask is not None
    assert torch.equal(found.tokens.mask, parts[0].tokens.mask)  # type: ignore[arg-type]
    assert torch.equal(found.vector["pooled"], parts[1].vector["prompt"])
    nothing = joined.null("prompt", 2)
    assert nothing.tokens is not None and nothing.tokens.values.shape == (2, 77, 20)
    assert not nothing.tokens.values.any() and not nothing.vector["pooled"].any()
    empty = JoinedCLIP(towers[1], zeros=False).null("prompt", 1)
    assert torch.equal(empty.vector["pooled"], towers[1].encode("p", "", 1).vector["p"])
    again = Conditioning.build(Conditioning({"prompt": joined}).config)
    again.load_state_dict(Conditioning({"prompt": joined}).state_dict())
    with pytest.raises(UsageError, match="pooled=True"):
        JoinedCLIP(towers[0])


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="give one for each sample"):
        told(PictureSizes(), {"crop": [[1, 2]] * 3, "original": [[1, 2]] * 2}, batch=3)
