"""The transformer in a U-Net: its parts are laws here, its whole is diffusers' in tests/interop."""

import pytest
import torch
from nets.filling import filled
from torch import Tensor

from fromnoise import nets
from fromnoise.core.errors import UsageError
from fromnoise.layers.attention import ReadMaps, ReplaceMaps, hooked
from fromnoise.layers.blocks import Style
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.layers.embeddings import sinusoidal
from fromnoise.layers.fast import prepare
from fromnoise.layers.fast_kernels import OneDNNLinear
from fromnoise.layers.spatial_transformer import SpatialTransformer

TRANSFORMER = {"depth": [1, 2], "middle": 1, "projection": "linear", "only_cross": [2]}
SMALL = {
    "kind": "unet",
    "in_channels": 2,
    "channels": 8,
    "multipliers": [1, 2, 2],
    "blocks": 1,
    "attention": {"at": [1, 2], "heads": 2, "transformer": TRANSFORMER},
    "style": {"groups": 4},
    "accepts": {"tokens": 5},
}


def asked(tokens: Tokens | None = None) -> tuple[Tensor, Tensor, Condition]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 8, 8, generator=generator)
    values = torch.randn(2, 6, 5, generator=generator)
    return x, torch.tensor([3.0, 500.0]), Condition(tokens=tokens or Tokens(values))


def test_it_starts_as_the_identity() -> None:
    layer = SpatialTransformer(2, 8, 2, Style(groups=4), 5, "here", depth=2)
    _, _, told = asked()
    h = torch.randn(2, 8, 4, 6)
    assert told.tokens is not None
    assert torch.equal(layer(h, told.tokens), h)
    layer.leave.weight.data.normal_()
    assert not torch.allclose(layer(h, told.tokens), h, atol=1e-3)


@pytest.mark.parametrize("projection", ["linear", "convolution"])
def test_masked_tokens_are_as_if_they_were_not_there(projection: str) -> None:
    made = TRANSFORMER | {"projection": projection}
    net = filled(SMALL | {"attention": SMALL["attention"] | {"transformer": made}}).double()
    x, time, told = asked()
    assert told.tokens is not None
    values = told.tokens.values.double()
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 4:] = False
    short = net(x.double(), time, Condition(tokens=Tokens(values[:, :4])))
    masked = net(x.double(), time, Condition(tokens=Tokens(values, mask)))
    torch.testing.assert_close(masked, short, atol=1e-12, rtol=1e-12)
    heard = net(x.double(), time, Condition(tokens=Tokens(values)))
    assert (heard - short).abs().max() > 1e-3


def test_hooks_see_every_attention_by_name_and_can_change_it() -> None:
    net = filled(SMALL)
    x, time, told = asked()
    before = net(x, time, told)
    with hooked(read := ReadMaps()):
        torch.testing.assert_close(net(x, time, told), before, atol=1e-5, rtol=1e-5)
    modules = dict(net.named_modules())
    names = {name for name in modules if name.endswith((".own", ".cross"))}
    assert read.maps_at.keys() == names and len(names) == 2 * (1 + 2 + 1 + 2 * (2 + 1))
    assert all(modules[name].place.name == name for name in names)
    # At factor 2 both attentions look at the six tokens, elsewhere the first at the picture.
    keys = {name: maps[0].shape[-1] for name, maps in read.maps_at.items()}
    for name, count in keys.items():
        pictures = 64 if name.startswith(("down.0", "up.2")) else 4
        only = name.startswith(("down.1", "up.1"))
        assert count == (6 if only or name.endswith("cross") else pictures), name
    with hooked(ReplaceMaps(lambda place, part: 0 * part, lambda place: place.kind == "cross")):
        assert not torch.allclose(net(x, time, told), before, atol=1e-4)
    assert torch.equal(net(x, time, told), before)


