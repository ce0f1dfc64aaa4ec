"""Captions beside pictures: a table for a folder, or a text file for each.

Hugging Face's imagefolder keeps them in `metadata.jsonl` or `metadata.csv`, whose rows name a
picture with `file_name`; kohya's scripts keep them in `.txt` or `.caption` files of the same name.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fromnoise.core import strictjson
from fromnoise.core.errors import FileError
from fromnoise.core.tensorheader import unreadable

TABLES = ("metadata.jsonl", "metadata.csv")
BESIDE = (".txt", ".caption")
MAX_BYTES = 2**28
MAX_TEXT = 2**16


@dataclass(frozen=True)
class Captions:
    """The caption of each picture that has one, and what was wrong with the tables.

    tabled: whether there is a table. lost: rows of a table that name no picture, by file and line.
    """

    texts: Mapping[Path, str]
    tabled: bool
    lost: tuple[str, ...]


def collect(root: Path, pictures: Iterable[Path], column: str = "text") -> Captions:
    """The captions of pictures under a folder. A table comes before files beside.

    Nothing is opened because a table names it: its names are only looked up among the pictures.
    column: of the table that holds the captions.
    Raises FileError, naming the line, for a table or text that cannot be read, a picture named
    twice, or a table without the column.
    """
    found = list(pictures)
    texts: dict[Path, str] = {}
    lost: list[str] = []
    tables = [table for folder in _folders(root, found) for table in _tables(folder)]
    known = {Path(picture): picture for picture in found}
    told: dict[Path, str] = {}
    for table in tables:
        for line, name, text in _rows(table, column):
            place = f"{table}, line {line}"
            picture = known.get(_within(table.parent, name))
            if picture is None:
                lost.append(f"{place} names {name!r}, which is not among the pictures")
                continue
            if picture in told:
                raise FileError(f"{place} names {name!r} again ({told[picture]}); keep one")
            told[picture] = place
            texts[picture] = text
    for picture in found:
        if picture not in texts:
            near = beside(picture)
            if near is not None:
                texts[picture] = near
    return Captions(texts, bool(tables), tuple(lost))


def beside(picture: Path) -> str | None:
    """The text of the .txt or else .caption file of the same name; None without."""
    for suffix in BESIDE:
        path = picture.with_suffix(suffix)
        if path.is_file():
            return clean(_content(path, MAX_TEXT), str(path))
    return None


def clean(data: bytes, name: str) -> str:
    """A caption from the bytes of a text file: one line, single spaces."""
    try:
        return " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        raise FileError(f"{name} is not UTF-8 text; save it as UTF-8") from None


def _folders(root: Path, pictures: list[Path]) -> list[Path]:
    """Every folder from the root down to the pictures."""
    folders = {root}
    for picture in pictures:
        for parent in picture.parents:
            if parent in folders:
                break
            folders.add(parent)
    return sorted(folder for folder in folders if folder.is_relative_to(root))


def _tables(folder: Path) -> list[Path]:
    tables = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise FileError(f"{folder} holds both {' and '.join(TABLES)}; keep one of them")
    return tables


def _within(folder: Path, name: str) -> Path:
    """The path a table means; separators of other systems count."""
    return folder.joinpath(*name.replace("\\", "/").split("/"))


def _rows(table: Path, column: str) -> Iterator[tuple[int, str, str]]:
    """(line, file name, caption) of every row that has a caption."""
    data = _content(table, MAX_BYTES)
    rows = _lines_of_json(data, table) if table.suffix == ".jsonl" else _lines_of_csv(data, table)
    seen = False
    columns: list[str] = []
    for line, row in rows:
        name, text = row.get("file_name"), row.get(column)
        if not isinstance(name, str) or not name:
            raise FileError(f"{table}, line {line}: no file_name that names a picture")
        columns = columns or [str(key) for key in row]
        seen = seen or column in row
        if text is not None and not isinstance(text, str):
            raise FileError(f"{table}, line {line}: {column} is {text!r}, not a text")
        if text is not None:
            yield line, name, " ".join(text.split())
    if columns and not seen:
        raise FileError(
            f"{table} has no column {column!r}; it has {', '.join(columns)}. Name the one that "
            "holds the captions with caption"
        )


def _lines_of_json(data: bytes, table: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            row = strictjson.loads(line, f"{table}, row {number}")
            if not isinstance(row, dict):
                raise FileError(f"{table}, line {number}: not a JSON object")
            yield number, row


def _lines_of_csv(data: bytes, table: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(f"{table} is not UTF-8 text; save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise FileError(f"{table}, line {reader.line_num}: not as many cells as columns")
            yield reader.line_num, row
    except csv.Error as error:
        raise FileError(f"{table}, line {reader.line_num}: {error}") from None


def _content(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) > most:
        raise FileError(f"{path} is larger than {most} bytes, the most that is read")
    return data
