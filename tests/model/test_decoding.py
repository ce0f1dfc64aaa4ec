"""Large decoders run in the type of the network; small ones are left as they are."""

import torch
from model.tiny_latent import tiny_latent

from fromnoise.model import model as module
from fromnoise.model.model import Model


def away(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got - expected).norm() / expected.norm()).item()


def latents(model: Model) -> torch.Tensor:
    return torch.randn(2, *model.codec.latent_shape(model.shape))


def test_a_small_decoder_is_left_as_it_is(tmp_path):
    model = tiny_latent(tmp_path)
    z = latents(model)
    with torch.no_grad():
        plain = torch.cat([model.codec.decode(one[None]) for one in z]).clamp(-1, 1)
    for dtype in ("auto", "float32", "bfloat16", "float64"):
        assert torch.equal(model.decode(z, dtype), plain)


def test_a_large_one_follows_the_type_of_the_run(tmp_path, monkeypatch):
    model = tiny_latent(tmp_path)
    z = latents(model)
    plain = model.decode(z)
    monkeypatch.setattr(module, "large", lambda _: True)
    assert away(model.decode(z, "float32"), plain) < 1e-5
    half = model.decode(z, "bfloat16")
    assert 1e-4 < away(half, plain) < 5e-2
    assert torch.equal(model.decode(z, "float64"), plain)
    # The small network is run in float32, and so is the decoder behind it.
    assert torch.equal(model.decode(z), model.decode(z, "float32"))
    drawn = model.sample(1, prompt="ab", steps=2, guidance=3.0, dtype="bfloat16")
    stream = model.stream(1, prompt="ab", steps=2, guidance=3.0, dtype="bfloat16")
    x = list(stream)[-1].x
    assert torch.equal(drawn.tensor, model.decode(x, "bfloat16"))
    assert not torch.equal(drawn.tensor, model.decode(x, "float32"))


def test_new_weights_are_decoded_with(tmp_path, monkeypatch):
    model = tiny_latent(tmp_path)
    z = latents(model)
    monkeypatch.setattr(module, "large", lambda _: True)
    before = model.decode(z, "bfloat16")
    model.codec.decoder.leave.bias.data.add_(0.5)
    model.refresh()
    assert away(model.decode(z, "bfloat16"), before) > 0.01
    # Another codec in its place needs no telling.
    model.codec = tiny_latent(tmp_path / "other", seed=1).codec
    assert away(model.decode(z, "bfloat16"), model.decode(z, "float32")) < 5e-2
