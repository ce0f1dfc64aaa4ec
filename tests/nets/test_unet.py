import pytest
import torch
from nets.filling import filled, told
from torch import nn

from fromnoise import nets
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.attention import ReadMaps, ReplaceMaps, hooked
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.layers.fast import prepare

SMALL = {
    "kind": "unet",
    "in_channels": 2,
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": {"at": [2], "heads": 2},
    "style": {"groups": 4},
}
STYLE = {"groups": 4}
TOLD = {
    "channels": {"mask": 1, "self": 2},
    "vector": {"label": 3, "size": 2},
    "tokens": 5,
}
BIGGAN = {"resample": "block"}
SCALED = {"scale_shift": True}
TRANSFORMER = {
    "accepts": {"tokens": 5, "vector": {"label": 3, "sizes": 2}},
    "attention": {"at": [1, 2], "heads": 2, "transformer": {"depth": [1, 2], "middle": 2}},
}
LINEAR = {"projection": "linear", "only_cross": [1]}
OPTIONS = {
    "plain": {},
    "one dimension": {"spatial_dims": 1},
    "three dimensions": {"spatial_dims": 3},
    "scale and shift": {"style": STYLE | {"scale_shift": True}},
    "coordinates": {"style": STYLE | {"coordinates": True}},
    "shuffle": {"style": STYLE | {"up": "shuffle"}},
    "shuffle in one dimension": {"style": STYLE | {"up": "shuffle"}, "spatial_dims": 1},
    "shuffle in three dimensions": {
        "style": STYLE | {"up": "shuffle"},
        "spatial_dims": 3,
    },
    "asymmetric": {"style": STYLE | {"down": "asymmetric"}},
    "adm time": {"time": "adm"},
    "fourier time": {"time": "fourier"},
    "no attention": {"attention": {"middle": False}},
    "everywhere": {"attention": {"at": [1, 2], "head_channels": 4}},
    "learned variance": {"out_channels": 4},
    "every slot": {"accepts": TOLD},
    "every slot in three dimensions": {"accepts": TOLD, "spatial_dims": 3},
    "dropout": {"style": STYLE | {"dropout": 0.2}},
    "one level": {"multipliers": [1], "attention": {"at": [1]}},
    "blocks change the size": {"style": STYLE | BIGGAN | SCALED},
    "blocks in one dimension": {"style": STYLE | BIGGAN, "spatial_dims": 1},
    "projected shortcuts": {"style": STYLE | BIGGAN | {"shortcut": "projected"}},
    "filtered": {"style": STYLE | BIGGAN | {"filter": "fir"}},
    "filtered in three dimensions": {
        "style": STYLE | BIGGAN | {"filter": "fir"},
        "spatial_dims": 3,
    },
    "scaled sums": {"style": STYLE | {"residual_scale": 0.5**0.5}},
    "pyramid": {"style": STYLE | {"pyramid": "residual"}, "multipliers": [1, 2, 2]},
    "filtered pyramid": {
        "style": STYLE | BIGGAN | {"pyramid": "residual", "filter": "fir"},
        "accepts": {"channels": {"mask": 1}},
    },
    "attention after the last": {"attention": {"at": [2], "up": "last"}, "blocks": 2},
    "ncsn++ time": {"time": "ncsnpp"},
    "closed time": {"time": "closed"},
    "half as wide": {"multipliers": [0.5, 1], "style": {"groups": 2}},
    "transformers": TRANSFORMER,
    "transformers in three dimensions": TRANSFORMER | {"spatial_dims": 3},
    "linear transformers": TRANSFORMER | {"attention": {"at": [1, 2], "transformer": LINEAR}},
    "joined vectors": TRANSFORMER | {"style": STYLE | {"joined": {"label": 0, "sizes": 4}}},
    "folded": {"style": STYLE | {"patch": 2}, "accepts": {"channels": {"mask": 1}}},
    "folded in one dimension": {"style": STYLE | {"patch": 2}, "spatial_dims": 1},
}


def test_a_folded_network_is_the_plain_one_on_folded_pictures():
    network = filled(SMALL | {"style": STYLE | {"patch": 2}})
    plain = nets.build(SMALL | {"in_channels": 8})
    plain.load_state_dict(network.state_dict())
    generator = torch.Generator().manual_seed(0)
    x, time = torch.randn(2, 2, 8, 8, generator=generator), torch.tensor([3.0, 500.0])
    folded = torch.nn.functional.pixel_unshuffle(x, 2)
    answer = torch.nn.functional.pixel_shuffle(plain(folded, time), 2)
    assert torch.equal(network(x, time), answer)


