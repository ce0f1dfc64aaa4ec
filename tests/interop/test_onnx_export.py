"""The ONNX folder: the runtime answers as the network does, and its script draws our pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from interop.exported import ALONE, DIT, MLP, branching, drawn, generator, model, run
from model.tiny import tiny
from PIL import Image

from fromnoise import codecs, parameterizations, processes, schedules
from fromnoise.core.errors import FileError, FromNoiseError, UsageError
from fromnoise.core.files import verify_folder
from fromnoise.core.images import to_uint8
from fromnoise.core.randomness import Noise
from fromnoise.interop import onnx_export, onnx_sampler
from fromnoise.interop.onnx_export import export_onnx
from fromnoise.model import Model

pytest.importorskip("onnxscript")


@pytest.mark.parametrize("size", [1, 2, 5, 15, 16, 64, 100, 769])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**62 + 5])
def test_noise_without_torch_is_ours(size: int, seed: int) -> None:
    theirs = onnx_sampler.Noise(seed)
    ours = Noise(seed)
    for _ in range(3):
        expected = ours.normal(torch.zeros(1, size))[0].numpy()
        # torch's own vector code for logarithm and sine differs between processors by more.
        np.testing.assert_allclose(theirs.normal((size,)), expected, rtol=0, atol=4e-6)


def test_noise_of_another_seed_is_not_ours() -> None:
    other = onnx_sampler.Noise(1).normal((64,))
    assert np.abs(other - Noise(0).normal(torch.zeros(1, 64))[0].numpy()).max() > 0.1


class Told:
    """A folder whose network is ours: the script's arithmetic without the exporter."""

    def __init__(self, ours: Model) -> None:
        self.ours = ours
        self.about = onnx_export.sampling_table(ours, (7,))
        self.decoder = None
        self.network = self
        self.inputs = {"x", "time"} | {f"vector_{name}" for name in self.about["labels"]}
        self.flat = onnx_export.Flat(ours.denoiser.net)
        if self.about["self_conditioning"]:
            self.inputs.add("channels_self")

    grid = onnx_sampler.Folder.grid
    decode = onnx_sampler.Folder.decode

    def run(self, _: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        told = [torch.from_numpy(np.asarray(given[name])) for name in self.flat.names]
        with torch.no_grad():
            return [self.flat(*told).numpy()]


def scripted(ours: Model | Told, *arguments: str) -> np.ndarray:
    """What the script's own code draws with our network."""
    folder = Told(ours) if isinstance(ours, Model) else ours
    choice = onnx_sampler.arguments(folder.about, arguments)
    return onnx_sampler.draw(folder, choice)  # type: ignore[arg-type]


SCHEDULES = {
    "linear": (schedules.linear(100), parameterizations.Eps(clock_scale=100.0)),
    "cosine": (schedules.cosine(), parameterizations.V()),
    "zero terminal": (
        schedules.zero_terminal_snr(schedules.scaled_linear()),
        parameterizations.V(),
    ),
    "ve": (schedules.ve(), parameterizations.Score()),
    "vp": (schedules.vp(), parameterizations.Score(clock="time", clock_scale=999.0)),
    "edm": (schedules.edm(), parameterizations.EDM()),
    "flow": (schedules.flow(3.0), parameterizations.Flow()),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm++2m"])
def test_script_draws_ours_on_every_schedule(name: str, sampler: str) -> None:
    schedule, parameterization = SCHEDULES[name]
    ours = model(MLP, (2,), processes.Gaussian(schedule), parameterization)
    folder = Told(ours)
    for grid in ("uniform", "trailing", "karras"):
        expected = ours.sample(
            5, sampler=sampler, grid=grid, steps=7, seed=3, dtype="float32"
        ).tensor.numpy()
        found = scripted(
            folder, "-n5", "--seed=3", f"--sampler={sampler}", f"--grid={grid}", "--steps=7"
        )
        scale = np.abs(expected).max()
        assert np.isfinite(expected).all() and scale > 0.05
        assert np.abs(found - expected).max() <= 2e-5 * max(scale, 1.0)


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        ({"label": 2}, ["--label=2"]),
        ({"label": [0, 1, 2], "guidance": 3.5}, ["--label=0,1,2", "--guidance=3.5"]),
        ({"label": 1, "guidance": 1.0}, ["--label=1", "--guidance=1"]),
        ({"sampler": "ddim", "eta": 0.5}, ["--sampler=ddim", "--eta=0.5"]),
        ({"seed": 2**40}, [f"--seed={2**40}"]),
        ({"batch_size": 2}, ["--batch=2"]),
        ({"shape": (1, 8, 12)}, ["--size", "8", "12"]),
    ],
)
def test_script_takes_what_sample_takes(arguments: dict, choices: list[str]) -> None:
    ours = tiny()
    expected = ours.sample(3, dtype="float32", **arguments).tensor.numpy()
    assert np.abs(scripted(ours, "-n3", *choices) - expected).max() <= 1e-5


