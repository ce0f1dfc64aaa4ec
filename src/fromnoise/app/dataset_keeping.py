"""Which drawn pictures are kept: all, those a reader of shapes agrees with, or a classifier."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor

from fromnoise.app.dataset_asking import Asking, ByCaption, ByClass, Wanted
from fromnoise.app.evaluate_samples import subject_of
from fromnoise.app.readers import reader_of
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import SampleRequest
from fromnoise.core.errors import UsageError
from fromnoise.data import scenes, shapes_reader
from fromnoise.data.annotations import Instance, instances, overlap
from fromnoise.data.maps import read_map
from fromnoise.evaluate import FeatureNetwork
from fromnoise.evaluate.detection import OVERLAP
from fromnoise.training.ranks import Ranks


class Keeping(ABC):
    """Decides of each drawn picture."""

    @abstractmethod
    def faults(self, pictures: Tensor, wanted: list[Wanted]) -> list[str | None]:
        """Why each picture (B, C, H, W) is dropped, in a few words; None where it is kept."""


class Everything(Keeping):
    """Drops none."""

    def faults(self, pictures: Tensor, wanted: list[Wanted]) -> list[str | None]:
        del pictures
        return [None] * len(wanted)


class ByClassifier(Keeping):
    """Keeps what a classifier trained on the run's real data reads as the class asked for."""

    def __init__(self, reader: FeatureNetwork) -> None:
        self.reader = reader

    def faults(self, pictures: Tensor, wanted: list[Wanted]) -> list[str | None]:
        read = self.reader.predict(pictures).tolist()
        pairs = zip(read, wanted, strict=True)
        return [None if r == one.label else "read as another class" for r, one in pairs]


class ByReader(Keeping):
    """Keeps what shows its caption, or its map, and nothing else."""

    def faults(self, pictures: Tensor, wanted: list[Wanted]) -> list[str | None]:
        return [_fault(picture, one) for picture, one in zip(pictures, wanted, strict=True)]


def _fault(picture: Tensor, wanted: Wanted) -> str | None:
    if wanted.ids is None:
        shown = shapes_reader.read(picture).covers(wanted.text)
        return None if shown else "does not show its caption"
    return map_fault(instances(wanted.ids.numpy()), instances(read_map(picture).numpy()))


def map_fault(asked: list[Instance], found: list[Instance]) -> str | None:
    """What is wrong with the things found in a picture, of those its map asked for; None if all
    are there, of their kinds, and nothing else is."""
    for thing in asked:
        there = [other for other in found if overlap(thing, other) >= OVERLAP]
        if not there:
            return "a thing is missing"
        if there[0].category != thing.category:
            return "a thing is of another kind"
    return "a thing too many" if len(found) > len(asked) else None


def keeping(source: Asking, request: SampleRequest, ranks: Ranks, reporter: Reporter) -> Keeping:
    """What `--keep` asks for. Raises UsageError where that cannot judge these pictures."""
    if request.keep == "reader":
        if not source.readable:
            raise UsageError(
                "--keep reader reads drawn shapes, and this model draws something else; use "
                "--keep classifier for a model of classes, or all"
            )
        if isinstance(source, ByCaption) and request.prompt is not None:
            scenes.parse(request.prompt)
        return ByReader()
    if request.keep == "classifier":
        if not isinstance(source, ByClass):
            raise UsageError("--keep classifier is for models that are told a class; use all")
        return ByClassifier(_classifier(request, ranks, reporter))
    return Everything()


def _classifier(request: SampleRequest, ranks: Ranks, reporter: Reporter) -> FeatureNetwork:
    """The reader of a run, trained and kept in its folder by the first process."""
    subject = subject_of(Path(request.model or ""))
    with ranks.together():
        if ranks.first:
            reader_of(subject, reporter)
    return reader_of(subject, reporter)