def test_coordinates_are_what_two_more_channels_would_tell():
    network = filled(SMALL | {"style": STYLE | {"coordinates": True}})
    plain = nets.build(SMALL | {"accepts": {"channels": {"place": 2}}})
    plain.load_state_dict(network.state_dict())
    generator = torch.Generator().manual_seed(0)
    x, time = torch.randn(2, 2, 8, 4, generator=generator), torch.tensor([3.0, 500.0])
    down, across = torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 4)
    place = torch.stack([down[:, None].expand(8, 4), across.expand(8, 4)])
    told = Condition(channels={"place": place.expand(2, 2, 8, 4)})
    assert torch.equal(network(x, time), plain(x, time, told))
    turned = Condition(channels={"place": place.flip(0).expand(2, 2, 8, 4)})
    assert not torch.equal(network(x, time), plain(x, time, turned))


def ask(network: nets.Network, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Condition]:
    space = (8, 4, 6)[: network.spatial_dims]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, network.in_channels, *space, generator=generator)
    return x, torch.tensor([3.0, 500.0]), told(network, 2, space, seed)


def test_on_the_meta_device_no_memory_is_needed():
    config = nets.PRESETS["ddpm-cifar10"]() | {"channels": 65536}
    network = nets.build(config, device="meta")
    assert sum(p.numel() * p.element_size() for p in network.parameters()) > 2**45
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}


def test_building_leaves_the_default_device_alone_and_meta_has_the_same_shapes():
    shapes = {k: v.shape for k, v in nets.build(SMALL, device="meta").state_dict().items()}
    here = nets.build(SMALL).state_dict()
    assert {k: v.shape for k, v in here.items()} == shapes
    assert {v.device.type for v in here.values()} == {"cpu"}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_parameter_gets_a_gradient(option):
    network = filled(SMALL | OPTIONS[option]).train()
    x, time, condition = ask(network)
    answer = network(x, time, condition)
    assert answer.shape == (2, network.out_channels, *x.shape[2:])
    answer.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("option", OPTIONS)
def test_the_answer_starts_at_zero_and_the_config_makes_it_again(option):
    network = nets.build(SMALL | OPTIONS[option])
    assert network(*ask(network)).abs().max() == 0
    assert nets.build(network.config, device="meta").config == network.config


def test_each_new_value_is_heard():
    # Where the parameters are the same in number and shape, the answers still differ.
    base = {"resample": "block", "shortcut": "projected"}
    plain = filled(SMALL | {"style": STYLE | base})
    x, time, condition = ask(plain)
    answers = [plain(x, time, condition)]
    for change in ({"filter": "fir"}, {"residual_scale": 0.5**0.5}):
        other = filled(SMALL | {"style": STYLE | base | change})
        other.load_state_dict(plain.state_dict())
        answers.append(other(x, time, condition))
    for index, answer in enumerate(answers):
        for before in answers[:index]:
            assert (answer - before).abs().max() > 1e-3


def test_the_speed_path_leaves_blocks_that_change_the_size_as_they_are():
    style = STYLE | BIGGAN | {"filter": "fir", "residual_scale": 0.5**0.5, "pyramid": "residual"}
    network = filled(SMALL | {"style": style})
    x, time, condition = ask(network)
    ready, _ = prepare(network, exact=True)
    with torch.inference_mode():
        torch.testing.assert_close(
            ready(x, time, condition), network(x, time, condition), atol=5e-6, rtol=5e-6
        )


def test_a_width_must_be_whole():
    with pytest.raises(UsageError, match=r"multiplier 0\.3 of 8 channels"):
        nets.build(SMALL | {"multipliers": [0.3, 1]})
    with pytest.raises(UsageError, match="positive multipliers"):
        nets.build(SMALL | {"multipliers": [0, 1]})


