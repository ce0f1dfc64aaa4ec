"""Models at hand from the command line: listed, looked at, fetched, removed; sockets are closed."""

import hashlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import diffusers
import pytest
from huggingface_hub import constants
from interop import foreign
from interop.loopback_hub import Hub, serving
from model.tiny_latent import tiny_latent

import fromnoise as fn
from fromnoise.cli.main import run
from fromnoise.interop import shelf

NAME, COMMIT, OTHER = "someone/something", "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    foreign.saved(folder, "DDIMPipeline", foreign.unet(), diffusers.DDIMScheduler())
    (folder / "README.md").write_text("---\nlicense: openrail++\ntags: [a]\n---\n# A model\n")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "dots"
    assert run(["train", "points-ddpm", "--train.steps", "2", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def room(pipeline: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs and a cache in it, as the hub's library lays one; no socket opens."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    repo = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    for path in sorted(p for p in pipeline.rglob("*") if p.is_file()):
        content = path.read_bytes()
        blob = repo / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        place = repo / "snapshots" / COMMIT / path.relative_to(pipeline)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(
            Path(*[".."] * len(place.relative_to(repo).parts[:-1])) / "blobs" / blob.name
        )
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    shutil.copytree(trained, tmp_path / "runs" / "dots")
    return tmp_path


def size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def test_all_that_is_at_hand_is_listed(room: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)}
    assert set(rows) == {"emoji", "runs/dots", NAME}
    cached, own = rows[NAME], rows["runs/dots"]
    assert cached["bytes"] == size(room / "hub")
    assert (cached["revision"], cached["licence"]) == (COMMIT, "openrail++")
    assert (cached["family"], cached["where"]) == ("DDIM", "cache")
    assert own["family"] == "mlp over pixels, told nothing" and own["licence"] is None
    assert own["bytes"] == size(room / "runs" / "dots")
    assert run(["models", "list"]) == 0
    said = capfd.readouterr().out
    assert said.count("\n") == 3 and COMMIT[:12] in said and "openrail++" in said


def test_what_a_model_is_and_will_need(room: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "info", NAME, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    (weights,) = [f for f in told["files"] if f["name"].endswith(".safetensors")]
    model = fn.load(NAME)
    assert weights["parameters"] == sum(p.numel() for p in model.denoiser.net.parameters())
    snapshot = room / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / COMMIT
    content = (snapshot / weights["name"]).read_bytes()
    assert weights["sha256"] == hashlib.sha256(content).hexdigest() and weights["whole"]
    assert told["run"]["memory"]["weights"] >= 4 * weights["parameters"]
    assert told["run"]["fits"] and told["run"]["seconds_per_step"] > 0
    assert told["run"]["steps"] == model.defaults.steps
    assert run(["models", "info", NAME]) == 0
    said = capfd.readouterr().out
    for part in ("licence: openrail++", f"revision: {COMMIT}", weights["sha256"], "one step takes"):
        assert part in said
    assert run(["models", "info", f"{NAME}@main", "--quick"]) == 0
    assert "one step takes" not in capfd.readouterr().out
    for source in ("runs/dots", "emoji"):
        assert run(["models", "info", source, "--quick"]) == 0
        assert "needs about" in capfd.readouterr().out


def test_a_file_that_changed_is_noticed(room: Path, capfd: pytest.CaptureFixture[str]) -> None:
    blobs = room / "hub" / f"models--{NAME.replace('/', '--')}" / "blobs"
    largest = max(blobs.iterdir(), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-1] ^= 1
    largest.write_bytes(bytes(content))
    assert run(["models", "info", NAME, "--quick"]) == 0
    assert "DAMAGED" in capfd.readouterr().out


def test_a_larger_picture_needs_more(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_latent(tmp_path).save(tmp_path / "model")
    found = []
    for side in ("32", "64", "128"):
        asked = ["models", "info", str(tmp_path / "model"), "--json", "--quick"]
        assert run([*asked, "--width", side, "--height", side]) == 0
        found.append(json.loads(capfd.readouterr().out)["run"]["memory"])
    for smaller, larger in itertools.pairwise(found):
        assert larger["weights"] == smaller["weights"] and larger["copy"] == smaller["copy"]
        assert 3.5 < larger["decoder"] / smaller["decoder"] < 4.5
    assert run(["models", "info", str(tmp_path / "model"), "--width", "30"]) == 2
    assert "nearest are 24 and 32" in capfd.readouterr().err


def test_a_model_is_removed_whole_and_nothing_beside_it(
    room: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    beside = room / "hub" / "models--other--model"
    (beside / "snapshots" / OTHER).mkdir(parents=True)
    (beside / "snapshots" / OTHER / "config.json").write_text("{}")
    folder = room / "hub" / f"models--{NAME.replace('/', '--')}"
    held = size(folder)
    assert run(["models", "remove", NAME]) == 0
    assert f"({held} bytes)" in capfd.readouterr().out
    assert not folder.exists() and sorted(p.name for p in (room / "hub").iterdir()) == [beside.name]
    assert (room / "runs" / "dots" / "config.json").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emoji", "comes with fromnoise and stays"),
        ("runs/dots", "not in the cache"),
        (f"{NAME}@{COMMIT}", "is no model of the cache"),
        ("someone/somethng", f"did you mean {NAME}?"),
        ("../hub", "is no model of the cache"),
        ("/etc", "is no model of the cache"),
        ("a/..", "is no model of the cache"),
        ("someone--something", "is no model of the cache"),
        (".", "is no model of the cache"),
        ("", "is no model of the cache"),
    ],
)
def test_only_models_of_the_cache_are_removed(
    name: str, message: str, room: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(str(p) for p in room.rglob("*"))
    assert run(["models", "remove", name]) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1
    assert sorted(str(p) for p in room.rglob("*")) == before


def test_a_link_in_the_cache_is_not_followed(room: Path) -> None:
    outside = room / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (room / "hub" / "models--evil--link").symlink_to(outside)
    assert run(["models", "remove", "evil/link"]) == 2
    inside = room / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / "elsewhere"
    inside.symlink_to(outside)
    assert run(["models", "remove", NAME]) == 0
    assert (outside / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    ("card", "found"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: of my own\n---\n", "of my own"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\ntags: [a]\n---\n", None),
        ("license: mit\n", None),
        ("---\nlicense: [unclosed\n---\n", None),
        ("---\nlicense: !!python/object/apply:os.system ['x']\n---\n", None),
        ("---\n- a\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_is_what_the_card_says(card: str, found: str | None, tmp_path: Path) -> None:
    assert shelf.licence(tmp_path) is None
    (tmp_path / "README.md").write_bytes(card.encode())
    assert shelf.licence(tmp_path) == found


@pytest.fixture
def hub(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    files = {
        str(p.relative_to(pipeline)): p.read_bytes() for p in pipeline.rglob("*") if p.is_file()
    }
    with serving(Hub(NAME, {COMMIT: files}, {"main": COMMIT})) as made:
        yield made


def test_a_pull_says_what_came_and_stays_at_its_commit(
    hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "pull", NAME]) == 0
    said = capfd.readouterr().out
    assert f"{NAME}@{COMMIT}" in said and "licence: openrail++" in said and "fetched" in said
    assert run(["models", "pull", NAME]) == 0
    assert "all of it was here" in capfd.readouterr().out
    hub.commits[OTHER] = {**hub.commits[COMMIT], "README.md": b"---\nlicense: mit\n---\n"}
    hub.branches["main"] = OTHER
    assert run(["models", "pull", NAME]) == 0
    said = capfd.readouterr()
    assert f"main was {COMMIT} when it was pulled and is {OTHER} now" in said.err
    assert f"{NAME}@{COMMIT}" in said.out
    assert fn.load(NAME).source == f"{NAME}@{COMMIT}"
    assert run(["models", "pull", NAME, "--update"]) == 0
    assert "licence: mit" in capfd.readouterr().out
    assert fn.load(NAME).source == f"{NAME}@{OTHER}"
    assert fn.load(f"{NAME}@{COMMIT}").source == f"{NAME}@{COMMIT}"
    assert run(["models", "remove", NAME]) == 0
    assert not (tmp_path / "hub" / f"models--{NAME.replace('/', '--')}").exists()


def test_a_pull_that_was_cut_is_told_of(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import file_download

    real = file_download.http_get
    monkeypatch.setattr(
        file_download, "http_get", lambda *a, **k: real(*a, **{**k, "_nb_retries": 0})
    )
    hub.cut["unet/diffusion_pytorch_model.safetensors"] = 1000
    assert run(["models", "pull", NAME]) == 2
    assert run(["models", "list"]) == 0
    assert "a pull was cut short" in capfd.readouterr().out
    assert run(["models", "info", NAME]) == 2
    assert "`fromnoise models pull` goes on with it" in capfd.readouterr().err


def test_telemetry_is_off() -> None:
    """In a fresh process: the library reads it when it is first imported."""
    code = "import fromnoise; from huggingface_hub import constants as c; "
    code += "raise SystemExit(not c.HF_HUB_DISABLE_TELEMETRY)"
    bare = {k: v for k, v in os.environ.items() if k != "HF_HUB_DISABLE_TELEMETRY"}
    assert subprocess.run([sys.executable, "-c", code], env=bare, check=False).returncode == 0
