"""The exported program: read back it answers as the network does, and it holds no pickle."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from interop.exported import DIT, MLP, branching, generator, model
from model.tiny import tiny

from fromnoise import processes
from fromnoise.core.errors import FromNoiseError, UsageError
from fromnoise.core.files import read_json, verify_folder
from fromnoise.interop import torch_export
from fromnoise.interop.torch_export import export_program
from fromnoise.layers.condition import Condition

UNEVEN = {
    "kind": "unet", "in_channels": 2, "channels": 8, "multipliers": [1, 2], "blocks": 1,
    "style": {"groups": 4, "uneven": True},
}  # fmt: skip
"""A U-Net whose sizes may be odd; what is exported takes even ones."""


def slowly(value: str) -> Any:
    """A case that only the slow suite runs."""
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        pytest.param(MLP, (2,), id="points"),
        pytest.param(DIT, (1, 8, 8), id="transformer", marks=pytest.mark.slow),
        pytest.param(UNEVEN, (2, 8, 8), id="uneven", marks=pytest.mark.slow),
    ],
)
def test_program_read_back_answers_as_the_network(
    net: dict, shape: tuple[int, ...], tmp_path: Path
) -> None:
    ours = model(net, shape)
    notes = export_program(ours, tmp_path / "program")
    assert "any batch" in notes[0]
    assert set(verify_folder(tmp_path / "program")["files"]) == {"denoiser.pt2", "schedule.json"}
    assert read_json(tmp_path / "program" / "schedule.json")["shape"] == list(ours.shape)
    program = torch.export.load(tmp_path / "program" / "denoiser.pt2").module()
    generator = torch.Generator().manual_seed(5)
    for batch in (1, 2, 7):
        x = torch.randn(batch, *ours.shape, generator=generator)
        time = 1000 * torch.rand(batch, generator=generator)
        vector = {k: torch.eye(3)[:1].expand(batch, -1) for k in ours.conditioning.names}
        with torch.no_grad():
            expected = ours.denoiser.net(x, time, Condition(vector=vector))
            found = program(x, time, *vector.values())
        assert expected.std() > 0.1
        assert (found - expected).abs().max() <= 1e-6 * max(1.0, expected.abs().max())


def pickles(path: Path) -> list[str]:
    """The members of an archive that torch would unpickle."""
    with zipfile.ZipFile(path) as archive:
        read = {name: archive.read(name) for name in archive.namelist()}
    pickled = [n for n, data in read.items() if zipfile.is_zipfile(io.BytesIO(data))]
    return pickled + [n for n, data in read.items() if b'"use_pickle": true' in data]


def test_file_holds_no_pickle_and_no_path_of_this_machine(tmp_path: Path) -> None:
    ours = model(MLP, (2,))
    export_program(ours, tmp_path / "program")
    path = tmp_path / "program" / "denoiser.pt2"
    assert not pickles(path)
    source = str(Path(torch_export.__file__).parent.parent).encode()
    with zipfile.ZipFile(path) as archive:
        assert not any(source in archive.read(name) for name in archive.namelist())
    flat = torch_export.Flat(ours.denoiser.net)
    plain = torch.export.export(flat, (torch.zeros(2, 2), torch.zeros(2)))
    torch.export.save(plain, tmp_path / "plain.pt2")
    assert pickles(tmp_path / "plain.pt2")


def test_program_that_differs_is_found_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_export, "TOLERANCE", -1.0)
    with pytest.raises(FromNoiseError, match="differs from ours"):
        export_program(model(MLP, (2,)), tmp_path / "program")
    assert not list(tmp_path.iterdir())


def test_cold_diffusion_is_refused(tmp_path: Path) -> None:
    cold = processes.PROCESSES.build({"kind": "cold", "family": {"kind": "blur", "steps": 4}})
    with pytest.raises(UsageError, match="no noise"):
        export_program(model(DIT, (1, 8, 8), cold), tmp_path / "program")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["gan", slowly("vae"), slowly("hvae")])
def test_generator_is_a_program_asked_at_time_one(kind: str, tmp_path: Path) -> None:
    ours = generator(kind)
    assert "any batch;" in export_program(ours, tmp_path / "program")[0]
    program = torch.export.load(tmp_path / "program" / "denoiser.pt2").module()
    x, time, label = torch.randn(5, 1, 4, 4), torch.ones(5), torch.eye(3)[[0, 1, 2, 0, 1]]
    with torch.no_grad():
        expected = ours.denoiser.net(x, time, Condition(vector={"label": label}))
        assert expected.std() > 0.05
        assert (program(x, time, label) - expected).abs().max() <= 1e-6
    with pytest.raises(UsageError, match="steps=1"):
        ours.denoiser.net(x, 0.5 * time, Condition(vector={"label": label}))


def test_what_torch_cannot_export_is_said_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = model(MLP, (2,))
    branching(ours.denoiser.net, monkeypatch)
    with pytest.raises(FromNoiseError, match=r"torch\.export cannot export this network") as raised:
        export_program(ours, tmp_path / "program")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_u_net_takes_any_size(tmp_path: Path) -> None:
    ours = tiny()
    notes = export_program(ours, tmp_path / "program")
    assert "any batch and size" in notes[0]
    program = torch.export.load(tmp_path / "program" / "denoiser.pt2").module()
    for height, width in ((8, 8), (4, 12), (16, 6)):
        x, time, label = torch.randn(3, 1, height, width), torch.rand(3), torch.eye(3)
        with torch.no_grad():
            expected = ours.denoiser.net(x, time, Condition(vector={"label": label}))
            assert (program(x, time, label) - expected).abs().max() <= 1e-6
