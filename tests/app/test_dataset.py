"""A drawn data set is whole, labelled, the same however it was interrupted, and read by others."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model.tiny import tiny
from PIL import Image
from training.group import Group

from fromnoise import codecs, data, encoders, nets, parameterizations, processes, schedules
from fromnoise.app import dataset as drawing
from fromnoise.app import opening, provenance
from fromnoise.app.dataset import as_dataset
from fromnoise.app.dataset_asking import evened
from fromnoise.app.dataset_folder import DatasetFolder, folder_names
from fromnoise.app.dataset_keeping import map_fault
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import SampleRequest
from fromnoise.app.sample import again, sample
from fromnoise.core.errors import DiskError, FileError, FromNoiseError, UsageError
from fromnoise.core.files import write_json
from fromnoise.data.annotations import Instance, instances, read_yolo
from fromnoise.data.maps import MAP, NAMES, Maps
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.model import Card, Defaults, Model, Samples, Stream
from fromnoise.recipes import get

COUNT = 10


def asked(model: Path, out: Path, **more: Any) -> SampleRequest:
    told = {"count": COUNT, "steps": 2, "batch_size": 4, **more}
    return SampleRequest(model=str(model), as_dataset=str(out), **told)


def draw(model: Path, out: Path, **more: Any) -> list[str]:
    watcher = Silent()
    assert sample(asked(model, out, **more), watcher) == 0
    return watcher.lines


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def card(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "dataset.json").read_text())
    return found


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny().save(folder)
    return folder


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a model, with random weights, that draws 32×32 pictures to label maps."""
    recipe = get("maps-to-pictures")
    folder = tmp_path_factory.mktemp("runs") / "maps"
    torch.manual_seed(0)
    net = nets.build({**recipe.net, "channels": 8, "style": {"groups": 4, "patch": 2}})
    denoiser = NetworkDenoiser(net, processes.Gaussian(schedules.cosine()), parameterizations.V())
    told = encoders.Conditioning({MAP: encoders.LabelMap(NAMES)})
    model = Model(
        denoiser, (3, 32, 32), codecs.Identity(), told, Defaults(steps=2), Card("maps", levels=256)
    )
    model.save(folder / "model")
    write_json(folder / "config.json", {"format": 1, "config": recipe.model_dump(mode="json")})
    return folder


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch, maps: Path) -> None:
    """A run has its model in its checkpoints; this one, which was never trained, beside them."""
    load = opening.load

    def loaded(source: str) -> Model:
        from fromnoise.model.files import load_model

        return load_model(maps / "model") if source == str(maps) else load(source)

    monkeypatch.setattr(opening, "load", loaded)


