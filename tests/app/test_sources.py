"""Training on data of one's own: by a folder's name, with bad pictures, in many sizes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.app.sources import changing, config_of, onto
from fromnoise.cli.main import run
from fromnoise.core.errors import UsageError
from fromnoise.core.files import write_json
from fromnoise.core.images import read_png_text
from fromnoise.recipes import get, pictures

TINY = {"channels": 8, "style": {"groups": 4, "patch": 2}, "attention": {"at": [2]}}
TRAIN = ["--train.steps", "3", "--train.batch-size", "8", "--train.validate-every", "3"]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """60 pictures, wide and tall, in two classes, one of them broken."""
    random = np.random.Generator(np.random.PCG64(0))
    for i in range(60):
        folder = tmp_path / "pets" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shape = (24, 40, 3) if i % 3 else (40, 24, 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "pets" / "cat" / "broken.png").write_bytes(b"")
    return tmp_path / "pets"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A recipe file with a network that takes no time."""
    recipe = get("photos-ddpm").model_dump(mode="json")
    recipe["net"] = pictures.net() | TINY | {"blocks": 1}
    recipe["train"] |= {"precision": "float32", "sample_every": 0}
    recipe["data"]["size"] = {"kind": "buckets", "side": 16, "divisor": 4, "steps": 2}
    write_json(tmp_path / "small.json", recipe)
    return tmp_path / "small.json"


def test_a_folder_of_many_sizes_from_end_to_end(
    pets: Path, small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    asked = ["train", str(small), "--data", str(pets), "--out", str(out), *TRAIN]
    assert run(asked) == 2
    assert "more than 1.00% of the" in capfd.readouterr().err
    assert not out.exists()
    assert run([*asked, "--max-bad", "0.05"]) == 0
    assert "1 pictures of pets cannot be used and are left out" in capfd.readouterr().err
    config = json.loads((out / "config.json").read_text())["config"]
    assert config["data"]["path"] == str(pets)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows) and np.isfinite(rows[-1]["validation"])
    assert run(["train", "--resume", str(out), "--data", "digits"]) == 2
    assert "leave out --data" in capfd.readouterr().err

    drawn = tmp_path / "drawn"
    wide = ["--width", "20", "--height", "12", "--steps", "2", "--sampler", "ddim"]
    assert run(["sample", str(out), "-n", "1", *wide, "--out", str(drawn)]) == 0
    with Image.open(drawn / "000000.png") as picture:
        assert picture.size == (20, 12)
    assert "Size: 20x12" in read_png_text(drawn / "000000.png")["parameters"]
    again = ["--replay", str(drawn / "000000.png"), "--out", str(drawn)]
    assert run(["sample", str(out), *again]) == 0
    assert "bit for bit" in capfd.readouterr().out
    assert run(["sample", str(out), "-n", "1", "--width", "18", "--out", str(drawn)]) == 2
    assert "size 18 is not a multiple of 4" in capfd.readouterr().err

    few = ["--samples", "50", "--likelihood", "0", "--steps", "2", "--sampler", "ddim"]
    assert run(["evaluate", str(out), *few]) == 0
    figures = json.loads((out / "evaluation.json").read_text())
    assert figures["counts"]["train"] + figures["counts"]["held_out"] == 60


def test_a_network_is_told_the_classes_of_the_new_data(pets: Path) -> None:
    dit = get("glyphs-dit")
    changed, dataset = onto(dit, str(pets), max_bad=0.05)
    assert dataset.shape == (1, 32, 32), "grey, as the network takes it"
    assert changed.net["accepts"]["vector"]["label"] == 2
    assert changed.encoders["label"]["classes"] == 2
    assert dit.net["accepts"]["vector"]["label"] == 62, "the recipe itself is left as it was"
    plain, _ = onto(get("digits"), str(pets / "dog"), max_bad=0.0)
    assert plain.net["accepts"]["vector"] == {} and plain.encoders == {}
    assert plain.data["size"] == 8


def test_changes_of_the_pictures_by_name() -> None:
    digits = get("digits")
    assert changing(digits, None) is digits
    assert changing(digits, "flip, shift").augment == [{"kind": "flip"}, {"kind": "shift"}]
    assert changing(changing(digits, "flip"), "none").augment == []
    with pytest.raises(UsageError, match="did you mean flip"):
        changing(digits, "flop")


def test_what_a_name_means(tmp_path: Path) -> None:
    assert config_of("digits", size=8, mode="L") == {"kind": "digits"}
    assert config_of("shapes", size=48) == {"kind": "shapes", "size": 48}
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 1, 4, 4), np.uint8))
    assert config_of(str(tmp_path / "x.npz"), size=8)["kind"] == "arrays"
    write_json(tmp_path / "points.json", {"kind": "points", "shape": "moons"})
    assert config_of(str(tmp_path / "points.json"))["kind"] == "points"
    with pytest.raises(UsageError, match="known: arrays"):
        config_of("no-such-thing")
    with pytest.raises(UsageError, match="takes 1 channels"):
        onto(get("digits"), str(tmp_path / "points.json"), max_bad=0.0)
