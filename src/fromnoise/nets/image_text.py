"""A picture and a text as vectors of one space, where what belongs together is near."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fromnoise.core.errors import UsageError
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts, Network

WARMEST = 100.0
"""The most that a cosine is multiplied by."""

_FIRST = 1 / 0.07


class ImageText(Network):
    """The direction of a picture, (B, D) of length 1: f(x, t); `texts` gives that of a text, g(c).

    e^s·cos(f, g) is how well a text tells of a picture; s is learned and kept below ln 100.

    tower: a network that reads pictures, such as a `Classifier` of D classes, which become the D
    coordinates. words: width of the text's vector, as the text encoder with `pooled` gives it.
    noisy: whether it is trained on noisy pictures and told how noisy; one that is not is always
    told 0. It takes no condition: what is read with it is not told to it.
    Raises UsageError for a tower that draws, or that is to be told something.
    Reference: Radford et al. 2021 (CLIP), section 2.3; of noisy pictures, Nichol et al. 2021
    (GLIDE), section 2.4.
    """

    draws = False
    guide = "clip:{run}:TEXT"

    def __init__(self, tower: Network, words: int = 128, noisy: bool = False) -> None:
        super().__init__()
        if tower.draws or tower.accepts != Accepts():
            raise UsageError(
                f"a {type(tower).__name__} that takes {tower.accepts} is no tower of an image-text "
                "model; use a classifier, with as many classes as its vectors have numbers"
            )
        if words < 1:
            raise UsageError(f"words of {words} numbers; use the width of the text encoder")
        self.tower = tower
        self.words = words
        self.noisy = noisy
        self.in_channels = tower.in_channels
        self.out_channels = tower.out_channels
        self.spatial_dims = tower.spatial_dims
        self.divisor = tower.divisor
        self.accepts = Accepts()
        self.project = nn.Linear(words, tower.out_channels, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST)))

    @property
    def scale(self) -> Tensor:
        """e^s, what a cosine is multiplied by."""
        return self.log_scale.exp()

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        del condition
        told = time if self.noisy else torch.zeros_like(time)
        return _direction(self.tower(x, told))

    def texts(self, vectors: Tensor) -> Tensor:
        """The direction of texts (N, D), from the vectors (N, words) of their encoder."""
        return _direction(self.project(vectors))

    def cool(self) -> None:
        """Bring s back to at most ln 100, after a step has changed it."""
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(WARMEST))


def _direction(x: Tensor) -> Tensor:
    # Lengths of 1 need more digits than bfloat16 has.
    return normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)
