"""Fetching from a hub on loopback: whole, of one commit, checked, and on where it was cut."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import diffusers
import pytest
from huggingface_hub import constants, file_download, scan_cache_dir
from interop import foreign
from interop.loopback_hub import Hub, serving

import fromnoise as fn
from fromnoise.core.errors import DiskError, FileError
from fromnoise.interop import hub as names
from fromnoise.interop import pulling

OLD, NEW = "a" * 40, "b" * 40
CARD = b"---\nlicense: openrail\n---\n# A model\n"
CARD_NAME, UNET = "README.md", "unet/config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("pipeline")
    foreign.saved(folder, "DDIMPipeline", foreign.unet(), diffusers.DDIMScheduler())
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {
        **found,
        "README.md": CARD,
        "unet/diffusion_pytorch_model.bin": b"a pickle",
        "unet/diffusion_pytorch_model.fp16.safetensors": found[WEIGHTS] + b"half",
        "all-in-one.safetensors": b"the same once more",
        "all-in-one.ckpt": b"a pickle",
        "notes.py": b"print('never fetched')",
    }


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # The tests are offline otherwise.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    # A cut answer is tried again by itself, after a second each; here the first time counts.
    real = file_download.http_get
    monkeypatch.setattr(
        file_download, "http_get", lambda *a, **k: real(*a, **{**k, "_nb_retries": 0})
    )
    with serving(Hub(commits={OLD: dict(files)}, branches={"main": OLD})) as made:
        yield made


def test_what_is_fetched_opens_and_draws_the_same(hub: Hub, tmp_path: Path) -> None:
    seen: list[tuple[int, str]] = []
    plan = pulling.plan(hub.name)
    folder = pulling.pull(plan, lambda done, path: seen.append((done, path)))
    there = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    # No pickle, no code, no second copy of the weights.
    assert there == sorted(
        [CARD_NAME, "model_index.json", "scheduler/scheduler_config.json", UNET, WEIGHTS]
    )
    assert seen[-1][0] == plan.bytes and [d for d, _ in seen] == sorted(d for d, _ in seen)
    for path, content in hub.commits[OLD].items():
        if path in there:
            assert (folder / path).read_bytes() == content
    asked = len(hub.asked)
    model = fn.load(hub.name)
    assert model.source == f"{hub.name}@{OLD}" and len(hub.asked) == asked
    assert model.sample(1, steps=2)[0].size == (8, 8)
    # huggingface_hub finds it in its own cache, too.
    (repo,) = scan_cache_dir(tmp_path / "hub").repos
    assert repo.repo_id == hub.name and {r.commit_hash for r in repo.revisions} == {OLD}


def test_loading_what_is_not_there_fetches_it_the_same_way(hub: Hub) -> None:
    model = fn.load(hub.name)
    assert model.source == f"{hub.name}@{OLD}"
    assert not any(path.endswith((".bin", ".ckpt", ".py")) for path, _ in hub.asked)


def test_a_file_that_was_cut_goes_on_where_it_ended(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is less than a piece is lost; they are 10 MB.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    whole = len(hub.commits[OLD][WEIGHTS])
    hub.cut[WEIGHTS] = half = whole // 2
    with pytest.raises(FileError, match="cannot be reached"):
        pulling.pull(pulling.plan(hub.name))
    assert names.cached() == []
    with pytest.raises(FileError, match="cannot be reached"):
        fn.load(hub.name)
    hub.cut.clear()
    hub.asked.clear()
    folder = pulling.pull(pulling.plan(hub.name))
    assert (folder / WEIGHTS).read_bytes() == hub.commits[OLD][WEIGHTS]
    ranges = {path.rpartition("/")[2]: r for path, r in hub.asked if "/resolve/" in path}
    assert ranges["diffusion_pytorch_model.safetensors"] == f"bytes={half // 1000 * 1000}-"


@pytest.mark.parametrize("path", [WEIGHTS, "model_index.json"])
def test_content_that_is_not_what_was_said_is_thrown_away(path: str, hub: Hub) -> None:
    hub.wrong.add(path)
    with pytest.raises(FileError, match="thrown away"):
        pulling.pull(pulling.plan(hub.name))
    assert names.cached() == []
    hub.wrong.clear()
    assert pulling.pull(pulling.plan(hub.name)).is_dir()


def test_all_files_are_of_the_commit_that_was_planned(hub: Hub) -> None:
    plan = pulling.plan(hub.name)
    changed = {**hub.commits[OLD], "model_index.json": b"{}"}
    hub.commits[NEW] = changed
    hub.branches["main"] = NEW
    folder = pulling.pull(plan)
    assert folder.name == OLD and (folder / "model_index.json").read_bytes() != b"{}"
    assert all(f"/resolve/{OLD}/" in path for path, _ in hub.asked if "/resolve/" in path)


def test_a_branch_that_moved_is_noticed(hub: Hub) -> None:
    pulling.pull(pulling.plan(hub.name))
    assert not pulling.plan(hub.name).moved
    hub.commits[NEW] = {**hub.commits[OLD], "README.md": b"another"}
    hub.branches["main"] = NEW
    plan = pulling.plan(hub.name)
    assert plan.moved and plan.pinned == OLD
    # Of what both have nothing is fetched again.
    assert [file.path for file in plan.missing] == ["README.md"]
    assert not pulling.plan(hub.name, OLD).moved


def test_half_weights_in_place_of_the_plain(hub: Hub) -> None:
    chosen = {file.path for file in pulling.plan(hub.name, variant="fp16").files}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in chosen and WEIGHTS not in chosen
    with pytest.raises(FileError, match="no weights 'fp8'; there is fp16"):
        pulling.plan(hub.name, variant="fp8")


def test_one_file_alone(hub: Hub) -> None:
    plan = pulling.plan(hub.name, only=["all-in-one.safetensors"])
    assert [file.path for file in plan.files] == ["all-in-one.safetensors"]
    for path in ("all-in-one.ckpt", "no-such.safetensors", "notes.py"):
        with pytest.raises(FileError, match="has no file"):
            pulling.plan(hub.name, only=[path])


def test_a_disk_without_room_is_noticed_before(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = pulling.plan(hub.name)
    hub.asked.clear()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6 - 10, 10)
    )
    with pytest.raises(DiskError, match="only 10 are free"):
        pulling.pull(plan)
    assert hub.asked == [] and not plan.folder.exists()


@pytest.mark.parametrize(
    "path",
    [
        "../outside.json",
        "/etc/passwd.json",
        "a/../../b.json",
        "C:evil.json",
        "..\\evil.json",
        "\\\\host\\share.json",
        "a//b.json",
        "./a.json",
        "",
    ],
)
def test_a_name_that_could_lie_elsewhere_stops_all(path: str, hub: Hub, tmp_path: Path) -> None:
    hub.commits[OLD][path] = b"{}"
    with pytest.raises(FileError, match="could lie elsewhere"):
        pulling.plan(hub.name)
    assert not (tmp_path / "hub").exists()


def test_what_has_no_safetensors_is_refused(hub: Hub) -> None:
    hub.commits[OLD] = {"model_index.json": b"{}", "unet/model.bin": b"pickle"}
    with pytest.raises(FileError, match=r"no safetensors; unet/model.bin is a pickle"):
        pulling.plan(hub.name)


def test_unknown_names_and_revisions(hub: Hub) -> None:
    with pytest.raises(FileError, match="no revision 'nope'"):
        pulling.plan(hub.name, "nope")
    with pytest.raises(FileError, match="no model on the hub|cannot be reached"):
        pulling.plan("no/body")