def test_the_speed_path_keeps_the_answer() -> None:
    net = filled(SMALL)
    x, time, told = asked()
    ready, report = prepare(net, exact=True)
    if "plain" not in report:
        first = ready.get_submodule("down.0.attentions.0.blocks.0.own.query")
        assert type(first) is OneDNNLinear
    with torch.inference_mode():
        torch.testing.assert_close(ready(x, time, told), net(x, time, told), atol=5e-6, rtol=5e-6)
        coarse, _ = prepare(net, torch.bfloat16)
        torch.testing.assert_close(coarse(x, time, told), net(x, time, told), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("space", [(8, 8), (9, 6), (7, 5)])
def test_the_speed_path_takes_uneven_sizes(space: tuple[int, int]) -> None:
    net = filled(SMALL | {"style": {"groups": 4, "uneven": True}})
    _, time, told = asked()
    x = torch.randn(2, 2, *space)
    ready, _ = prepare(net, exact=True)
    with torch.inference_mode():
        answer = net(x, time, told)
        torch.testing.assert_close(ready(x, time, told), answer, atol=5e-6, rtol=5e-6)
        # Where sizes halve, it is the same network as without.
        if space == (8, 8):
            plain = filled(SMALL)(x, time, told)
            torch.testing.assert_close(plain, answer, atol=1e-6, rtol=1e-6)


def test_joined_vectors_are_told_as_sines_side_by_side() -> None:
    vector = {"label": 3, "pooled": 4, "sizes": 2}
    net = filled(
        SMALL
        | {
            "style": {"groups": 4, "joined": {"pooled": 0, "sizes": 6}},
            "accepts": {"tokens": 5, "vector": vector},
            "time": "adm",
        }
    )
    assert isinstance(net, nets.UNet) and net.embedding.joined is not None
    time, raw = torch.tensor([3.0, 500.0]), {k: torch.randn(2, n) for k, n in vector.items()}
    raw["sizes"] = torch.tensor([[512.0, 768.0], [0.0, 1024.0]])
    waves = [sinusoidal(raw["sizes"][:, i], 6, "adm") for i in range(2)]
    joined = net.embedding.joined
    assert joined.first.weight.shape == (32, 4 + 2 * 6)
    hidden = torch.nn.functional.silu(joined.first(torch.cat([raw["pooled"], *waves], dim=1)))
    expected = net.embedding.time(time) + net.embedding.vector["label"](raw["label"])
    torch.testing.assert_close(net.embedding(time, raw), expected + joined.second(hidden))
    # In bfloat16 the sines are still those of whole pixels.
    coarse = joined.to(torch.bfloat16)
    near = coarse._features(torch.tensor([[1023.0], [1024.0]]), 6)
    assert not torch.equal(near[0], near[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"accepts": {}}, "attention.transformer attends to tokens"),
        ({"transformer": {"depth": [1, 2, 3]}}, "3 numbers for 2 levels with attention"),
        ({"transformer": {"only_cross": [4]}}, "no attention at factor 4; it is at .1, 2."),
        ({"transformer": {"depth": []}}, "depth: .*at least 1"),
        ({"transformer": {"depth": [0]}}, "depth.*greater than or equal to 1"),
        ({"transformer": {"projection": "dense"}}, "projection.*'convolution' or 'linear'"),
        (
            {"style": {"groups": 4, "uneven": True, "up": "shuffle"}},
            "style.uneven needs style.resample 'layer'",
        ),
        ({"heads": 3}, "3 attention heads do not divide 8 channels"),
        ({"style": {"groups": 4, "joined": {"pooled": 0}}}, "'pooled'"),
        (
            {
                "style": {"groups": 4, "joined": {"sizes": 4}},
                "accepts": {"tokens": 5, "vector": {"sizes": 2}},
                "time": "fourier",
            },
            "time 'fourier' has none for them",
        ),
    ],
)
def test_what_cannot_be_built_says_why(changed: dict, message: str) -> None:
    parts = {key: changed[key] for key in ("transformer", "heads") if key in changed}
    config = SMALL | {"attention": SMALL["attention"] | parts}
    config |= {key: value for key, value in changed.items() if key not in parts}
    with pytest.raises(UsageError, match=message):
        nets.build(config, device="meta")
