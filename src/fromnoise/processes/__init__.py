"""A process says how data is corrupted: Gaussian noise, blur and noise, any degradation, masks.

`corrupt` goes from data to time t, `move` goes from any time to any other given a belief about
x0, and `prior` draws the start of sampling. What holds for noise in one basis holds for each
frequency of another: `analyse` and `synthesise` go to the basis in which x_t = α·x0 + σ·ε holds
coefficient by coefficient, and back.
"""

from fromnoise.processes.absorbing import Absorbing, hidden, one_hot
from fromnoise.processes.base import PROCESSES, Level, Process
from fromnoise.processes.cold import Cold
from fromnoise.processes.gaussian import Gaussian, Spectral, as_process, typed

__all__ = [
    "PROCESSES",
    "Absorbing",
    "Cold",
    "Gaussian",
    "Level",
    "Process",
    "Spectral",
    "as_process",
    "hidden",
    "one_hot",
    "typed",
]
