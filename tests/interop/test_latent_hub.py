"""A pipeline of latents by its name on the hub, in a cache as the hub's library lays it out."""

import os
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from interop import latent_pipelines as tiny

import fromnoise as fn
from fromnoise.cli.main import run
from fromnoise.core.errors import FileError

NAME, COMMIT = "someone/tiny-stable-diffusion", "3" * 40


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline's folder; it is in the cache too, as blobs with links to them. No socket opens."""
    made = tiny.saved(tmp_path, "sd1")[1]
    repo = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    (repo / "blobs").mkdir(parents=True)
    for count, file in enumerate(sorted(path for path in made.rglob("*") if path.is_file())):
        blob = repo / "blobs" / f"{count:040x}"
        blob.write_bytes(file.read_bytes())
        link = repo / "snapshots" / COMMIT / file.relative_to(made)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network was reached for")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
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
