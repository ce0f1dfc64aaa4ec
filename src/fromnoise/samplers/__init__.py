"""Samplers by the names users know."""

from fromnoise.samplers.ancestral import Ancestral, EulerMaruyama, ReverseDiffusion
from fromnoise.samplers.base import Sampler, Step, last, sample
from fromnoise.samplers.coefficients import Rule
from fromnoise.samplers.cold import Cold1, Cold2
from fromnoise.samplers.inversion import DDIMInverse
from fromnoise.samplers.langevin import AnnealedLangevin, Langevin
from fromnoise.samplers.masked import Unmask, UnmaskInOrder
from fromnoise.samplers.multistep import Multistep
from fromnoise.samplers.ode import AdaptiveOde
from fromnoise.samplers.singlestep import SingleStep, Stage
from fromnoise.samplers.table import ALIASES, SAMPLERS, get
from fromnoise.samplers.wrappers import AncestralNoise, Churn, PredictorCorrector, WithoutNoise

__all__ = [
    "ALIASES",
    "SAMPLERS",
    "AdaptiveOde",
    "Ancestral",
    "AncestralNoise",
    "AnnealedLangevin",
    "Churn",
    "Cold1",
    "Cold2",
    "DDIMInverse",
    "EulerMaruyama",
    "Langevin",
    "Multistep",
    "PredictorCorrector",
    "ReverseDiffusion",
    "Rule",
    "Sampler",
    "SingleStep",
    "Stage",
    "Step",
    "Unmask",
    "UnmaskInOrder",
    "WithoutNoise",
    "get",
    "last",
    "sample",
]
