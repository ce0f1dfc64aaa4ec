"""Captions are found where Hugging Face and kohya keep them, and each belongs to its picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fromnoise import data
from fromnoise.core.errors import FileError
from fromnoise.data.captions import collect


def _picture(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 10), (level, level, level)).save(path)
    return path


def _captions(folder: Path, **options: Any) -> dict[float, str]:
    """The grey level of each picture and its caption: which goes with which is visible."""
    made = data.load({"kind": "folder", "path": str(folder), "size": 4, **options})
    batch = made.batch(range(len(made)))
    assert batch.caption is not None
    levels = ((batch.x[:, 0, 0, 0] + 1) * 127.5).round().tolist()
    return dict(zip(levels, batch.caption, strict=True))


def test_a_table_of_json_lines(tmp_path: Path) -> None:
    for level in (10, 20, 30):
        _picture(tmp_path / "train" / f"{level}.png", level)
    rows = [
        {"file_name": "30.png", "text": "the  third\none", "extra": 5},
        {"file_name": "10.png", "text": "the first"},
        {"file_name": "20.png"},
    ]
    table = tmp_path / "train" / "metadata.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert _captions(tmp_path) == {10: "the first", 20: "", 30: "the third one"}
    # With a table, folders are no classes; asked for, they are.
    assert data.Folder(str(tmp_path), 4).classes == ()
    assert data.Folder(str(tmp_path), 4, layout="classes").classes == ("train",)


def test_a_table_at_the_root_names_pictures_below_in_either_kind_of_path(tmp_path: Path) -> None:
    for level in (10, 20):
        _picture(tmp_path / "a b" / f"{level}.png", level)
    text = 'file_name,prompt\r\na b/10.png,"one, two"\r\na b\\20.png,three\r\n'
    (tmp_path / "metadata.csv").write_bytes(text.encode("utf-8-sig"))
    assert _captions(tmp_path, caption="prompt") == {10: "one, two", 20: "three"}
    with pytest.raises(FileError, match=r"no column 'text'; it has file_name, prompt"):
        data.Folder(str(tmp_path), 4)


def test_texts_beside_the_pictures(tmp_path: Path) -> None:
    for level, suffix in ((10, ".txt"), (20, ".caption"), (30, "")):
        picture = _picture(tmp_path / f"{level}.x.png", level)
        if suffix:
            picture.with_suffix(suffix).write_text(f"  grey\n{level} ü ")
    assert _captions(tmp_path) == {10: "grey 10 ü", 20: "grey 20 ü", 30: ""}
    (tmp_path / "10.x.caption").write_text("the other")
    assert _captions(tmp_path)[10] == "grey 10 ü"
    for level in (10, 20):
        for suffix in (".x.txt", ".x.caption"):
            (tmp_path / f"{level}{suffix}").unlink(missing_ok=True)
    plain = data.Folder(str(tmp_path), 4)
    assert plain.batch([0]).caption is None


def test_a_table_comes_before_a_text_beside(tmp_path: Path) -> None:
    _picture(tmp_path / "10.png", 10)
    _picture(tmp_path / "20.png", 20)
    (tmp_path / "10.txt").write_text("beside")
    (tmp_path / "20.txt").write_text("beside")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "10.png", "text": "told"}')
    assert _captions(tmp_path) == {10: "told", 20: "beside"}


def test_captions_survive_a_picture_that_is_left_out_and_a_split(tmp_path: Path) -> None:
    for i in range(20):
        _picture(tmp_path / f"{i:02d}.png", 10 * i).with_suffix(".txt").write_text(str(10 * i))
    (tmp_path / "03.png").write_bytes(b"")
    told = _captions(tmp_path, max_bad=0.1)
    assert len(told) == 19 and all(str(int(level)) == text for level, text in told.items())
    made = data.Folder(str(tmp_path), 4, max_bad=0.1)
    for part in made.split(0.3):
        batch = part.batch(range(len(part)))
        levels = ((batch.x[:, 0, 0, 0] + 1) * 127.5).round().tolist()
        assert batch.caption == [str(int(level)) for level in levels]


def test_kohya_folders_repeat_and_name_the_token(tmp_path: Path) -> None:
    _picture(tmp_path / "3_sks dog" / "a.png", 10)
    _picture(tmp_path / "3_sks dog" / "b.png", 20).with_suffix(".caption").write_text("sks asleep")
    _picture(tmp_path / "1_dog" / "c.png", 30)
    made = data.Folder(str(tmp_path), 4, layout="kohya")
    assert len(made) == 7 and made.classes == () and made.labels is None
    batch = made.batch(range(7))
    levels = ((batch.x[:, 0, 0, 0] + 1) * 127.5).round().tolist()
    assert levels == [30, 10, 10, 10, 20, 20, 20]
    assert batch.caption == ["dog", *["sks dog"] * 3, *["sks asleep"] * 3]
    # The repeats of a picture are on one side of a split only.
    for seed in range(8):
        parts = made.split(0.4, seed)
        sides = [{tuple(x.flatten().tolist()) for x in p.batch(range(len(p))).x} for p in parts]
        assert not sides[0] & sides[1]


@pytest.mark.parametrize("name", ["sks dog", "0_sks dog", "x_3", "3_", "99999_dog"])
def test_other_folder_names_are_refused_by_the_kohya_layout(tmp_path: Path, name: str) -> None:
    _picture(tmp_path / name / "a.png")
    with pytest.raises(FileError, match=r"a\.png is not in a folder named <repeats>_"):
        data.Folder(str(tmp_path), 4, layout="kohya")
    assert data.Folder(str(tmp_path), 4).classes == (name,)


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        (
            "metadata.jsonl",
            b'{"file_name": "a.png", "text": "x"}\n{',
            "row 2, line 1: not valid JSON",
        ),
        ("metadata.jsonl", b'{"text": "x"}', "line 1: no file_name"),
        ("metadata.jsonl", b'{"file_name": 3, "text": "x"}', "line 1: no file_name"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": 3}', "text is 3, not a text"),
        ("metadata.jsonl", b'["a.png"]', "line 1: not a JSON object"),
        ("metadata.jsonl", b'{"file_name": "a.png", "caption": "x"}', "no column 'text'"),
        ("metadata.jsonl", b'{"file_name":"a.png","text":"x"}\n' * 2, "line 2 names 'a.png' again"),
        ("metadata.jsonl", b'{"file_name": "a.png", "text": "\xff"}', "not UTF-8"),
        ("metadata.csv", b"file_name,text\na.png\n", "line 2: not as many cells"),
        ("metadata.csv", b"file_name,text\na.png,b,c\n", "line 2: not as many cells"),
        ("metadata.csv", b"file_name,text\na.png,\xff\n", "not UTF-8"),
        ("metadata.csv", b'file_name,text\na.png,"open', "unexpected end of data"),
        ("metadata.csv", b"name,text\na.png,b\n", "line 2: no file_name"),
        ("a.txt", b"\xff\xfe", "a.txt is not UTF-8"),
        ("a.txt", b"x" * 70_000, "larger than 65536 bytes"),
    ],
)
def test_captions_that_cannot_be_understood_are_named(
    tmp_path: Path, table: str, content: bytes, message: str
) -> None:
    _picture(tmp_path / "a.png")
    data.Folder(str(tmp_path), 4)
    (tmp_path / table).write_bytes(content)
    with pytest.raises(FileError, match=message):
        data.Folder(str(tmp_path), 4)


def test_two_tables_in_one_folder_are_refused(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}')
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\n")
    with pytest.raises(FileError, match="holds both"):
        data.Folder(str(tmp_path), 4)


@pytest.mark.parametrize("name", ["../out.png", "/etc/passwd", "none.png", "a.png/..", "C:\\x.png"])
def test_a_table_opens_nothing_by_naming_it(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    _picture(folder / "a.png")
    _picture(tmp_path / "out.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "x"}))
    made = data.Folder(str(folder), 4)
    assert len(made) == 1 and made.batch([0]).caption is None
    found = collect(folder, [folder / "a.png"])
    assert len(found.lost) == 1 and "line 1" in found.lost[0] and not found.texts
    assert np.array_equal(made.batch([0]).index, [0])
