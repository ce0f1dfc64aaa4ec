"""A pipeline of latents by its name on the hub, in a cache as the hub's library lays it out."""

import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from interop import latent_pipelines as tiny
from interop.test_single_file import converted

import fromnoise as fn
from fromnoise.cli.main import run
from fromnoise.core.errors import FileError

NAME, COMMIT = "someone/tiny-stable-diffusion", "3" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache. No socket opens."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network was reached for")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def put(cache: Path, name: str, made: Path) -> Path:
    """Put a folder into the cache as blobs with links to them; the folder of the links."""
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "blobs").mkdir(parents=True)
    for count, file in enumerate(sorted(path for path in made.rglob("*") if path.is_file())):
        blob = repo / "blobs" / f"{count:040x}"
        blob.write_bytes(file.read_bytes())
        link = repo / "snapshots" / COMMIT / file.relative_to(made)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return repo / "snapshots" / COMMIT


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """A pipeline's folder; it is in the cache, too."""
    made = tiny.saved(tmp_path, "sd1")[1]
    put(cache, NAME, made)
    return made


def test_it_opens_and_draws_with_sockets_blocked(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = fn.load(NAME)
    assert model.card.name == NAME and model.source == f"{NAME}@{COMMIT}"
    asked = {"prompt": "a cat", "negative": "a dog", "steps": 2}
    ours, theirs = (one.sample(1, **asked).tensor for one in (model, fn.load(folder)))
    assert torch.equal(ours, theirs)
    out = tmp_path / "drawn"
    line = ["sample", NAME, "a cat", "-n", "1", "--steps", "1", "--out", str(out)]
    assert run(line) == 0 and (out / "000000.png").is_file()
    # Another name would have to be fetched, and says so.
    with pytest.raises(FileError, match=f"cannot be reached.*{NAME}"):
        fn.load("someone/else")
    capfd.readouterr()


def test_a_part_that_was_not_fetched_is_named(folder: Path, tmp_path: Path) -> None:
    del folder
    snapshot = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / COMMIT
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileError, match="vae holds no weights"):
        fn.load(NAME)


WORDS = {
    "sd1": ("openai/clip-vit-large-patch14", ("vocab.json", "merges.txt")),
    "ldm-text": ("google-bert/bert-base-uncased", ("vocab.txt",)),
}
"""Families → whose vocabulary it is, and of what files."""


@pytest.mark.parametrize("family", ["sd1", pytest.param("ldm-text", marks=pytest.mark.slow)])
def test_one_file_with_a_vocabulary_from_the_cache(
    family: str, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both are links to blobs; without the vocabulary it says which repository has it."""
    _, made = tiny.saved(tmp_path, family, wide=True)
    one = tmp_path / "one"
    converted(made, one / "model.safetensors", "single-file")
    path = put(cache, "someone/one-file", one) / "model.safetensors"
    whose, names = WORDS[family]
    with pytest.raises(FileError, match=f"fromnoise models pull {whose}"):
        fn.load(path)
    words = tmp_path / "vocabulary"
    words.mkdir()
    for name in names:
        shutil.copy(tmp_path / "words" / name, words)
    put(cache, whose, words)
    assert path.is_symlink() and fn.load(path).tokens("a cat") == fn.load(made).tokens("a cat")
    out = tmp_path / "drawn"
    line = ["sample", str(path), "a cat", "-n", "1", "--steps", "1", "--out", str(out)]
    assert run([*line, "--width", "64", "--height", "64"]) == 0 and (out / "000000.png").is_file()
    capfd.readouterr()
