"""The network of a model that has none: an autoencoder's, which is all codec."""

from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts, Network


class Nothing(Network):
    """No network. A run that trains a codec has it; other models are diffused behind that codec.

    in_channels: of the pictures. Asked for anything, it raises UsageError.
    """

    draws = False
    guide = ""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.spatial_dims = 2
        self.divisor = 1
        self.accepts = Accepts()

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        raise UsageError("this model is an autoencoder: it has a codec and no network")
