"""The folder of a drawn data set: where everything lies, and how it is gone on with.

dataset.json                    what was asked, how it was drawn, what was counted
train/CLASS/000001.png          pictures by their seed; train/images/ where there are no classes
train/metadata.jsonl            a row for each, as Hugging Face's imagefolder has it
train/labels/000001.txt         YOLO: boxes, beside `images` as its trainers look for them
masks/train/000001.png          label maps, 8 bits
annotations/instances_train.json  COCO
data.yaml                       the classes for YOLO's trainers
.batches/                       what each finished batch held, until all are

A batch is finished once its file is there, which is written last. So a process killed at any moment
leaves whole batches, and the next one draws the others.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from fromnoise.app.dataset_asking import Wanted
from fromnoise.core.atomic import try_writing
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import check_folder, read_json, sweep, write_json, write_text
from fromnoise.core.images import write_png
from fromnoise.data.annotations import as_bytes, coco, described, instances, yolo

FORMAT = 1
CARD = "dataset.json"
FORMATS = ("coco", "yolo", "masks")
COMPLETE, DRAWING = "complete", "drawing"
_BATCHES = ".batches"
_IMAGES = "images"
_PLAIN = re.compile(r"[^\w .+-]")

Row = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """One picture as it is written: what was wanted, and what its PNG carries."""

    wanted: Wanted
    picture: Image.Image
    texts: Mapping[str, str]
    ids: Tensor | None


class DatasetFolder:
    """The folder of one data set. classes and kinds as in `Asking`; formats of `FORMATS`."""

    def __init__(
        self, root: Path, classes: Sequence[str], kinds: Sequence[str], formats: Sequence[str]
    ) -> None:
        self.root, self.kinds, self.formats = root, tuple(kinds), tuple(formats)
        self.places = folder_names(classes) if classes else ()

    def check(self, asked: Mapping[str, Any]) -> str | None:
        """The state of what is there, `COMPLETE` or `DRAWING`; None where nothing is.

        Changes nothing. Raises FileError for a file, and for a folder that holds anything else,
        UsageError for one that was asked for otherwise, DiskError for one that takes no files.
        """
        try_writing(check_folder(self.root))
        card = self.root / CARD
        if card.is_file():
            before = read_json(card)
            then = before.get("asked") if isinstance(before, dict) else None
            if not isinstance(then, dict) or before.get("format") != FORMAT:
                raise FileError(
                    f"{card} is not of a data set this program drew; use another folder"
                )
            _check_same(self.root, then, asked)
            return COMPLETE if before.get("state") == COMPLETE else DRAWING
        if self.root.is_dir() and any(p.name != ".lock" for p in self.root.iterdir()):
            raise FileError(
                f"{self.root} is not empty and holds no {CARD}; give a folder that is new or empty"
            )
        return None

    def begin(self, asked: Mapping[str, Any]) -> bool:
        """Make the folder ready for what was asked; whether it is all there already.

        Raises as `check` does.
        """
        state = self.check(asked)
        if state is None:
            card = {"format": FORMAT, "state": DRAWING, "asked": dict(asked)}
            write_json(self.root / CARD, card)
        else:
            sweep(self.root)
        return state == COMPLETE

    def rows(self, seeds: Sequence[int]) -> list[Row] | None:
        """The rows of a finished batch; None when it is still to be drawn."""
        record = self._record(seeds)
        if not record.is_file():
            return None
        found = read_json(record)
        if not isinstance(found, list) or [row.get("seed") for row in found] != list(seeds):
            raise FileError(f"{record} is damaged; remove it, and its batch is drawn again")
        return found

    def write(self, kept: Sequence[Drawn], rows: Mapping[int, Row]) -> None:
        """A finished batch: its kept pictures, and at last its rows, by seed."""
        for one in kept:
            name = self.name(one.wanted)
            write_png(self.root / "train" / name, one.picture, one.texts)
            rows[one.wanted.seed].update(file_name=name, size=list(one.picture.size))
            if one.ids is not None:
                rows[one.wanted.seed].update(annotations=self._annotated(one))
        write_json(self._record(list(rows)), list(rows.values()))

    def name(self, wanted: Wanted) -> str:
        """The file of a picture, under train/."""
        folder = _IMAGES if wanted.label is None else self.places[wanted.label]
        return f"{folder}/{wanted.seed:06d}.png"

    def finish(self, rows: Sequence[Row], card: Mapping[str, Any]) -> None:
        """The tables of all pictures, and last the card that says the data set is complete."""
        kept = [row for row in rows if row["dropped"] is None]
        lines = [json.dumps(_metadata(row), ensure_ascii=False) for row in kept]
        write_text(self.root / "train" / "metadata.jsonl", "".join(f"{line}\n" for line in lines))
        if "coco" in self.formats:
            pictures = [
                (row["file_name"], row["size"][1], row["size"][0], row["annotations"])
                for row in kept
            ]
            path = self.root / "annotations" / "instances_train.json"
            info = {"description": "drawn by fromnoise", "version": str(FORMAT)}
            write_json(path, coco(pictures, self.kinds, info))
        if "yolo" in self.formats:
            write_text(self.root / "data.yaml", _yaml(self.kinds))
        write_json(self.root / CARD, {"format": FORMAT, "state": COMPLETE, **card})
        self.tidy()

    def tidy(self) -> None:
        """Remove what is only needed while drawing."""
        shutil.rmtree(self.root / _BATCHES, ignore_errors=True)

    def _annotated(self, one: Drawn) -> list[dict[str, Any]]:
        assert one.ids is not None
        ids, name = one.ids.numpy(), f"{one.wanted.seed:06d}"
        things = instances(ids)
        if "masks" in self.formats:
            write_png(self.root / "masks" / "train" / f"{name}.png", as_bytes(ids))
        if "yolo" in self.formats:
            text = yolo(things, self.kinds, *ids.shape)
            write_text(self.root / "train" / "labels" / f"{name}.txt", text)
        return [described(thing, self.kinds) for thing in things] if "coco" in self.formats else []

    def _record(self, seeds: Sequence[int]) -> Path:
        return self.root / _BATCHES / f"{seeds[0]:08d}.json"


def folder_names(classes: Sequence[str]) -> tuple[str, ...]:
    """A folder for each class: its name, without what a file name cannot hold; all different."""
    names: list[str] = []
    for number, name in enumerate(classes):
        plain = _PLAIN.sub("_", name).strip(" .")[:80] or "_"
        taken = {other.casefold() for other in names}
        names.append(f"{plain}-{number}" if plain.casefold() in taken else plain)
    return tuple(names)


def formats_of(text: str | None, kinds: Sequence[str]) -> tuple[str, ...]:
    """`coco,yolo` as formats; all of them by default where pictures come with maps."""
    if text is None:
        return FORMATS if kinds else ()
    names = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [name for name in names if name not in FORMATS]
    if wrong or not names:
        raise UsageError(f"--formats {text!r}: known are {', '.join(FORMATS)}, with commas")
    if not kinds:
        raise UsageError(
            "this model's pictures come without masks or boxes; leave out --formats (masks come "
            "from label maps that a model is told, or from scenes of shapes that can be read)"
        )
    return tuple(name for name in FORMATS if name in names)


def _check_same(root: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in {**then, **now}:
        if then.get(key) != now.get(key):
            raise UsageError(
                f"{root} was begun with {key.replace('_', ' ')} {then.get(key)!r}, not "
                f"{now.get(key)!r}; ask for the same to go on, or give another folder"
            )


def _metadata(row: Row) -> Row:
    keys = ("file_name", "label", "class", "text", "seed", "guidance")
    return {key: row[key] for key in keys if row.get(key) is not None}


def _yaml(names: Sequence[str]) -> str:
    listed = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names))
    return (
        "# Put real pictures in the place of `val`: drawn ones do not show how well a model does.\n"
        f"train: train/images\nval: train/images\nnames:\n{listed}"
    )
