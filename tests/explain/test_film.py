"""Film strips: from the first step to the last, what x is above what is believed."""

import numpy as np
import pytest
import torch

from fromnoise.core.errors import UsageError
from fromnoise.explain import film
from fromnoise.samplers import Step


def steps(count: int) -> list[Step]:
    """Three flat samples whose x goes from −1 to 1; the belief is half of x."""
    made = []
    for i in range(count):
        x = torch.full((3, 1, 8, 8), -1 + 2 * i / (count - 1))
        x += 0.01 * torch.arange(3).reshape(3, 1, 1, 1)
        made.append(Step(i, count, 1 - i / count, x, x / 2))
    return made


def test_a_film_runs_from_the_first_step_to_the_last() -> None:
    taken = steps(21)
    strip = np.asarray(film(iter(taken), lambda x: x, frames=5, rows=2))
    # 8 pixels eight times enlarged, a gap of 2: the middle of each of 4 × 5 cells.
    cells = strip[2 + 32 :: 66, 2 + 32 :: 66].astype(float) / 127.5 - 1
    assert cells.shape == (4, 5)
    across = np.array([-1, -0.5, 0, 0.5, 1])
    assert np.abs(cells[0] - across).max() < 0.01
    assert np.abs(cells[1] - across / 2).max() < 0.01
    assert np.abs(cells[2] - np.minimum(across + 0.01, 1)).max() < 0.01


def test_a_short_film_shows_each_step_once() -> None:
    assert film(iter(steps(2)), lambda x: x, frames=9).width == 2 * 66 + 2
    with pytest.raises(UsageError, match="at least one step"):
        film(iter([]), lambda x: x)


def test_points_become_scatters_where_they_are() -> None:
    x = torch.tensor([[0.8, 0.8]])
    taken = [Step(i, 3, 0.0, x, -x) for i in range(3)]
    strip = np.asarray(film(iter(taken), lambda x: x))
    assert strip.shape == (400, 600)
    place = round((0.8 + 1.6) / 3.2 * 199)
    assert strip[199 - place, place] < 128 < strip[place, 199 - place]
    below = strip[200:, 200:400]
    assert below[place, 199 - place] < 128 < below[199 - place, place]