def test_script_shows_the_network_its_own_belief_and_passes_over_a_learned_variance() -> None:
    net = {**MLP, "out_channels": 4, "accepts": {"channels": {"self": 2}, "vector": {"label": 3}}}
    ours = model(net, (2,), learned_variance=True)
    expected = ours.sample(4, label=1, guidance=2.5, dtype="float32").tensor.numpy()
    found = scripted(ours, "-n4", "--label=1", "--guidance=2.5")
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        (["--steps=8"], "no grid"),
        (["--label=9"], "none of 0 to 2"),
        (["-n3", "--label=0,1"], "2 labels given for 3"),
        (["--guidance=2"], "told nothing"),
        (["--eta=0.5"], "adds no noise"),
    ],
)
def test_script_says_what_is_wrong(choices: list[str], says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        scripted(tiny(), *choices)


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path, list[str]]:
    ours = model(MLP, (2,), sampler="heun")
    folder = tmp_path_factory.mktemp("points") / "onnx"
    return ours, folder, export_onnx(ours, folder, steps=(10,))


def test_points_drawn_alone_are_ours(points: tuple[Model, Path, list[str]]) -> None:
    ours, folder, notes = points
    expected = ours.sample(20, sampler="dpm++2m", seed=5, dtype="float32").tensor.numpy()
    found = drawn(folder, "-n20", "--seed=5")
    assert np.abs(found - expected).max() <= 2e-5 and expected.std() > 0.1
    assert "dpm++2m in place of heun" in notes[-1]


def test_alone_means_without_torch_and_fromnoise(tmp_path: Path) -> None:
    for library in ("torch", "fromnoise"):
        script = tmp_path / "imports.py"
        script.write_text(f"import {library}")
        assert run(ALONE, str(script)).returncode != 0


def test_folder_is_whole_and_holds_no_path_of_this_machine(
    points: tuple[Model, Path, list[str]],
) -> None:
    _, folder, _ = points
    assert set(verify_folder(folder)["files"]) == {"denoiser.onnx", "schedule.json", "sample.py"}
    source = str(Path(onnx_export.__file__).parent.parent).encode()
    assert not any(source in path.read_bytes() for path in folder.iterdir())
    about = json.loads((folder / "schedule.json").read_text("utf-8"))
    assert len(about["table"]) == 1000 and about["columns"][:3] == ["t", "alpha", "sigma"]
    knots = np.array([row[1] for row in about["table"]])
    np.testing.assert_allclose(knots**2, schedules.cosine().alphas_cumprod.numpy(), rtol=1e-12)


