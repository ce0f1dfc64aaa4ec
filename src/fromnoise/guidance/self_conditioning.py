"""A network that is shown its own last belief, while sampling."""

from torch import Tensor

from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import SELF


class SelfConditioning(Denoiser):
    """x̂0 = D(x_t, t, condition, x̂0 of the evaluation before); zeros at the first.

    Chen et al. 2023, "Analog Bits", algorithm 2. The memory lives in the bound denoiser, so two
    runs at once do not mix; unbound, or with another number of samples, there is no belief to
    show. The network must take channels "self". Wrap it before guidance, so that each of the two
    beliefs guidance asks for is shown its own.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return self.denoiser(x, t, condition)

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        del grid
        return _Remembering(self.denoiser, condition)


class _Remembering(Bound):
    def __init__(self, denoiser: Denoiser, condition: Condition | None) -> None:
        self.process = denoiser.process
        self._denoiser = denoiser
        self._told = Condition() if condition is None else condition
        self._belief: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        told = self._told
        if self._belief is not None and self._belief.shape == x.shape:
            channels = {**told.channels, SELF: self._belief}
            told = Condition(channels, told.vector, told.tokens, told.null)
        prediction = self._denoiser(x, t, told)
        # Gradients of one step do not reach into the step before.
        self._belief = prediction.x0.detach()
        return prediction
