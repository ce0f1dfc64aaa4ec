"""What is where in pictures, in the forms that trainers read: COCO, YOLO and label maps as PNG.

A label map (H, W) is taken apart into instances: the connected pieces of each number but 0. Pixel
i spans from i to i + 1, so the box of an instance is the extent of its pixels, exactly.
References: Lin et al. 2014, "Microsoft COCO", and cocodataset.org/#format-data for the keys; the
text files of Darknet's YOLO (Redmon et al. 2016).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fromnoise.core.errors import FileError, ShapeError, UsageError

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Ids = np.ndarray[Any, np.dtype[Any]]
Corner = tuple[int, int]
Polygon = list[float]
Box = tuple[float, float, float, float]

MOST = 255
"""The largest number that a map of 8 bits can hold."""

_TOUCHING = np.ones((3, 3))


@dataclass(frozen=True)
class Instance:
    """One thing: its class number, from 1, and the pixels (H, W) that are its."""

    category: int
    mask: Mask

    @property
    def area(self) -> int:
        """In pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> Box:
        """(left, top, width, height) in pixels."""
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def overlap(a: Instance, b: Instance) -> float:
    """The pixels two things share, over those that are either's."""
    return float(np.sum(a.mask & b.mask) / np.sum(a.mask | b.mask))


def instances(ids: Ids) -> list[Instance]:
    """The things of a label map (H, W): connected pieces, corners touching, of each number but 0.

    By class, and within it from top to bottom and left to right.
    Raises ShapeError for another shape, UsageError for a number below 0 or above 255.
    """
    from scipy import ndimage

    checked = _checked(ids)
    found: list[Instance] = []
    for number in np.unique(checked[checked > 0]).tolist():
        pieces, count = ndimage.label(checked == number, _TOUCHING)
        found += [Instance(number, pieces == piece) for piece in range(1, count + 1)]
    return found


def as_bytes(ids: Ids) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """A label map as the pixels of an 8-bit PNG; raises as `instances` does."""
    return _checked(ids).astype(np.uint8)


def _checked(ids: Ids) -> Ids:
    if ids.ndim != 2:
        raise ShapeError(f"a label map has shape (H, W), not {ids.shape}")
    if ids.size and (ids.min() < 0 or ids.max() > MOST):
        raise UsageError(
            f"a label map holds numbers from 0 to {MOST}, not {ids.min()}, {ids.max()}"
        )
    return ids


def polygons(mask: Mask) -> list[Polygon]:
    """The outlines of a mask along the edges of its pixels: [x0, y0, x1, y1, …] each.

    An outline goes clockwise as one looks at the picture; that of a hole goes the other way.
    """
    ahead = _edges(mask)
    loops: list[Polygon] = []
    while ahead:
        start = min(ahead)
        corners, at, heading = [start], start, (0, 0)
        while True:
            # Where pieces touch at a corner, turning right keeps to the same piece.
            goes = min(ahead[at], key=lambda to: _turn(heading, (to[0] - at[0], to[1] - at[1])))
            ahead[at].remove(goes)
            if not ahead[at]:
                del ahead[at]
            turned = (goes[0] - at[0], goes[1] - at[1])
            if turned == heading:
                corners[-1] = goes
            else:
                corners.append(goes)
            at, heading = goes, turned
            if at == start:
                break
        loops.append([float(value) for corner in _straight(corners[:-1]) for value in corner])
    return loops


def _edges(mask: Mask) -> dict[Corner, list[Corner]]:
    """Every edge between inside and outside, from corner to corner (x, y), inside on the right."""
    padded = np.pad(mask.astype(np.int8), 1)
    inner = padded[1:-1, 1:-1]
    ahead: dict[Corner, list[Corner]] = {}
    for beside, begin, end in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inner > beside).tolist():
            ahead.setdefault((x + begin[0], y + begin[1]), []).append((x + end[0], y + end[1]))
    return ahead


