"""A second pass is image to image over the enlarged first one, with noise of its own."""

import pytest
import torch
from model.tiny import tiny
from model.tiny_latent import tiny_latent
from torch.nn.functional import interpolate

import fromnoise as fn
from fromnoise import codecs, nets, processes
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.explain import film
from fromnoise.model import Model
from fromnoise.parameterizations import V
from fromnoise.samplers import last


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_latent(tmp_path_factory.mktemp("latent"))


@pytest.mark.parametrize("upscaler", ["bicubic", "latent"])
def test_it_is_two_calls_in_one(upscaler: str, model: Model) -> None:
    asked = {"prompt": "a cat", "steps": 5, "dtype": "float32"}
    small = model.stream(2, seed=3, **asked)
    first = last(small)
    if upscaler == "latent":
        clean = interpolate(first, size=(12, 12), mode="bicubic")
    else:
        larger = interpolate(model.decode(first), size=(48, 48), mode="bicubic").clamp(-1, 1)
        with torch.no_grad():
            clean = torch.cat([model.codec.encode(one[None]) for one in larger])
    times = fn.grids.leading(model.denoiser.process.schedule, 10)[4:]
    seeds = [seed ^ (1 << 60) for seed in (3, 4)]
    noise = Noise(seeds)
    t = times[:1].expand(2)
    start = model.denoiser.process.corrupt(clean, t, noise.normal(clean))
    expected = model.sample(
        2, prompt="a cat", grid=times, start=start, shape=(3, 48, 48), dtype="float32"
    )
    hires = fn.Hires(1.5, 0.6, steps=10, upscaler=upscaler)
    found = model.sample(2, seed=3, hires=hires, **asked)
    assert torch.equal(found.tensor, expected.tensor)
    assert found.recipe["steps"] == 5 and found.recipe["shape"] == [3, 32, 32]
    assert not torch.equal(found.tensor[:, :, :32, :32], model.decode(first))


def test_steps_are_counted_through_and_grow_between(model: Model) -> None:
    stream = model.stream(1, prompt="a", steps=4, hires=fn.Hires(2.0, 0.5))
    steps = list(stream)
    assert [step.index for step in steps] == list(range(6)) and stream.count == 6
    assert {step.count for step in steps} == {6}
    assert [tuple(step.x.shape[1:]) for step in steps] == stream.shapes
    assert stream.shapes == [(4, 8, 8)] * 4 + [(4, 16, 16)] * 2
    assert stream.work == 4 + 2 * 4
    assert film(iter(steps), model.decode).size[0] > 6 * 64


def test_noise_of_the_second_pass_is_not_the_first_ones(model: Model) -> None:
    stochastic = model.sample(
        1, prompt="a", sampler="euler_a", steps=4, hires=fn.Hires(2.0, 1.0), seed=1
    )
    again = model.sample(
        1, prompt="a", sampler="euler_a", steps=4, hires=fn.Hires(2.0, 1.0), seed=1, batch_size=1
    )
    assert torch.equal(stochastic.tensor, again.tensor)


def test_prompts_that_change_do_so_in_the_second_pass_too(model: Model) -> None:
    """The schedule runs over each pass, so [a:b:0.5] ends both with b."""
    asked = {"steps": 4, "guidance": 1.0, "hires": fn.Hires(2.0, 1.0)}
    changed = model.sample(1, prompt="[cat:dog:0.5]", **asked)
    plain = model.sample(1, prompt="cat", **asked)
    assert not torch.equal(changed.tensor, plain.tensor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 1.0}, "hires 1 is not above 1"),
        ({"scale": float("nan")}, "not above 1"),
        ({"strength": 0.0}, "strength 0"),
        ({"steps": 0}, "hires steps 0"),
        ({"upscaler": "magic"}, "upscaler 'magic'"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fn.Hires(**options)  # type: ignore[arg-type]


def test_models_of_one_size_have_no_second_pass() -> None:
    net = nets.build(
        {"kind": "dit", "in_channels": 1, "size": 8, "width": 8, "depth": 1, "heads": 1}
    )
    schedule = fn.schedules.cosine()
    fixed = Model(
        NetworkDenoiser(net, processes.Gaussian(schedule), V()),
        (1, 8, 8),
        codecs.Identity(),
        fn.encoders.Conditioning({}),
    )
    with pytest.raises(UsageError, match="no larger second pass"):
        fixed.stream(1, hires=fn.Hires(2.0))
    with pytest.raises(UsageError, match="draws pictures of 8 by 8 only"):
        fixed.stream(1, shape=(1, 16, 16))
    with pytest.raises(UsageError, match="no larger in steps of 2; use 1.25"):
        tiny().stream(1, label=1, hires=fn.Hires(1.1))
