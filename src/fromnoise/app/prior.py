"""What one model is told, drawn by another: a prompt to a vector, and the vector to a picture."""

from typing import Any

from fromnoise.app.requests import Sampling
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import seeds_for
from fromnoise.data.embedded import EMBEDDING
from fromnoise.guidance.named import Load
from fromnoise.model import Model

_APART = 1 << 61
"""Seeds with this bit turned: the vector's noise is not the beginning of the picture's."""


def drawn(model: Model, request: Sampling, label: Any, opened: Load) -> dict[str, Any]:
    """The inputs of `model` that `--prior` draws from the prompt or the label, as plain numbers.

    A picture's recipe so holds its vector, and is drawn again without the prior.
    Raises UsageError where the model is not told such vectors, or the prior draws none.
    """
    prior = opened(str(request.prior))
    told = model.denoiser.net.accepts.vector
    if EMBEDDING not in told:
        takes = ", ".join(model.conditioning.names) or "nothing"
        raise UsageError(
            f"--prior draws an {EMBEDDING} for a model that is told one, and {model.card.name} "
            f"takes {takes}"
        )
    if prior.shape != (told[EMBEDDING],):
        raise UsageError(
            f"{request.prior} draws samples of shape {prior.shape}, and {model.card.name} is told "
            f"vectors of {told[EMBEDDING]} numbers; give a run of the recipe shapes-prior, say"
        )
    seeds = [seed ^ _APART for seed in seeds_for(request.seed, request.count)]
    made = prior.sample(request.count, prompt=request.prompt, label=label, seed=seeds)
    return {EMBEDDING: made.tensor.tolist()}
