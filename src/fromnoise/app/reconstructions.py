"""Pictures above what an autoencoder makes of them."""

import torch
from PIL import Image

from fromnoise.core.images import grid_image, to_pil
from fromnoise.data import Dataset
from fromnoise.model import Model

_COLUMNS = 10


def sheet(model: Model, dataset: Dataset, count: int) -> Image.Image:
    """So many pictures of a data set in rows of ten, each above what comes back of it.

    Of pictures of many sizes those of one are shown.
    """
    x = dataset.batch(dataset.spread(count)).x
    made = model.reconstruct(x)
    rows = []
    for first in range(0, len(x), _COLUMNS):
        last = first + _COLUMNS
        for part in (x[first:last], made[first:last]):
            # A short row is filled, so that the next one begins at the left.
            rows += [*part, *[torch.ones_like(x[0])] * (_COLUMNS - len(part))]
    return grid_image([to_pil(one) for one in rows], _COLUMNS, max(1, 64 // x.shape[-1]))
