"""The identity codec changes nothing, and is made by name."""

import pytest
import torch

from fromnoise.codecs import CODECS, Codec
from fromnoise.core.errors import UsageError


def test_the_identity_is_the_identity() -> None:
    codec: Codec = CODECS.build({"kind": "identity"})
    for shape in ((2, 3, 8, 8), (2, 2)):
        x = torch.randn(shape)
        assert torch.equal(codec.decode(codec.encode(x)), x)
        assert codec.encode(x).shape[1:] == codec.latent_shape(shape[1:])
    assert codec.config == {"kind": "identity"}
    assert list(codec.parameters()) == []


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown codec 'idenity'; did you mean identity"):
        CODECS.build({"kind": "idenity"})
