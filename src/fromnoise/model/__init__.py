"""A model as a user holds it: sample, stream, save, load."""

from fromnoise.model.files import build, describe, load_model, save_model
from fromnoise.model.hires import Hires
from fromnoise.model.model import Card, Defaults, Model
from fromnoise.model.previews import Previews
from fromnoise.model.samples import Samples, scatter, sheet
from fromnoise.model.stream import Stream, live

__all__ = [
    "Card",
    "Defaults",
    "Hires",
    "Model",
    "Previews",
    "Samples",
    "Stream",
    "build",
    "describe",
    "live",
    "load_model",
    "save_model",
    "scatter",
    "sheet",
]