def test_each_slot_is_heard():
    network = filled(SMALL | {"accepts": TOLD})
    x, time, condition = ask(network)
    base = network(x, time, condition)
    other = told(network, 2, x.shape[2:], seed=9)
    parts = (condition.channels, condition.vector, condition.tokens)
    for changed in (
        Condition({**parts[0], "mask": other.channels["mask"]}, parts[1], parts[2]),
        Condition({**parts[0], "self": other.channels["self"]}, parts[1], parts[2]),
        Condition(parts[0], {**parts[1], "label": other.vector["label"]}, parts[2]),
        Condition(parts[0], {**parts[1], "size": other.vector["size"]}, parts[2]),
        Condition(*parts[:2], other.tokens),
    ):
        assert (network(x, time, changed) - base).abs().max() > 1e-4


def test_channels_follow_x_in_declared_order():
    one = filled(SMALL | {"accepts": {"channels": {"a": 1, "b": 2}}})
    two = nets.build(SMALL | {"accepts": {"channels": {"b": 2, "a": 1}}}).eval()
    state = one.state_dict()
    state["enter.weight"] = state["enter.weight"][:, [0, 1, 3, 4, 2]]
    two.load_state_dict(state)
    x, time, condition = ask(one)
    backwards = Condition(dict(reversed(condition.channels.items())))
    torch.testing.assert_close(one(x, time, condition), two(x, time, condition))
    assert torch.equal(one(x, time, condition), one(x, time, backwards))
    wide = filled(SMALL | {"in_channels": 5, "out_channels": 2})
    wide.load_state_dict(one.state_dict())
    joined = torch.cat([x, condition.channels["a"], condition.channels["b"]], dim=1)
    assert torch.equal(wide(joined, time), one(x, time, condition))


def test_no_self_conditioning_is_zeros():
    network = filled(SMALL | {"accepts": {"channels": {"self": 2}}})
    x, time, _ = ask(network)
    assert torch.equal(network(x, time), network(x, time, Condition({"self": torch.zeros_like(x)})))


def test_a_label_is_a_row_of_an_embedding_table():
    network = filled(SMALL | {"accepts": {"vector": {"label": 3}}})
    table = nn.Embedding.from_pretrained(network.embedding.vector["label"].weight.T)
    labels = torch.tensor([2, 0])
    raw = {"label": nn.functional.one_hot(labels, 3)}
    time = torch.tensor([3.0, 500.0])
    expected = network.embedding.time(time) + table(labels)
    torch.testing.assert_close(network.embedding(time, raw), expected)
    null = network.embedding(time, {"label": torch.zeros(2, 3)})
    assert torch.equal(null, network.embedding.time(time))
    x, time, _ = ask(network)
    assert torch.isfinite(network(x, time, Condition(vector=raw))).all()


def test_mirrored_weights_give_the_mirrored_answer():
    # One level only: a stride of 2 looks at even columns, which mirror into odd ones.
    one, two = (filled(SMALL | OPTIONS["one level"]).double() for _ in range(2))
    two.load_state_dict({k: v.flip(-1) if v.ndim == 4 else v for k, v in one.state_dict().items()})
    x, time, _ = ask(one)
    mirrored = two(x.double().flip(-1), time).flip(-1)
    torch.testing.assert_close(mirrored, one(x.double(), time))


