"""Pictures as one-hot codes: the same codes and pictures as the codec around which it stands."""

import pytest
import torch

from fromnoise.codecs import CODECS, VQ, Tokens
from fromnoise.core.errors import ShapeError

CONFIG = {
    "kind": "tokens",
    "codec": {
        "kind": "vq", "codebook": {"kind": "ema", "size": 12, "width": 4}, "widths": [8, 16],
        "blocks": 1, "groups": 4, "scaling": "measured",
    },
}  # fmt: skip
X = torch.rand(3, 3, 16, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def codec() -> Tokens:
    torch.manual_seed(0)
    made: Tokens = CODECS.build(CONFIG)
    made.codec.start(X, 0)
    return made.eval()


def test_it_is_its_codec_s_codes(codec: Tokens) -> None:
    z = codec.encode(X)
    assert tuple(z.shape[1:]) == codec.latent_shape((3, 16, 8)) == (12, 8, 4)
    assert torch.equal(z.argmax(1), codec.codec.codes(X))
    assert bool(((z == 0) | (z == 1)).all()) and bool((z.sum(1) == 1).all())
    assert torch.equal(codec.of_latents(codec.codec.encode(X)), z)
    assert len(z.argmax(1).unique()) > 3


def test_tokens_and_logits_are_the_pictures_of_their_codes(codec: Tokens) -> None:
    z = codec.encode(X)
    pictures = codec.codec.from_codes(codec.codec.codes(X))
    assert torch.equal(codec.decode(z), pictures)
    logits = (5 * z + torch.rand(z.shape)).log_softmax(1)
    assert torch.equal(codec.decode(logits), pictures)


def test_a_masked_token_is_shown_as_the_middle_of_the_codebook(codec: Tokens) -> None:
    middle = codec.codec.codebook.vectors.mean(0)
    nearest = (codec.codec.codebook.vectors - middle).square().sum(1).argmin()
    shown = codec.decode(torch.zeros(1, 12, 8, 4))
    assert torch.equal(shown, codec.codec.from_codes(nearest.expand(1, 8, 4)))


def test_the_configuration_makes_it_again(codec: Tokens) -> None:
    again = CODECS.build(codec.config)
    assert again.config == codec.config and isinstance(again.codec, VQ)
    again.load_state_dict(codec.state_dict())
    assert torch.equal(again.eval().encode(X), codec.encode(X))
    with pytest.raises(ShapeError):
        codec.latent_shape((3, 15, 8))
