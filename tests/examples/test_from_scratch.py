"""The example from scratch is the library in small: same schedule, loss and samples."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fromnoise import denoisers, grids, parameterizations, samplers, schedules
from fromnoise.core.randomness import FixedNoise
from fromnoise.layers.condition import Condition
from fromnoise.nets import Network

FILE = Path(__file__).parents[2] / "examples" / "from_scratch.py"


@pytest.fixture(scope="module")
def scratch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("from_scratch", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Adapted(torch.nn.Module):
    """The example's network under the library's signature."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, x: torch.Tensor, time: torch.Tensor, condition: Condition | None = None
    ) -> torch.Tensor:
        made: torch.Tensor = self.net(x, time)
        return made


def network(scratch: ModuleType) -> torch.nn.Module:
    torch.manual_seed(0)
    made: torch.nn.Module = scratch.UNet(width=16).double()
    return made


def denoiser(net: torch.nn.Module, steps: int) -> denoisers.NetworkDenoiser:
    adapted: Network = Adapted(net)  # type: ignore[assignment]
    eps = parameterizations.Eps(clock_scale=float(steps))
    return denoisers.NetworkDenoiser(adapted, schedules.linear(steps, 1e-4, 0.02), eps)


def test_the_file_stands_alone_and_is_short() -> None:
    source = FILE.read_text("utf-8")
    assert len(source.splitlines()) <= 150
    imported = {
        line.split()[1].split(".")[0]
        for line in source.splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported == {"math", "struct", "time", "zlib", "torch", "sklearn"}


def test_its_schedule_is_the_librarys(scratch: ModuleType) -> None:
    betas, alphas_cumprod = scratch.schedule()
    ours = schedules.linear(500, 1e-4, 0.02)
    np.testing.assert_allclose(betas, ours.betas, rtol=1e-11)
    np.testing.assert_allclose(alphas_cumprod, ours.alphas_cumprod, rtol=1e-12)


def test_its_loss_is_the_librarys(scratch: ModuleType) -> None:
    net = network(scratch)
    ours = denoiser(net, scratch.STEPS)
    x0 = scratch.digits()[:20].double()
    t = torch.linspace(0, scratch.STEPS - 1, 20).long()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1)).double()
    when = ours.process.schedule.index_time(t)
    x = ours.process.corrupt(x0, when, noise)
    np.testing.assert_allclose(scratch.corrupt(x0, t, noise), x, rtol=0, atol=1e-12)
    scales = ours.process.reference(when)
    target = ours.parameterization.regression_target(x0, noise, scales)
    wanted = (ours.output(x, when) - target).square().mean()
    assert scratch.loss(net, x0, t, noise).item() == pytest.approx(wanted.item(), rel=1e-10)


def test_its_samples_are_the_librarys(scratch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ancestral sampler of algorithm 2, with σ² = β, every step of it, on the same noise."""
    monkeypatch.setattr(scratch, "STEPS", 100)
    net, steps, n = network(scratch), 100, 2
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(steps + 1, n, 1, 8, 8, generator=generator).double()
    theirs = scratch.sample(net, n, noise[:steps])
    ours = denoiser(net, steps)
    grid = grids.trailing(ours.process.schedule, steps)
    sampler = samplers.get("ddpm_large")
    walk = samplers.sample(ours, sampler, grid, noise[0], noise=FixedNoise(list(noise[1:])))
    made = samplers.last(walk)
    np.testing.assert_allclose(made, theirs, rtol=1e-7, atol=1e-7 * theirs.abs().max().item())


def test_training_learns(scratch: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """A hundred steps bring the loss from 1, that of saying nothing, below a half."""
    torch.manual_seed(0)
    net, x0 = scratch.UNet(width=16), scratch.digits()
    assert x0.shape == (1797, 1, 8, 8)
    assert (x0.min().item(), x0.max().item()) == (-1.0, 1.0)
    scratch.train(net, x0, steps=100, batch=32)
    with torch.no_grad():
        t = torch.randint(scratch.STEPS, (500,), generator=torch.Generator().manual_seed(0))
        value = scratch.loss(net, x0[:500], t, torch.randn_like(x0[:500])).item()
    assert 0.05 < value < 0.5
    assert "step 100 of 100" in capsys.readouterr().out


def test_the_picture_it_writes(scratch: ModuleType, tmp_path: Path) -> None:
    from PIL import Image

    pictures = torch.linspace(-1, 1, 20).view(20, 1, 1, 1).expand(20, 1, 8, 8)
    scratch.write_png(tmp_path / "grid.png", pictures, columns=10, zoom=3)
    read = np.asarray(Image.open(tmp_path / "grid.png"))
    assert read.shape == (2 * 28, 10 * 28)
    assert read[14, 14] == 0
    assert read[42, 9 * 28 + 14] == 255
    assert read[14, 5 * 28 + 14] == round((2 * 5 / 19) * 127.5)