def test_samples_do_not_see_each_other():
    network = filled(SMALL | {"accepts": TOLD}).double()
    x, time, condition = ask(network)
    x, time, condition = x.double(), time.double(), condition.map(lambda v: v.double())
    alone = network(x[1:], time[1:], condition.rows(slice(1, 2)))
    torch.testing.assert_close(network(x, time, condition)[1:], alone, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    "option", ["every slot", "dropout", "three dimensions", "filtered pyramid", "joined vectors"]
)
def test_checkpointing_gives_the_same_gradients(option):
    network = filled(SMALL | OPTIONS[option]).train()
    x, time, condition = ask(network)
    gradients = []
    for network.checkpointing in (False, True):
        torch.manual_seed(7)
        network.zero_grad()
        network(x, time, condition).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_checkpointing_repeats_with_the_hooks_of_the_first_pass():
    network = filled(SMALL).train()
    x, time, _ = ask(network)
    gradients = []
    for network.checkpointing in (False, True):
        network.zero_grad()
        with hooked(ReplaceMaps(lambda place, part: part.flip(-1))):
            loss = network(x, time).square().sum()
        loss.backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_checkpointing_keeps_less():
    network = filled(SMALL).train()
    x, time, _ = ask(network)
    kept = []
    for network.checkpointing in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            network(x, time)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_the_seam_reaches_every_attention_by_name():
    network = filled(SMALL | {"accepts": {"tokens": 5}})
    x, time, condition = ask(network)
    before = network(x, time, condition)
    read = ReadMaps()
    with hooked(read):
        network(x, time, condition)
    modules = dict(network.named_modules())
    expected = {name for name, module in modules.items() if name.endswith((".own", ".cross"))}
    assert read.maps_at.keys() == expected
    assert len(expected) == 2 * (1 + 1 + 2)
    assert all(modules[name].place.name == name for name in expected)
    assert read.maps_at["down.1.attentions.0.cross"][0].shape == (2, 2, 8, 4)
    with hooked(ReplaceMaps(lambda p, part: 0 * part, lambda p: p.kind == "cross")):
        assert not torch.allclose(network(x, time, condition), before)
    assert torch.equal(network(x, time, condition), before)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 2, 8, 7), "size 7 is not a multiple of 2"),
        ((2, 2, 0, 8), "size 0"),
        ((2, 3, 8, 8), r"\(batch, 2, size, size\), not \(2, 3, 8, 8\)"),
        ((2, 2, 8), "not"),
        ((3, 2, 8, 8), "time has shape"),
    ],
)
def test_shapes_it_cannot_take(shape, message):
    with pytest.raises(ShapeError, match=message):
        nets.build(SMALL)(torch.zeros(shape), torch.zeros(2))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (
            Condition(),
            "lacks channels mask; this network takes channels mask .1., channels self",
        ),
        (Condition({"mask": torch.zeros(2, 1, 8, 4)}), "lacks tokens"),
        (
            Condition({"edges": torch.zeros(2, 1, 8, 4)}),
            "does not take channels edges; it takes",
        ),
        (Condition(vector={"lable": torch.zeros(2, 3)}), "does not take vector lable"),
    ],
)
def test_slots_it_does_not_know_or_lacks(condition, message):
    network = nets.build(SMALL | {"accepts": TOLD})
    with pytest.raises(UsageError, match=message):
        network(torch.zeros(2, 2, 8, 4), torch.zeros(2), condition)


@pytest.mark.parametrize(
    ("slot", "value", "message"),
    [
        (
            "mask",
            torch.zeros(2, 1, 4, 4),
            r"channels mask has shape \(2, 1, 4, 4\); .*2, 1, 8, 4",
        ),
        ("label", torch.zeros(1, 3), r"vector label has shape \(1, 3\)"),
        ("tokens", Tokens(torch.zeros(2, 4, 6)), "tokens has shape"),
        (
            "tokens",
            Tokens(torch.zeros(2, 4, 5), torch.ones(2, 3).bool()),
            "mask has shape",
        ),
    ],
)
def test_slots_of_a_wrong_shape(slot, value, message):
    network = nets.build(SMALL | {"accepts": TOLD})
    x, time, good = ask(network)
    channels, vector, tokens = dict(good.channels), dict(good.vector), good.tokens
    if slot == "tokens":
        tokens = value
    else:
        (channels if slot in channels else vector)[slot] = value
    with pytest.raises(ShapeError, match=message):
        network(x, time, Condition(channels, vector, tokens))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chanels": 8}, "unknown key 'chanels'"),
        ({"channels": 6}, "4 norm groups do not divide 6"),
        ({"channels": 2}, "channels of 4 or more"),
        ({"blocks": 0}, "blocks"),
        ({"multipliers": []}, "multipliers"),
        ({"multipliers": "wide"}, "multipliers"),
        ({"spatial_dims": 4}, "not 4"),
        ({"attention": {"at": [4]}}, r"no level has factor 4; they have \[1, 2\]"),
        ({"attention": {"at": [2], "head_channels": 3}}, "does not divide"),
        ({"attention": {"heads": 3}}, "3 attention heads"),
        ({"style": {"up": "bilinear"}}, r"style\.up"),
        ({"accepts": {"vector": {"type": 3}}}, "'type' cannot name a slot"),
        ({"accepts": {"tokens": 5}, "attention": {"middle": False}}, "attention.at"),
        ({"kind": "unett"}, "did you mean unet"),
    ],
)
def test_configurations_that_cannot_be(change, message):
    with pytest.raises(UsageError, match=message):
        nets.build(SMALL | change)


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(UsageError, match="did you mean ddpm-cifar10"):
        nets.build("ddpm-cifar")
