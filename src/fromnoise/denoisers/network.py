"""A network read through a parameterization."""

from torch import Tensor, nn

from fromnoise.core.errors import ShapeError
from fromnoise.core.tensors import expand
from fromnoise.denoisers.base import Bound, Denoiser, Prediction
from fromnoise.layers.attention import during
from fromnoise.layers.condition import Condition
from fromnoise.layers.recall import Recall, recalling
from fromnoise.nets.base import Network
from fromnoise.parameterizations import Parameterization
from fromnoise.processes import Process, as_process
from fromnoise.schedules import Schedule


class NetworkDenoiser(Denoiser, nn.Module):
    """D(x, t) = skip·x + out·F(in·x, time) with F a network.

    With `learned_variance` the network's second half of channels v in [−1, 1] is read as the
    fraction (v + 1)/2 between the variances β̃ and β (Nichol & Dhariwal 2021, eq. 15).
    """

    def __init__(
        self,
        net: Network,
        process: Process | Schedule,
        parameterization: Parameterization,
        learned_variance: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.net = net
        self.process = as_process(process)
        self.parameterization = parameterization
        self.learned_variance = learned_variance

    def output(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """The raw output F(in·x, time) at t (B,): what a loss compares with its target."""
        scales = self.process.reference(t)
        inside = self.parameterization.coefficients(scales).inside
        told = self.parameterization.time(t, scales)
        with during(t):
            output: Tensor = self.net(expand(inside, x) * x, told.to(x.dtype), condition)
        return output

    def read(self, output: Tensor, x: Tensor, t: Tensor) -> Prediction:
        """Read a raw output as a belief about x0."""
        fraction = None
        if self.learned_variance:
            needed, given = 2 * x.shape[1], output.shape[1]
            if given != needed:
                raise ShapeError(f"learned variance needs {needed} output channels, got {given}")
            output, raw = output.chunk(2, dim=1)
            fraction = (raw + 1.0) / 2.0
        process = self.process
        scales = process.reading(t, x)
        x0 = self.parameterization.read(process.analyse(output), process.analyse(x), scales)
        return Prediction(process.synthesise(x0), x, t, process, var_fraction=fraction)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return self.read(self.output(x, t, condition), x, t)

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        del grid
        return _Remembering(self, condition)


class _Remembering(Bound):
    """A run in which keys and values of its tokens are made once: they are the same at every t."""

    def __init__(self, denoiser: NetworkDenoiser, condition: Condition | None) -> None:
        self.process = denoiser.process
        self._denoiser = denoiser
        self._condition = condition
        self._memory = Recall()

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        with recalling(self._memory):
            return self._denoiser(x, t, self._condition)
