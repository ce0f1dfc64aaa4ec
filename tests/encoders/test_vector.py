"""A vector as it is told: scaled, for one or all, and refused where it is none."""

import pytest
import torch

from fromnoise import encoders
from fromnoise.core.errors import ShapeError, UsageError


def test_numbers_of_size_1_have_a_square_sum_of_1() -> None:
    encoder = encoders.ENCODERS.build({"kind": "vector", "width": 16})
    raw = torch.randn(3, 16)
    told = encoder.encode("embedding", raw, 3).vector["embedding"]
    torch.testing.assert_close(told, raw / 4)
    assert encoder.encode("embedding", raw.tolist(), 3).vector["embedding"].equal(told)
    one = encoder.encode("embedding", raw[0], 3).vector["embedding"]
    torch.testing.assert_close(one, (raw[:1] / 4).expand(3, -1))
    assert encoder.null("embedding", 2).vector["embedding"].equal(torch.zeros(2, 16))
    assert encoder.droppable and encoder.config == {"kind": "vector", "width": 16}


def test_what_is_none_is_refused() -> None:
    encoder = encoders.Vector(4)
    for wrong, error in (
        ("red", UsageError),
        ([float("nan")] * 4, UsageError),
        ([1.0, 2.0], ShapeError),
        (torch.zeros(3, 4), ShapeError),
        ([[1.0], [2.0, 3.0]], UsageError),
    ):
        with pytest.raises(error, match="embedding"):
            encoder.encode("embedding", wrong, 2)
    with pytest.raises(UsageError):
        encoders.Vector(0)