def test_classes_are_folders_that_our_own_reader_and_tables_agree_on(
    classes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    draw(classes, out)
    read = data.load(
        {"kind": "folder", "path": str(out / "train"), "size": 8, "mode": "L", "layout": "classes"}
    )
    assert read.classes == ("0", "1", "2")
    assert Counter(read.labels.tolist()) == {0: 4, 1: 3, 2: 3}
    rows = [
        json.loads(line) for line in (out / "train" / "metadata.jsonl").read_text().splitlines()
    ]
    assert [row["seed"] for row in rows] == list(range(COUNT))
    for row in rows:
        assert next(iter(row)) == "file_name"
        assert (out / "train" / row["file_name"]).is_file()
        assert row["file_name"] == f"{row['class']}/{row['seed']:06d}.png"
        assert row["label"] == int(row["class"]) == row["seed"] % 3 and row["text"] == row["class"]
    captioned = data.load({"kind": "folder", "path": str(out / "train"), "size": 8, "mode": "L"})
    assert captioned.captions(np.arange(COUNT)) == [
        row["text"] for row in sorted(rows, key=lambda row: row["file_name"])
    ]
    told = card(out)
    assert told["state"] == "complete" and told["counts"]["by_class"] == {"0": 4, "1": 3, "2": 3}
    assert told["model"]["fingerprint"] and told["sampling"]["steps"] == 2
    assert not (out / ".batches").exists()


def test_a_picture_of_a_set_is_the_one_that_sampling_draws(classes: Path, tmp_path: Path) -> None:
    from fromnoise import load

    draw(classes, tmp_path / "set", seed=5)
    alone = load(str(classes)).sample(1, label=1, steps=2, seed=6, batch_size=4)
    there = Image.open(tmp_path / "set" / "train" / "1" / "000006.png")
    assert np.array_equal(np.asarray(alone[0]), np.asarray(there))


def test_one_killed_after_any_batch_goes_on_to_the_same_set(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(classes, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    write, drawn = DatasetFolder.write, []

    def counted(self: DatasetFolder, kept: Any, rows: Any) -> None:
        drawn.append(list(rows))
        if len(drawn) == stop:
            raise KeyboardInterrupt
        write(self, kept, rows)

    monkeypatch.setattr(DatasetFolder, "write", counted)
    for stop in (1, 2, 3):
        out = tmp_path / f"cut-{stop}"
        drawn.clear()
        with pytest.raises(KeyboardInterrupt):
            draw(classes, out)
        assert card(out)["state"] == "drawing"
        before = {name: path.stat().st_mtime_ns for name, path in files(out)}
        stop = 0
        drawn.clear()
        lines = draw(classes, out)
        assert contents(out) == whole
        # What was there is not drawn again.
        assert all(
            path.stat().st_mtime_ns == before[name] for name, path in files(out) if name in before
        )
        assert len(drawn) == 3 - len(before) // 4
        assert bool(before) == any("are there" in line for line in lines)
        drawn.clear()
        assert any("complete already" in line for line in draw(classes, out))
        assert not drawn


def files(folder: Path) -> list[tuple[str, Path]]:
    return [(path.name, path) for path in folder.rglob("0*.png")]


def test_a_batch_cut_short_in_writing_is_drawn_again(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(classes, tmp_path / "whole")
    written: list[Path] = []
    from fromnoise.app import dataset_folder

    write = dataset_folder.write_png

    def failing(path: Path, *rest: Any) -> None:
        written.append(path)
        if len(written) == 6:
            raise DiskError(f"cannot write {path}: No space left on device; free some space")
        write(path, *rest)

    monkeypatch.setattr(dataset_folder, "write_png", failing)
    with pytest.raises(DiskError, match="No space"):
        draw(classes, tmp_path / "cut")
    assert len(files(tmp_path / "cut")) == 5
    draw(classes, tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_processes_together_draw_the_same_set(classes: Path, tmp_path: Path) -> None:
    draw(classes, tmp_path / "one")
    group = Group(tmp_path / "g", lambda rank: print(draw(classes, tmp_path / "many")), 2)
    assert group.end() == [0, 0]
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_what_is_dropped_is_counted_and_asked_for_again(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EveryThird(drawing.Keeping):
        def faults(self, pictures: Any, wanted: Any) -> list[str | None]:
            return ["unlucky" if one.seed % 3 == 0 else None for one in wanted]

    monkeypatch.setattr(drawing, "keeping", lambda *_: EveryThird())
    lines = draw(classes, tmp_path / "set")
    told = card(tmp_path / "set")
    # Seeds 0, 3, 6, 9, then 12 of 10 to 13, then 14.
    assert told["counts"]["by_class"] == {"0": 4, "1": 3, "2": 3}
    assert told["dropped"] == {"count": 5, "by_reason": {"unlucky": 5}, "by_class": {"0": 5}}
    seeds = sorted(int(path.stem) for _, path in files(tmp_path / "set"))
    assert seeds == [1, 2, 4, 5, 7, 8, 10, 11, 13, 14]
    assert sum("dropped" in line for line in lines) == 3


def test_a_model_that_never_draws_what_is_asked_is_given_up(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nothing(drawing.Keeping):
        def faults(self, pictures: Any, wanted: Any) -> list[str | None]:
            return ["unlucky"] * len(wanted)

    monkeypatch.setattr(drawing, "keeping", lambda *_: Nothing())
    with pytest.raises(FromNoiseError, match=r"0 of 256 pictures are kept \(unlucky\)"):
        draw(classes, tmp_path / "set", count=400, batch_size=64, steps=1)


@pytest.mark.parametrize("have", [[5, 0, 2], [0, 0, 0], [100, 1, 1], [1, 2, 3]])
@pytest.mark.parametrize("count", [1, 7, 30])
def test_more_join_where_there_are_fewest(have: list[int], count: int) -> None:
    joined = Counter(evened(have, count))
    after = [number + joined[place] for place, number in enumerate(have)]
    assert sum(joined.values()) == count
    # As even as can be: none that was given more has over one more than the least.
    assert all(after[place] <= min(after) + 1 for place in joined)


def test_rare_classes_are_drawn_more_often(classes: Path, tmp_path: Path) -> None:
    for name, number in (("0", 6), ("1", 1), ("2", 3)):
        (tmp_path / "real" / name).mkdir(parents=True)
        for index in range(number):
            Image.new("L", (8, 8), 20 * index).save(tmp_path / "real" / name / f"{index}.png")
    draw(classes, tmp_path / "set", balance=str(tmp_path / "real"))
    assert card(tmp_path / "set")["counts"]["by_class"] == {"0": 1, "1": 6, "2": 3}
    draw(classes, tmp_path / "two", balance=str(tmp_path / "real"), classes="0,2", count=5)
    assert card(tmp_path / "two")["counts"]["by_class"] == {"0": 1, "2": 4}


def test_maps_come_with_masks_boxes_and_outlines_that_agree(
    maps: Path, loading: None, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    draw(maps, out, count=6)
    fresh = Maps(32, 2**31 - 1, seed=1)
    found = json.loads((out / "annotations" / "instances_train.json").read_text())
    check_coco(found, NAMES[1:])
    for image in found["images"]:
        seed = int(Path(image["file_name"]).stem)
        ids = np.asarray(Image.open(out / "masks" / "train" / f"{seed:06d}.png"))
        assert ids.dtype == np.uint8 and np.array_equal(ids, fresh.given(np.array([seed]))[MAP][0])
        assert Image.open(out / "train" / image["file_name"]).size == (32, 32)
        things = instances(ids)
        mine = [a for a in found["annotations"] if a["image_id"] == image["id"]]
        assert [tuple(a["bbox"]) for a in mine] == [thing.box for thing in things]
        assert [a["category_id"] for a in mine] == [thing.category for thing in things]
        read = read_yolo((out / "train" / "labels" / f"{seed:06d}.txt").read_text(), 32, 32)
        for (number, box), thing in zip(read, things, strict=True):
            assert number == thing.category
            assert np.abs(np.array(box) - np.array(thing.box)).max() < 1e-6
    assert '0: "circle"' in (out / "data.yaml").read_text()
    read_back = data.load({"kind": "folder", "path": str(out / "train"), "size": 32})
    assert len(read_back) == 6 and read_back.captions(np.arange(6))


def check_coco(found: dict[str, Any], names: tuple[str, ...]) -> None:
    """Every key the format has, of its kind, and numbers that point at something."""
    assert set(found) == {"info", "licenses", "images", "annotations", "categories"}
    assert [c["name"] for c in found["categories"]] == list(names)
    assert all(set(c) == {"id", "name", "supercategory"} for c in found["categories"])
    sizes = {}
    for image in found["images"]:
        assert set(image) == {"id", "file_name", "height", "width"}
        sizes[image["id"]] = (image["width"], image["height"])
    assert len(sizes) == len(found["images"])
    numbers = [annotation["id"] for annotation in found["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))
    for annotation in found["annotations"]:
        assert set(annotation) == {
            "id",
            "image_id",
            "category_id",
            "bbox",
            "area",
            "iscrowd",
            "segmentation",
        }
        width, height = sizes[annotation["image_id"]]
        left, top, wide, high = annotation["bbox"]
        assert left >= 0 and top >= 0 and wide > 0 and high > 0
        assert left + wide <= width and top + high <= height
        assert 1 <= annotation["category_id"] <= len(names)
        assert 0 < annotation["area"] <= wide * high and annotation["iscrowd"] == 0
        parts = annotation["segmentation"]
        if isinstance(parts, dict):
            assert parts["size"] == [height, width] and sum(parts["counts"]) == height * width
            continue
        for polygon in parts:
            assert len(polygon) >= 8 and len(polygon) % 2 == 0
            assert min(polygon[::2]) >= left and max(polygon[::2]) <= left + wide


def test_only_the_formats_asked_for_are_written(maps: Path, loading: None, tmp_path: Path) -> None:
    draw(maps, tmp_path / "set", count=2, formats="yolo")
    assert not (tmp_path / "set" / "masks").exists()
    assert not (tmp_path / "set" / "annotations").exists()
    assert (tmp_path / "set" / "data.yaml").is_file()


def test_maps_have_the_size_of_the_pictures(maps: Path, loading: None, tmp_path: Path) -> None:
    out, (width, height) = tmp_path / "set", (64, 96)
    draw(maps, out, count=3, width=width, height=height)
    fresh = Maps(32, 2**31 - 1, seed=1)
    found = json.loads((out / "annotations" / "instances_train.json").read_text())
    check_coco(found, NAMES[1:])
    for image in found["images"]:
        seed = int(Path(image["file_name"]).stem)
        assert (image["width"], image["height"]) == (width, height)
        ids = fresh.given(np.array([seed]))[MAP][0].numpy().astype(np.uint8)
        nearest = Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST)
        mask = np.asarray(Image.open(out / "masks" / "train" / f"{seed:06d}.png"))
        assert np.array_equal(mask, np.asarray(nearest))
        assert Image.open(out / "train" / image["file_name"]).size == (width, height)
        read = read_yolo((out / "train" / "labels" / f"{seed:06d}.txt").read_text(), height, width)
        boxes = [thing.box for thing in instances(mask)]
        assert np.allclose([box for _, box in read], boxes, atol=1e-6)


def test_a_picture_of_a_map_carries_it_and_is_drawn_again(
    maps: Path, loading: None, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    draw(maps, out, count=6)
    for seed in (3, 5):
        path = out / "train" / "images" / f"{seed:06d}.png"
        done, _ = again(path, str(maps / "model"))
        assert done.same and not done.notes
        mask = np.asarray(Image.open(out / "masks" / "train" / f"{seed:06d}.png"))
        assert provenance.read(path).draw.inputs == {MAP: mask.tolist()}


def test_what_else_a_model_is_told_stays_beside_the_map(
    maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = encoders.Conditioning(
        {MAP: encoders.LabelMap(NAMES), "size": encoders.Attributes({"height": (0.0, 2.0)})}
    )
    null = told.null(1)
    accepts = {
        "channels": {name: value.shape[1] for name, value in null.channels.items()},
        "vector": {name: value.shape[1] for name, value in null.vector.items()},
    }
    net = nets.build({**get("maps-to-pictures").net, "channels": 8, "accepts": accepts})
    denoiser = NetworkDenoiser(net, processes.Gaussian(schedules.cosine()), parameterizations.V())
    model = Model(denoiser, (3, 32, 32), codecs.Identity(), told, Defaults(steps=2), Card("both"))
    monkeypatch.setattr(opening, "load", lambda _: model)
    draw(maps, tmp_path / "set", count=2, input=['size={"height": 0.5}'])
    for _, path in files(tmp_path / "set" / "train"):
        inputs = provenance.read(path).draw.inputs
        assert set(inputs) == {MAP, "size"} and inputs["size"] == {"height": 0.5}
    with pytest.raises(UsageError, match="leave out --input map="):
        draw(maps, tmp_path / "other", count=2, input=["map=[[1]]"])
    assert not (tmp_path / "other").exists()


def test_nothing_is_trained_for_a_request_that_is_refused(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[Any] = []

    def keeping(*_: Any) -> Any:
        asked_for.append(1)
        return drawing.Everything()

    monkeypatch.setattr(drawing, "keeping", keeping)
    with pytest.raises(UsageError, match="unknown sampler"):
        draw(classes, tmp_path / "set", keep="classifier", sampler="nope")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="is not empty"):
        draw(classes, tmp_path / "mine", keep="classifier")
    assert not asked_for
    draw(classes, tmp_path / "set", keep="classifier")
    assert asked_for


def test_the_reader_drops_what_does_not_show_its_map(
    maps: Path, loading: None, tmp_path: Path
) -> None:
    """Random weights draw no shapes, so nothing is kept."""
    with pytest.raises(FromNoiseError, match="0 of 256 pictures are kept"):
        draw(maps, tmp_path / "set", count=300, batch_size=64, steps=1, keep="reader")


def test_what_is_wrong_with_a_picture_is_named() -> None:
    def thing(category: int, left: int) -> Instance:
        mask = np.zeros((8, 20), bool)
        mask[2:6, left : left + 4] = True
        return Instance(category, mask)

    two = [thing(1, 0), thing(2, 10)]
    assert map_fault(two, two) is None
    assert map_fault(two, [thing(1, 1), thing(2, 10)]) is None
    assert map_fault(two, two[:1]) == "a thing is missing"
    assert map_fault(two, [thing(1, 0), thing(3, 10)]) == "a thing is of another kind"
    assert map_fault(two[:1], two) == "a thing too many"


def test_folders_of_classes_are_apart_and_can_be_made() -> None:
    names = folder_names(["cat", "Cat", "a/b", "a:b", "..", "été", ""])
    assert len({name.casefold() for name in names}) == 7
    assert names[0] == "cat" and names[2] == "a_b" and names[5] == "été"
    assert all("/" not in name and name.strip(". ") for name in names)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"classes": "cat"}, "unknown class 'cat'"),
        ({"classes": ","}, "names no class"),
        ({"classes": "7"}, "unknown class '7'"),
        ({"classes": "²"}, "unknown class '²'"),
        ({"label": "1"}, "--classes in place of --label"),
        ({"film": True}, "no film strip"),
        ({"formats": "coco"}, "without masks or boxes"),
        ({"formats": "voc"}, "known are coco, yolo, masks"),
        ({"keep": "reader"}, "reads drawn shapes"),
        ({"balance": "nowhere"}, "nowhere"),
        ({"balance": "shapes"}, "32 or more"),
        ({"prompt": "a cat"}, "prompt"),
        ({"sampler": "dmp"}, "unknown sampler"),
    ],
)
def test_a_bad_request_is_one_line_and_writes_nothing(
    classes: Path, tmp_path: Path, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        draw(classes, tmp_path / "set", **more)
    assert not (tmp_path / "set").exists()


def test_classes_of_a_model_without_are_refused(maps: Path, loading: None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not told a class \(it is told map\)"):
        draw(maps, tmp_path / "set", classes="all")
    with pytest.raises(UsageError, match="--keep classifier is for models"):
        draw(maps, tmp_path / "set", keep="classifier")


def test_other_folders_and_other_requests_are_left_alone(classes: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match=r"is not empty and holds no dataset\.json"):
        draw(classes, mine)
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    assert (mine / "notes.txt").read_text() == "mine"
    with pytest.raises(FileError, match="is a file, so nothing can be written"):
        draw(classes, mine / "notes.txt")
    draw(classes, tmp_path / "set")
    before = contents(tmp_path / "set")
    with pytest.raises(UsageError, match="begun with count 10, not 12"):
        draw(classes, tmp_path / "set", count=12)
    with pytest.raises(UsageError, match="begun with seed 0, not 1"):
        draw(classes, tmp_path / "set", seed=1)
    assert contents(tmp_path / "set") == before


@pytest.mark.parametrize("name", ["classes", "balance", "formats", "keep"])
def test_what_is_of_data_sets_only_says_so(classes: Path, tmp_path: Path, name: str) -> None:
    value = "classifier" if name == "keep" else "all"
    request = SampleRequest(model=str(classes), out=str(tmp_path / "o"), **{name: value})
    with pytest.raises(UsageError, match="--as-dataset"):
        sample(request, Silent())
    assert not (tmp_path / "o").exists()


def test_as_dataset_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name a run"):
        as_dataset(SampleRequest(as_dataset=str(tmp_path / "set")), Silent())
    with pytest.raises(UsageError, match="leave out --out"):
        as_dataset(SampleRequest(model="x", as_dataset="y", out="z"), Silent())


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a model of captions, whose every picture but each third shows its scene exactly."""
    recipe = get("shapes-text")
    folder = tmp_path / "told"
    net = nets.build({**recipe.net, "channels": 8, "style": {"groups": 4, "patch": 2}})
    denoiser = NetworkDenoiser(net, processes.Gaussian(schedules.cosine()), parameterizations.V())
    prompts = encoders.Conditioning({"prompt": encoders.Text(258, width=128, pooled=True)})
    model = Model(denoiser, (3, 32, 32), codecs.Identity(), prompts, Defaults(steps=1))
    write_json(folder / "config.json", {"format": 1, "config": recipe.model_dump(mode="json")})
    scenes = data.Shapes(32, 2**31 - 1, seed=1, without=recipe.data["without"])

    def artist(stream: Stream) -> Samples:
        seeds = stream.recipe["seeds"]
        assert stream.recipe["prompt"] == scenes.captions(np.array(seeds))
        drawn = [seed if seed % 3 else seed + 1 for seed in seeds]
        return Samples(scenes.samples(np.array(drawn)), stream.recipe)

    monkeypatch.setattr(opening, "load", lambda source: model)
    monkeypatch.setattr(Stream, "samples", artist)
    return folder


def test_scenes_of_captions_come_with_the_masks_and_boxes_of_their_things(
    told: Path, tmp_path: Path
) -> None:
    """Those are read from the picture, so they are its own, and a wrong picture is dropped."""
    out = tmp_path / "set"
    draw(told, out, count=6, steps=1, keep="reader")
    scenes = data.Shapes(32, 2**31 - 1, seed=1, without=get("shapes-text").data["without"])
    found = json.loads((out / "annotations" / "instances_train.json").read_text())
    check_coco(found, NAMES[1:])
    seeds = [int(Path(image["file_name"]).stem) for image in found["images"]]
    assert len(seeds) == 6 and not any(seed % 3 == 0 for seed in seeds)
    assert card(out)["dropped"]
    for image, seed in zip(found["images"], seeds, strict=True):
        scene = scenes.scene(seed)
        mine = [a for a in found["annotations"] if a["image_id"] == image["id"]]
        names = sorted(NAMES[a["category_id"]] for a in mine)
        assert names == sorted(thing.kind for thing in scene.things)
        boxes = sorted((x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in mine))
        # A mask counts whole pixels, a box of a scene does not.
        wanted = np.array(sorted(map(tuple, scene.boxes(32).tolist())))
        assert np.abs(np.array(boxes) - wanted).max() <= 1.5
