"""The weights within what trainers write around them, and which of two kinds are taken."""

import argparse
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fromnoise.core.errors import FileError
from fromnoise.core.files import load_tensors
from fromnoise.interop.sandbox import extract

A, B = torch.randn(2, 3), torch.randn(4)


def _taken(folder: Path, value: Any, which: str = "auto") -> tuple[dict[str, torch.Tensor], Any]:
    torch.save(value, folder / "x.pt")
    found = extract(folder / "x.pt", folder / "x.safetensors", which)
    return load_tensors(folder / "x.safetensors")[0], found


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


class Score(nn.Module):
    """Buffers, Fourier frequencies that do not train, and layers in one list, as score_sde has."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sigmas", torch.linspace(1, 2, 5))
        frequencies = nn.Module()
        frequencies.W = nn.Parameter(torch.randn(4), requires_grad=False)
        self.all_modules = nn.ModuleList([frequencies, nn.Linear(4, 4), nn.Linear(4, 4)])


def _score_sde() -> tuple[Score, dict[str, Any]]:
    model = Score()
    shadow = [torch.randn_like(p) for p in model.parameters() if p.requires_grad]
    state = OrderedDict((f"module.{k}", v) for k, v in model.state_dict().items())
    moments = {i: {"step": torch.tensor(9.0), "exp_avg": p} for i, p in enumerate(shadow)}
    optimizer = {"state": moments, "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999)}]}
    ema = {"decay": 0.999, "num_updates": 7, "shadow_params": shadow}
    state_dict = {"optimizer": optimizer, "model": state, "ema": ema, "step": 9}
    return model, state_dict


def test_the_nameless_average_of_score_sde_finds_its_names(tmp_path: Path) -> None:
    model, checkpoint = _score_sde()
    got, found = _taken(tmp_path, checkpoint)
    assert (found.wrapper, found.which, found.notes["step"]) == ("score_sde", "ema", "9")
    shadow = iter(checkpoint["ema"]["shadow_params"])
    expected = {
        f"module.{name}": next(shadow) if parameter.requires_grad else parameter.detach()
        for name, parameter in model.named_parameters()
    }
    assert _equal(got, expected | {"module.sigmas": model.sigmas})
    got, found = _taken(tmp_path, checkpoint, "model")
    assert found.which == "model" and _equal(got, checkpoint["model"])
    checkpoint["ema"]["shadow_params"].pop()
    with pytest.raises(FileError, match="average does not fit"):
        _taken(tmp_path, checkpoint)


def test_k_diffusion_keeps_its_configuration(tmp_path: Path) -> None:
    config = {"model": {"type": "image_v1", "channels": [128, 256]}}
    value = {"config": config, "model": {"w": A}, "model_ema": {"w": B}, "epoch": 3, "step": 10}
    got, found = _taken(tmp_path, value | {"gns_stats": {"x": 1.0}, "demo_gen": torch.ones(3)})
    assert found.wrapper == "k-diffusion" and _equal(got, {"w": B})
    assert json.loads(found.notes["config"]) == config


def test_denoising_diffusion_pytorch_has_its_average_under_a_prefix(tmp_path: Path) -> None:
    ema = {"initted": torch.tensor(True), "step": torch.tensor(3), "online_model.w": A}
    value = {"step": 3, "model": {"w": A}, "ema": ema | {"ema_model.w": B}, "version": "2.2.5"}
    got, found = _taken(tmp_path, value | {"opt": {"state": {0: {"exp_avg": A}}}, "scaler": None})
    assert found.wrapper == "denoising-diffusion-pytorch" and _equal(got, {"w": B})
    assert found.notes == {"step": "3", "version": "2.2.5"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (OrderedDict(a=A, b=B), {"a": A, "b": B}),
        ({"state_dict": {"a": A}, "epoch": 1, "lr": 0.5}, {"a": A}),
        ({"model": {"a": A}, "ema": {"a": B}, "args": argparse.Namespace(lr=1)}, {"a": B}),
        ({"ema": {"a": B}}, {"a": B}),
        (
            {"encoder": {"a": A}, "decoder": {"deep": {"b": B}}},
            {"encoder.a": A, "decoder.deep.b": B},
        ),
    ],
)
def test_plain_wrappers(tmp_path: Path, value: Any, expected: dict[str, torch.Tensor]) -> None:
    assert _equal(_taken(tmp_path, value)[0], expected)


def test_the_state_dict_of_a_module_is_read_with_its_metadata(tmp_path: Path) -> None:
    state = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()
    assert hasattr(state, "_metadata")
    assert _equal(_taken(tmp_path, state)[0], dict(state))


def test_weights_that_are_not_there_are_not_replaced_by_others(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="without ema weights; it holds model"):
        _taken(tmp_path, {"state_dict": {"a": A}}, "ema")
    with pytest.raises(FileError, match="without weights"):
        _taken(tmp_path, {"step": 1})
    with pytest.raises(FileError, match="two tensors of the name"):
        _taken(tmp_path, {"a": {"b": A}, "a.b": B})


def test_numpy_numbers_among_the_figures_are_no_hindrance(tmp_path: Path) -> None:
    import numpy as np

    value = {"state_dict": {"a": A}, "best": np.float64(0.5), "seen": np.int64(3)}
    assert _equal(_taken(tmp_path, value)[0], {"a": A})
