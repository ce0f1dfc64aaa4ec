"""Training on data of one's own: by a folder's name, with bad pictures, in many sizes."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.app.sources import changing, config_of, onto
from fromnoise.app.train import augmentation, build
from fromnoise.cli.main import run
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import write_json
from fromnoise.core.images import read_png_text
from fromnoise.interop.loading import load
from fromnoise.nets import build as build_network
from fromnoise.recipes import RECIPES, get, pictures
from fromnoise.training.draws import Draws
from fromnoise.training.objectives import objective_of

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


@pytest.mark.slow
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


def test_a_class_of_the_new_data_is_asked_for_by_its_name(pets: Path) -> None:
    recipe, dataset = onto(get("glyphs-dit"), str(pets), max_bad=0.05)
    model = build(recipe, dataset)
    cat, first = (model.condition(1, label=label) for label in ("cat", 0))
    assert cat is not None and first is not None
    assert torch.equal(cat.vector["label"], first.vector["label"])


def test_a_network_is_told_the_classes_of_the_new_data(pets: Path) -> None:
    dit = get("glyphs-dit")
    changed, dataset = onto(dit, str(pets), max_bad=0.05)
    size = dit.data["size"]
    assert dataset.shape == (1, size, size), "grey, as the network takes it"
    assert changed.net["accepts"]["vector"]["label"] == 2
    assert changed.encoders["label"]["classes"] == 2
    known = dit.encoders["label"]["classes"]
    assert dit.net["accepts"]["vector"]["label"] == known > 2, "the recipe is left as it was"
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
    with pytest.raises(UsageError, match="takes pictures"):
        onto(get("digits"), str(tmp_path / "points.json"), max_bad=0.0)


@pytest.mark.parametrize("name", ["no-such-thing", "arrays", "folder", "hub", "shards", "split"])
def test_only_what_needs_no_arguments_is_known_by_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error:
        config_of(name)
    known = str(error.value).partition("known: ")[2].split(", ")
    assert known == ["digits", "emoji", "glyphs", "maps", "photos", "points", "shapes"]
    for kind in known:
        assert config_of(kind, size=8)["kind"] == kind


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few grey pictures in two classes."""
    folder = tmp_path_factory.mktemp("data") / "scans"
    for i in range(4):
        place = folder / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 40), 60 * i).save(place / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def captioned(scans: Path) -> Path:
    """The same with captions, which take the place of classes."""
    folder = scans.with_name("captioned")
    shutil.copytree(scans, folder)
    rows = ["file_name,text", *(f"{'ab'[i % 2]}/{i}.png,grey {i}" for i in range(4))]
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_brought_onto_pictures_or_says_why_not(
    name: str, scans: Path, captioned: Path
) -> None:
    recipe = get(name)
    scans = captioned if "prompt" in recipe.encoders else scans
    if recipe.data["kind"] == "embedded" and recipe.net["kind"] == "unet":
        with pytest.raises(FileError, match="fromnoise data embed"):
            onto(recipe, str(scans), max_bad=0.0)
        return
    net = build_network(recipe.net, device="meta")
    if not net.spatial_dims:
        says = f"is pictures, and {name} is for points of {net.in_channels} numbers"
        with pytest.raises(UsageError, match=says):
            onto(recipe, str(scans), max_bad=0.0)
        return
    changed, dataset = onto(recipe, str(scans), max_bad=0.0)
    assert changed.net["kind"] == recipe.net["kind"] and len(dataset) == 4
    made = build(changed, dataset)
    assert made.shape == dataset.shape
    told = changed.encoders.get("label", {}).get("classes")
    assert told == (2 if "label" in recipe.encoders else None)
    unknown = set(recipe.encoders) - {"label", "prompt", "augment"}
    objective = objective_of(
        changed.objective, made.denoiser, made.conditioning, dataset.levels, made.codec
    )
    refused = pytest.raises(UsageError, match="this data does not know")
    with torch.no_grad(), refused if unknown else nullcontext():
        list(objective.eval().phases(dataset.batch([0, 1]), Draws.of_step(0, 0, range(2), 2)))


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("digits-vae", (4, 1, 16, 16), r"takes pictures of \(8, 8\) only"),
        ("digits-gan", (4, 3, 8, 8), "takes 1 channels"),
        ("digits-hvae", (4, 2), "takes pictures"),
        ("points-ddpm", (4, 3), "takes points of 2 numbers"),
        ("points-ddpm", (4, 1, 8, 8), "takes points of 2 numbers"),
    ],
)
def test_arrays_of_another_shape_are_refused(
    name: str, shape: tuple[int, ...], says: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with pytest.raises(UsageError, match=says):
        onto(get(name), str(tmp_path / "x.npy"), max_bad=0.0)


def test_points_of_ones_own_fit_a_recipe_for_points(tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.linspace(-1, 0.9, 8, dtype=np.float32).reshape(4, 2))
    changed, dataset = onto(get("points-edm"), str(tmp_path / "mine.npy"), max_bad=0.0)
    assert dataset.shape == (2,) and changed.data["kind"] == "arrays"


def test_a_size_that_does_not_do_is_said_to_be_the_recipes() -> None:
    with pytest.raises(UsageError, match="the size comes from the recipe: digits has 8"):
        onto(get("digits"), "shapes", max_bad=0.0)


def test_a_network_is_told_of_geometric_changes_and_all_that_stand_with_it() -> None:
    digits = get("digits")
    both = changing(digits, "flip,geometric")
    assert both.encoders["augment"] == {"kind": "augment", "width": 8}
    assert both.net["accepts"]["vector"] == {"label": 10, "augment": 8}
    made = augmentation(both)
    assert made is not None and made.width == 8
    assert "augment" not in changing(digits, "flip,shift,crop").encoders
    assert changing(digits, "flip").net == digits.net
    told = get("digits-edm-augment")
    plain = changing(told, "none")
    assert (plain.net, plain.encoders) == (digits.net, digits.encoders)
    assert changing(told, "geometric").net == told.net
    for name in ("glyphs-dit", "digits-gan"):
        with pytest.raises(UsageError, match="told of classes only"):
            changing(get(name), "geometric")
        assert changing(get(name), "flip").augment == [{"kind": "flip"}]
    with pytest.raises(UsageError) as error:
        changing(digits, "both")
    assert str(error.value).endswith("Known: crop, flip, geometric, shift")


def test_a_network_told_from_the_command_line_trains_and_draws(tmp_path: Path, scans: Path) -> None:
    recipe = get("digits").model_dump(mode="json")
    recipe["net"] |= {"channels": 8, "style": {"groups": 4}, "attention": {"at": []}}
    recipe["train"] |= {"sample_every": 0}
    write_json(tmp_path / "small.json", recipe)
    asked = ["train", str(tmp_path / "small.json"), "--augment", "geometric", *TRAIN]
    out = tmp_path / "run"
    assert run([*asked, "--out", str(out)]) == 0
    model = load(out)
    assert model.conditioning.names == ("label", "augment")
    assert model.denoiser.net.accepts.vector == {"label": 10, "augment": 7}
    assert len(model.sample(2, label=[0, 1], steps=2)) == 2
    assert run(["train", "--resume", str(out), "--train.steps", "3"]) == 0
    assert run([*asked, "--out", str(out)]) == 0, "the same command goes on"


@pytest.mark.parametrize("change", ["flip", "shift", "crop", "geometric"])
def test_points_have_no_sides_to_change(
    change: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(["train", "points-ddpm", "--augment", change, "--out", str(out), *TRAIN]) == 2
    assert "only pictures (C, H, W) can be augmented" in capfd.readouterr().err
    assert not out.exists()