def _turn(before: Corner, after: Corner) -> int:
    """0 for a turn to the right, 1 straight on, 2 to the left, as y grows downwards."""
    return 1 - (before[0] * after[1] - before[1] * after[0])


def _straight(corners: list[Corner]) -> list[Corner]:
    """Without a corner at the start that lies on a straight line."""
    (ax, ay), (bx, by), (cx, cy) = corners[-1], corners[0], corners[1]
    straight = (bx - ax) * (cy - by) == (by - ay) * (cx - bx)
    return corners[1:] if straight else corners


def signed_area(polygon: Polygon) -> float:
    """The area within an outline, below 0 for that of a hole (the shoelace formula)."""
    x, y = np.array(polygon[0::2]), np.array(polygon[1::2])
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def run_lengths(mask: Mask) -> dict[str, list[int]]:
    """COCO's run lengths, uncompressed: counts of 0 and 1 in turn, column after column."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(ends).tolist()
    return {"counts": [0, *counts] if flat[0] else counts, "size": list(mask.shape)}


def segmentation(mask: Mask) -> list[Polygon] | dict[str, list[int]]:
    """The mask as COCO has it: polygons, or run lengths where it has a hole, which those lack."""
    found = polygons(mask)
    return found if all(signed_area(loop) > 0 for loop in found) else run_lengths(mask)


def described(thing: Instance, names: Sequence[str]) -> dict[str, Any]:
    """A thing as COCO has it, without the numbers of its picture and its own.

    names: of the classes, number 1 first. Raises UsageError for a class without a name.
    """
    _named(thing, names)
    return {
        "category_id": thing.category,
        "bbox": [float(value) for value in thing.box],
        "area": float(thing.area),
        "iscrowd": 0,
        "segmentation": segmentation(thing.mask),
    }


def coco(
    pictures: Iterable[tuple[str, int, int, Sequence[Mapping[str, Any]]]],
    names: Sequence[str],
    info: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of a COCO file of instances; numbers count from 1.

    pictures: (file name, height, width, things as `described`) of each.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, height, width, things in pictures:
        picture = len(images) + 1
        images.append({"id": picture, "file_name": name, "height": height, "width": width})
        for thing in things:
            annotations.append({"id": len(annotations) + 1, "image_id": picture, **thing})
    categories = [
        {"id": number, "name": name, "supercategory": ""} for number, name in enumerate(names, 1)
    ]
    return {
        "info": dict(info or {}),
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def yolo(things: Sequence[Instance], names: Sequence[str], height: int, width: int) -> str:
    """The lines of a YOLO file: class from 0, then the box's centre, width and height as shares.

    Twelve digits, so that a box is found again to 1e-6 pixels in any picture.
    """
    lines = []
    for thing in things:
        _named(thing, names)
        left, top, wide, high = thing.box
        shares = ((left + wide / 2) / width, (top + high / 2) / height, wide / width, high / height)
        lines.append(" ".join([str(thing.category - 1), *(f"{share:.12g}" for share in shares)]))
    return "".join(f"{line}\n" for line in lines)


def read_yolo(text: str, height: int, width: int) -> list[tuple[int, Box]]:
    """(class number from 1, (left, top, width, height) in pixels) of each line of a YOLO file.

    Raises FileError naming a line that is not five numbers in their ranges.
    """
    found: list[tuple[int, Box]] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            category, x, y, wide, high = (float(part) for part in line.split())
        except ValueError:
            raise FileError(f"line {number} is {line!r}, not a class and four shares") from None
        inside = all(0 <= share <= 1 for share in (x, y, wide, high))
        if category != int(category) or category < 0 or not inside:
            raise FileError(f"line {number} is {line!r}; a class from 0, and shares from 0 to 1")
        box = ((x - wide / 2) * width, (y - high / 2) * height, wide * width, high * height)
        found.append((int(category) + 1, box))
    return found


def _named(thing: Instance, names: Sequence[str]) -> None:
    if not 1 <= thing.category <= len(names):
        raise UsageError(
            f"class {thing.category} has no name; there are {len(names)}: {', '.join(names)}"
        )