def test_answer_that_differs_is_found_and_nothing_is_left(
    points: tuple[Model, Path, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, folder, _ = points

    def other(*given: object) -> None:
        (tmp_path / "other").mkdir(exist_ok=True)
        path = Path(str(given[-1]))
        path.write_bytes((folder / "denoiser.onnx").read_bytes())

    monkeypatch.setattr(onnx_export, "write_onnx", other)
    changed = model(MLP, (2,))
    with torch.no_grad():
        changed.denoiser.net.leave.bias += 1e-3
    with pytest.raises(FromNoiseError, match="differs from ours"):
        export_onnx(changed, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
    assert export_onnx(ours, tmp_path / "same")


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    cold = processes.PROCESSES.build({"kind": "cold", "family": {"kind": "blur", "steps": 4}})
    coloured = processes.Spectral(schedules.cosine(), 8, 8, blur=1.0)
    for process, says in ((cold, "no noise"), (coloured, "each frequency")):
        with pytest.raises(UsageError, match=says):
            export_onnx(model(DIT, (1, 8, 8), process), tmp_path / "onnx")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(FileError, match="not written by fromnoise"):
        export_onnx(model(MLP, (2,)), tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_what_torch_cannot_export_is_said_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = model(MLP, (2,))
    branching(ours.denoiser.net, monkeypatch)
    with pytest.raises(FromNoiseError, match="ONNX exporter cannot export this network") as raised:
        export_onnx(ours, tmp_path / "onnx")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gan", "vae", "hvae"])
def test_what_a_generator_draws_alone_is_ours(kind: str, tmp_path: Path) -> None:
    ours, folder = generator(kind), tmp_path / "onnx"
    assert "any batch;" in export_onnx(ours, folder)[0]
    expected = ours.sample(3, label=1, dtype="float32").tensor.numpy()
    found = drawn(folder, "-n3", "--label=1")
    assert np.abs(found - expected).max() <= 2e-5 and expected.std() > 0.05
    with pytest.raises(UsageError, match="steps=1"):
        ours.sample(1, label=1, steps=2)


@pytest.mark.slow
@pytest.mark.parametrize("embedded", [True, False])
def test_pictures_drawn_alone_are_ours(
    embedded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not embedded:
        monkeypatch.setattr(onnx_export, "EMBEDDED", 0)
    ours, folder = tiny(), tmp_path / "onnx"
    notes = export_onnx(ours, folder, steps=(10,))
    assert "any batch and size" in notes[0]
    assert (folder / "denoiser.onnx.data").exists() is not embedded
    choice = {"label": 2, "guidance": 3.0, "steps": 10}
    expected = ours.sample(5, seed=3, dtype="float32", **choice).tensor
    found = drawn(folder, "-n5", "--seed=3", "--label=2", "--guidance=3", "--steps=10")
    assert np.abs(found - expected.numpy()).max() <= 2e-5
    files = sorted((tmp_path / "drawn").glob("*.png"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in files]).astype(int)
    assert np.abs(pixels - to_uint8(expected)[..., 0]).max() <= 1
    wide = ours.sample(2, shape=(1, 4, 12), steps=10, dtype="float32").tensor.numpy()
    assert np.abs(drawn(folder, "-n2", "--size", "4", "12", "--steps=10") - wide).max() <= 2e-5


class Halved(codecs.Codec):
    """A codec with weights: latents of half the size, two channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.up = torch.nn.ConvTranspose2d(2, 1, 2, stride=2)
        self.down = torch.nn.Conv2d(1, 2, 2, stride=2)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(x)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.up(z)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, shape[1] // 2, shape[2] // 2)


@pytest.mark.slow
def test_transformer_behind_a_decoder_draws_ours(tmp_path: Path) -> None:
    net = {**DIT, "in_channels": 2}
    ours, folder = model(net, (1, 16, 16), codec=Halved()), tmp_path / "onnx"
    notes = export_onnx(ours, folder, steps=(10,))
    assert len(notes) == 2 and "any batch;" in notes[0]
    expected = ours.sample(3, label=1, dtype="float32").tensor.numpy()
    found = drawn(folder, "-n3", "--label=1")
    assert found.shape == (3, 1, 16, 16) and np.abs(found - expected).max() <= 2e-5


@pytest.mark.slow
def test_every_slot_of_a_condition_is_an_input(tmp_path: Path) -> None:
    net = {
        "kind": "unet",
        "in_channels": 1,
        "channels": 4,
        "multipliers": [1, 2],
        "blocks": 1,
        "attention": {"at": [2]},
        "style": {"groups": 2, "resample": "block", "scale_shift": True},
        "accepts": {"channels": {"low": 2}, "vector": {"size": 3}, "tokens": 5},
    }
    ours = model({**net, "accepts": {}}, (1, 8, 8))
    ours.denoiser.net = model(net, (1, 8, 8)).denoiser.net
    export_onnx(ours, tmp_path / "onnx", steps=(10,))
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "denoiser.onnx")
    names = [entry.name for entry in session.get_inputs()]
    assert names == ["x", "time", "channels_low", "vector_size", "tokens", "tokens_mask"]
