"""The short examples run, each in a folder of its own, and what they print is true."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parents[2] / "examples"
SHORT = sorted(p for p in FOLDER.glob("*.py") if p.stem != "from_scratch")


@pytest.fixture
def said(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """What an example prints; it runs in an empty folder, with the arguments asked for."""
    name, *arguments = request.param.split()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def example(command: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("said", [command], indirect=True, ids=[command.split()[0]])


def numbers(line: str) -> list[float]:
    return [float(n) for n in re.findall(r"[-+]?\d+\.?\d*(?:e[-+]\d+)?", line)]


@pytest.mark.parametrize("path", SHORT, ids=lambda p: p.stem)
def test_an_example_is_one_page_with_one_idea(path: Path) -> None:
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= 40
    assert source.startswith('"""')
    # Importing it does nothing, so that its pieces can be tried out.
    assert 'if __name__ == "__main__":' in source
    assert f"test_{path.stem}" in globals()


@example("exact_oracle")
def test_exact_oracle(said: str) -> None:
    orders = {line.split()[0]: numbers(line)[-1] for line in said.splitlines()[1:]}
    declared = {"euler": 1, "heun": 2, "dpm++2m": 2, "dpm++3m": 3}
    assert orders.keys() == declared.keys()
    assert all(abs(orders[name] - order) < 0.15 for name, order in declared.items())


@example("guidance")
def test_guidance(said: str) -> None:
    means, spreads = zip(*(numbers(line)[1:3] for line in said.splitlines()), strict=True)
    # Without a label both classes: variance 0.5² + 0.5². At 1 the class itself.
    assert abs(means[0]) < 0.05 and abs(spreads[0] - 0.5**0.5) < 0.03
    assert abs(means[1] - 0.5) < 0.05 and abs(spreads[1] - 0.5) < 0.03
    assert list(means) == sorted(means)
    assert list(spreads) == sorted(spreads, reverse=True)


@example("film_strip")
def test_film_strip(said: str, tmp_path: Path) -> None:
    assert numbers(said)[-1] < 1e-3
    strip = np.asarray(Image.open(tmp_path / "film.png"))
    assert strip.shape == (662, 662)
    # The last column shows the same picture twice: all noise is gone.
    first, second = strip[2:66, -66:-2], strip[68:132, -66:-2]
    assert np.abs(first.astype(int) - second).max() <= 1
    assert first.std() > 20


@example("train_points 30")
def test_train_points(said: str, tmp_path: Path) -> None:
    assert "step 30: held-out loss" in said
    assert "2000 points of points-checkerboard" in said
    assert Image.open(tmp_path / "points.png").size == (320, 320)
    assert (tmp_path / "runs/points/config.json").exists()


@example("custom_sampler")
def test_custom_sampler(said: str) -> None:
    rows = [numbers(line) for line in said.splitlines()]
    errors, apart = [row[1] for row in rows], [row[2] for row in rows]
    assert max(apart) < 1e-12
    assert 3.5 < errors[1] / errors[2] < 5


@example("cold_diffusion")
def test_cold_diffusion(said: str) -> None:
    blurred, first, second = (numbers(line)[-1] for line in said.splitlines())
    assert second < 0.8 * first < first < 0.6 * blurred
