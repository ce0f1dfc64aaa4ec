"""Previews: exact where a decoder is a line, and the decoder itself where it is far from one."""

from pathlib import Path

import pytest
import torch
from model.tiny import tiny
from model.tiny_latent import tiny_latent
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from fromnoise.codecs import Learned, Passage
from fromnoise.core.randomness import Noise
from fromnoise.model import Previews
from fromnoise.model.model import Model


class Plain(Learned):
    """Every latent a square of one colour, (1 − bend)·line + bend·waves of its numbers."""

    def __init__(self, bend: float) -> None:
        super().__init__(3, 4, 2, 2.0, 0.1)
        self.bend = bend
        self.weight = nn.Parameter(
            torch.tensor([[0.1, 0.0, 0.05, 0], [0, 0.1, 0, 0], [0, 0, 0, 0.1]])
        )

    @property
    def last(self) -> Tensor:
        return self.weight

    def raw(self, x: Tensor) -> Tensor:
        raise AssertionError("previews need no encoder")

    def passage(self, x: Tensor, noise: Noise) -> Passage:
        raise AssertionError

    def picture(self, raw: Tensor) -> Tensor:
        line = torch.einsum("cl,blhw->bchw", self.weight, raw) + 0.05
        waves = torch.sin(40.0 * raw[:, :3]) * 0.5
        return interpolate(torch.lerp(line, waves, self.bend), scale_factor=2)


def behind(folder: Path, bend: float) -> Model:
    model = tiny_latent(folder)
    model.codec = Plain(bend)
    return model


def counted(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many latents each call decodes."""
    calls: list[int] = []
    real = model.decode

    def decode(x: Tensor, *given: object, **named: object) -> Tensor:
        calls.append(len(x))
        return real(x, *given, **named)

    monkeypatch.setattr(model, "decode", decode)
    return calls


@torch.no_grad()
def test_a_decoder_that_is_a_line_is_known_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = behind(tmp_path, 0.0)
    z = torch.randn(5, 4, 12, 16, generator=torch.Generator().manual_seed(1))
    whole = model.decode(z)
    calls = counted(model, monkeypatch)
    previews = Previews(model)
    small = avg_pool2d(whole, 2)
    assert torch.allclose(previews(z, 16), small, atol=1e-5)
    enlarged = interpolate(small, scale_factor=2, mode="bilinear")
    assert torch.allclose(previews(z), enlarged, atol=1e-5)
    # Latents are made smaller where pictures are to be smaller than they are.
    assert torch.allclose(previews(z, 8), avg_pool2d(whole, 4), atol=1e-5)
    assert previews(z, 500).shape == whole.shape
    # Fitted once, to four small pictures.
    assert calls == [4]


@torch.no_grad()
def test_what_is_no_line_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = behind(tmp_path, 1.0)
    z = torch.randn(2, 4, 12, 12)
    calls = counted(model, monkeypatch)
    previews = Previews(model)
    assert torch.equal(previews(z), model.decode(z))
    assert torch.equal(previews(z, 12), model.decode(avg_pool2d(z, 2)))
    assert calls == [4, 2, 2, 2, 2]


@torch.no_grad()
def test_in_between_the_distance_is_the_share_that_is_missing(tmp_path: Path) -> None:
    """On latents like those it was fitted to: the mean square left is (1 − share) of the spread."""
    model = behind(tmp_path, 0.05)
    previews = Previews(model)
    line = previews._line()
    assert line is not None and 0.6 < line.share < 0.99
    drawn = [
        torch.randn(64, 4, n, n, generator=torch.Generator().manual_seed(n)) for n in (2, 4, 8)
    ]
    z = sum(interpolate(one, size=(16, 16), mode="bilinear") for one in drawn)
    z = z / z.std()
    exact = avg_pool2d(model.decode(z), 2)
    left = (line(z) - exact).square().mean()
    spread = (exact - exact.mean((0, 2, 3), keepdim=True)).square().mean()
    assert left / spread == pytest.approx(1 - line.share, rel=0.25)


def test_pixels_points_and_tokens_are_as_they_are() -> None:
    pixels = tiny()
    x = torch.rand(2, *pixels.shape) * 2 - 1
    assert torch.equal(Previews(pixels)(x), pixels.decode(x))


def test_a_look_changes_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = behind(tmp_path, 0.0)
    expected = model.sample(2, prompt="ab", steps=5, seed=3).tensor
    stream = model.stream(2, prompt="ab", steps=5, seed=3)
    calls = counted(model, monkeypatch)
    looked = stream.samples(_seen(stream, []))
    assert torch.equal(looked.tensor, expected)
    # Five looks at both samples, and nothing was decoded for them but what the line is fitted to.
    assert calls == [4]


def _seen(stream, looks):
    for step in stream:
        looks.append(stream.preview(step.x0))
        yield step
    assert len(looks) == 5
