"""Models by their name on the hub: from a cache made on the spot, with nothing reached."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from huggingface_hub import constants
from interop import foreign

import fromnoise as fn
from fromnoise.core.errors import FileError
from fromnoise.interop import hub

NAME = "google/ddpm-cifar10-32"
COMMIT = "267b167dc01f0e4e61923ea244e8b988f84deb80"

Cache = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction")
    foreign.saved(folder, "DDIMPipeline", foreign.unet(), scheduler)
    return folder


@pytest.fixture
def cache(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Puts the pipeline into a cache, as a commit of a model; all sockets are closed."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()

    def put(name: str, commit: str = COMMIT) -> Path:
        repo = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(pipeline, repo / "snapshots" / commit)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / "main").write_text(commit)
        return repo / "snapshots" / commit

    return put


def test_a_cached_model_opens_by_its_name(cache: Cache, pipeline: Path) -> None:
    cache(NAME, COMMIT)
    model = fn.load(NAME)
    assert model.card.name == NAME
    assert model.source == f"{NAME}@{COMMIT}"
    x = foreign.start(1)
    local = fn.load(pipeline).sample(1, start=x, steps=3)
    assert torch.equal(model.sample(1, start=x, steps=3).tensor, local.tensor)
    assert model.sample(1, steps=2)[0].size == (8, 8)


def test_a_commit_can_be_named(cache: Cache) -> None:
    old, new = "a" * 40, "b" * 40
    for commit in (old, new):
        cache(NAME, commit)
    assert fn.load(f"{NAME}@{old}").source == f"{NAME}@{old}"
    assert fn.load(NAME).source == f"{NAME}@{new}"


def test_what_is_not_cached_names_what_is(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cache("someone/something", COMMIT)
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "config.json").write_text("{}")
    with pytest.raises(FileError, match="cannot be reached") as error:
        fn.load(NAME)
    assert "cached models: someone/something" in str(error.value)
    assert "local runs: runs/digits" in str(error.value)


def test_nothing_at_hand_names_the_first_recipe(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The runs of this folder would be at hand.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileError, match="not in the local cache.*fromnoise train digits"):
        fn.load(NAME)


def test_a_cache_with_pickles_only_names_the_way_out(cache: Cache) -> None:
    found = cache(NAME, COMMIT)
    path = found / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(FileError, match="--from-pickle"):
        fn.load(NAME)


def test_a_folder_of_that_name_comes_first(
    cache: Cache, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pipeline, tmp_path / "google" / "ddpm-cifar10-32")
    assert fn.load(NAME).source == NAME


@pytest.mark.parametrize(
    "text", ["digits", "runs/digits/model", "/a/b", "../up", "a/..", "a b/c", "a/b@", "", "-a/b"]
)
def test_what_is_no_name(text: str) -> None:
    assert not hub.is_id(text)
    with pytest.raises(FileError):
        fn.load(text or "nothing")


@pytest.mark.parametrize("text", [NAME, f"{NAME}@main", f"{NAME}@{COMMIT}", "a/b.c_d-e"])
def test_what_is_a_name(text: str) -> None:
    assert hub.is_id(text)


@pytest.mark.parametrize("place", ["runs", "models", "checkpoints", "samples", "mine"])
def test_a_path_that_is_missing_is_never_asked_of_the_hub(
    place: str, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []
    monkeypatch.setattr(hub, "snapshot", asked.append)
    (tmp_path / "mine").mkdir()
    for source in (f"{place}/digitz", f"{place}/digitz@main"):
        with pytest.raises(FileError, match="no such (run|file or folder); train one with"):
            fn.load(source)
    for name in ("digits", "points"):
        (tmp_path / place / name).mkdir(parents=True)
        (tmp_path / place / name / "model.json").write_text("{}")
    with pytest.raises(FileError, match=rf"did you mean {place}/digits\?"):
        fn.load(f"{place}/digitz")
    assert asked == []


def test_without_such_a_folder_it_is_a_name(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache("mine/digitz")
    assert fn.load("mine/digitz").source == f"mine/digitz@{COMMIT}"
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileError, match="the folder mine is here; for the hub's"):
        fn.load("mine/digitz")


def test_a_run_elsewhere_is_near_as_well(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "config.json").write_text("{}")
    with pytest.raises(FileError, match="did you mean runs/digits"):
        fn.load("digitz")
    with pytest.raises(FileError, match="no such run; there are runs/digits"):
        fn.load("runs/abc")
