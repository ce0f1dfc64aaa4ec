"""What sampling returns: a sequence of pictures or points that shows itself."""

import io

import numpy as np
import torch
from PIL import Image

from fromnoise.model import Samples, sheet


def flat(count: int) -> Samples:
    x = torch.linspace(-1, 1, count)[:, None, None, None].expand(count, 1, 8, 8)
    return Samples(x, {"seeds": list(range(5, 5 + count))})


def test_a_sheet_shows_every_sample_row_by_row() -> None:
    shown = np.asarray(Image.open(io.BytesIO(flat(12)._repr_png_())))
    assert np.array_equal(shown, np.asarray(flat(12).sheet()))
    cells = np.asarray(flat(12).sheet(columns=6))[34::66, 34::66].reshape(-1) / 127.5 - 1
    assert np.abs(cells - np.linspace(-1, 1, 12)).max() < 0.01


def test_a_slice_keeps_the_seeds_of_its_samples() -> None:
    some = flat(6)[2:4]
    assert len(some) == 2
    assert some.recipe["seeds"] == [7, 8]
    assert [picture.size for picture in some] == [(8, 8), (8, 8)]
    assert np.asarray(some[0])[0, 0] == np.asarray(flat(6)[2])[0, 0]


def test_points_are_rows_and_show_as_a_scatter() -> None:
    points = Samples(torch.tensor([[1.0, -1.0], [0.0, 0.5]]), {"seeds": [0, 1]})
    assert points[1].tolist() == [0.0, 0.5]
    shown = np.asarray(sheet(points.tensor))
    dark = np.argwhere(shown < 128)
    middle = (dark[dark[:, 0] > 200].mean(0), dark[dark[:, 0] < 200].mean(0))
    expected = [(319 - round((y + 1.6) / 3.2 * 319), round((x + 1.6) / 3.2 * 319))
                for x, y in points.tensor.tolist()]  # fmt: skip
    assert np.abs(np.array(middle) - expected).max() <= 1
