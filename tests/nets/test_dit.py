import pytest
import torch
from nets.filling import filled, told

from fromnoise import nets
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.attention import ReadMaps, ReplaceMaps, hooked
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.nets.embed import NullTable

SMALL = {
    "kind": "dit",
    "in_channels": 2,
    "out_channels": 4,
    "size": [8, 4],
    "patch": 2,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "accepts": {"vector": {"label": 3}},
}
TOLD = SMALL | {"accepts": {"vector": {"label": 3}, "tokens": 5}}
OPTIONS = {
    "plain": {},
    "no label": {"accepts": {}},
    "every slot": {
        "accepts": {"vector": {"label": 3, "size": 2}, "channels": {"a": 1}, "tokens": 5}
    },
    "tokens": {"accepts": {"tokens": 5}},
    "closed time": {"time": "closed"},
    "patches of one": {"patch": 1},
    "wide": {"hidden": 1.5},
}


def ask(network: nets.Network) -> tuple[torch.Tensor, torch.Tensor, Condition]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, network.in_channels, *network.size, generator=generator)
    return x, torch.tensor([3.0, 500.0]), told(network, 2, network.size)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_parameter_gets_a_gradient_but_the_positions(option):
    network = filled(SMALL | OPTIONS[option]).train()
    x, time, condition = ask(network)
    answer = network(x, time, condition)
    assert answer.shape == (2, 4, 8, 4)
    answer.square().sum().backward()
    still = {name for name, p in network.named_parameters() if p.grad is None}
    assert still == {"position"}
    assert all(p.grad.abs().max() > 0 for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_answer_starts_at_zero_and_the_config_makes_it_again(option):
    network = nets.build(SMALL | OPTIONS[option])
    assert network(*ask(network)).abs().max() == 0
    assert nets.build(network.config, device="meta").config == network.config


def test_its_blocks_start_as_the_identity():
    block = nets.build(SMALL).blocks[0]
    x = torch.randn(2, 8, 16)
    assert torch.equal(block(x, torch.randn(2, 16)), x)
    heard = nets.build(TOLD).blocks[0]
    assert torch.equal(heard(x, torch.randn(2, 16), Tokens(torch.randn(2, 3, 5))), x)


def test_tokens_add_their_layers_and_change_no_other():
    plain, heard = nets.build(SMALL), nets.build(TOLD)
    ours = dict(heard.named_parameters())
    extra = ours.keys() - dict(plain.named_parameters()).keys()
    assert extra == {
        f"blocks.{i}.cross.{layer}.{part}"
        for i in range(2)
        for layer in ("query", "key", "value", "out")
        for part in ("weight", "bias")
    }
    # Four linear layers each: two of the width, two from that of the tokens.
    assert sum(ours[name].numel() for name in extra) == 2 * (2 * 16 * 17 + 2 * 16 * 6)
    heard.load_state_dict(plain.state_dict(), strict=False)
    for name in ("leave.weight", "blocks.0.modulation.weight", "blocks.1.modulation.weight"):
        for network in (plain, heard):
            torch.manual_seed(1)
            torch.nn.init.normal_(network.get_parameter(name), std=0.3)
    x, time, condition = ask(heard)
    without = Condition(vector=condition.vector)
    assert plain(x, time, without).abs().max() > 0
    assert torch.equal(heard(x, time, condition), plain(x, time, without))


def test_tokens_are_attended_to_as_torchs_own_attention_does():
    network = filled(TOLD).double()
    layer, x = network.blocks[0].cross, torch.randn(2, 7, 16, dtype=torch.float64)
    values = torch.randn(2, 4, 5, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [True] * 4])
    outside = torch.nn.MultiheadAttention(
        16, 2, batch_first=True, kdim=5, vdim=5, dtype=torch.float64
    )
    with torch.no_grad():
        for name in ("query", "key", "value"):
            outside.get_parameter(f"{name[0]}_proj_weight").copy_(getattr(layer, name).weight)
        biases = [getattr(layer, name).bias for name in ("query", "key", "value")]
        outside.in_proj_bias.copy_(torch.cat(biases))
        outside.out_proj.load_state_dict(layer.out.state_dict())
    expected = outside(x, values, values, key_padding_mask=~mask)[0]
    torch.testing.assert_close(layer(x, values, mask), expected)


def test_masked_tokens_and_their_order_change_nothing_and_the_others_do():
    network = filled(TOLD).double()
    x, time, condition = ask(network)
    x, time = x.double(), time.double()
    values = torch.randn(2, 4, 5, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])

    def answer(values, mask):
        vector = {k: v.double() for k, v in condition.vector.items()}
        return network(x, time, Condition(vector=vector, tokens=Tokens(values, mask)))

    told = answer(values, mask)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(answer(values[:, order], mask[:, order]), told)
    torch.testing.assert_close(answer(torch.where(mask[..., None], values, 9.0), mask), told)
    assert not torch.allclose(answer(torch.where(mask[..., None], 9.0, values), mask), told)
    assert torch.isfinite(answer(values, torch.zeros_like(mask))).all()


def test_no_label_is_the_last_row_of_the_table():
    table = NullTable(3, 5)
    rows = table.weight.T
    assert torch.equal(table(torch.eye(3)), rows[:3])
    assert torch.equal(table(torch.zeros(1, 3))[0], rows[3])
    mixed = torch.tensor([[0.5, 0.0, 0.5]])
    torch.testing.assert_close(table(mixed)[0], (rows[0] + rows[2]) / 2)


def test_a_patch_comes_out_where_it_went_in():
    """With all else silent, what a token says of itself is seen in its own patch only."""
    network = nets.build(SMALL | {"out_channels": 2, "accepts": {}}).double()
    network.position.data.zero_()
    torch.nn.init.normal_(network.leave.weight)
    torch.nn.init.normal_(network.enter.weight)
    x = torch.zeros(1, 2, 8, 4, dtype=torch.float64)
    x[0, :, 2:4, 2:4] = torch.randn(2, 2, 2)
    seen = network(x, torch.zeros(1)).abs().sum(dim=(0, 1)) > 0
    expected = torch.zeros(8, 4, dtype=torch.bool)
    expected[2:4, 2:4] = True
    assert torch.equal(seen, expected)


def test_samples_do_not_see_each_other():
    network = filled(SMALL).double()
    x, time, condition = ask(network)
    x, time, condition = x.double(), time.double(), condition.map(lambda v: v.double())
    alone = network(x[1:], time[1:], condition.rows(slice(1, 2)))
    torch.testing.assert_close(network(x, time, condition)[1:], alone, atol=1e-12, rtol=1e-12)


def test_checkpointing_gives_the_same_gradients():
    network = filled(SMALL).train()
    gradients = []
    for network.checkpointing in (False, True):
        network.zero_grad()
        with hooked(ReplaceMaps(lambda place, part: part.flip(-1))):
            loss = network(*ask(network)).square().sum()
        loss.backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_seam_reaches_every_attention_by_name():
    network = filled(SMALL)
    with hooked(read := ReadMaps()):
        network(*ask(network))
    assert set(read.maps_at) == {"blocks.0.attention", "blocks.1.attention"}
    assert read.maps_at["blocks.1.attention"][0].shape == (2, 2, 8, 8)
    heard = filled(TOLD)
    with hooked(read := ReadMaps(lambda place: place.kind == "cross")):
        heard(*ask(heard))
    assert set(read.maps_at) == {"blocks.0.cross", "blocks.1.cross"}
    assert read.maps_at["blocks.0.cross"][0].shape == (2, 2, 8, 4)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"vector": {"label": torch.zeros(2, 3)}}, "lacks tokens.*takes vector label .3., tokens"),
        ({"tokens": Tokens(torch.zeros(2, 4, 5))}, "lacks vector label; .*tokens of width 5"),
        ({"vector": {"class": torch.zeros(2, 3)}}, "not take vector class; .*tokens of width 5"),
        ({"channels": {"low": torch.zeros(2, 1, 8, 4)}}, "not take channels low"),
        ({"tokens": Tokens(torch.zeros(2, 4, 6))}, r"tokens has shape \(2, 4, 6\)"),
        ({"tokens": Tokens(torch.zeros(2, 4, 5), torch.ones(2, 3) > 0)}, "the tokens' mask"),
    ],
)
def test_slots_it_does_not_take_or_lacks_are_named_with_what_it_takes(condition, message):
    network = nets.build(TOLD)
    x, time, told = ask(network)
    whole = {"vector": told.vector, "tokens": told.tokens}
    if "shape" in message or "mask" in message:
        condition = whole | condition
    with pytest.raises(UsageError, match=message):
        network(x, time, Condition(**condition))
    with pytest.raises(UsageError, match="does not take tokens; it takes vector label"):
        nets.build(SMALL)(x, time, Condition(**whole))


def test_the_positions_load_and_still_do_not_train():
    network = nets.build(SMALL, device="meta")
    network.load_state_dict(nets.build(SMALL).state_dict(), assign=True)
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["position"]
    assert network(*ask(network)).abs().max() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch": 3}, "patch 3 does not divide the size 8 by 4"),
        ({"heads": 3}, "3 attention heads do not divide 16"),
        ({"width": 18}, "multiple of 4, not 18"),
        ({"depth": 0}, "depth of 1 or more"),
    ],
)
def test_what_it_cannot_be(change, message):
    with pytest.raises(UsageError, match=message):
        nets.build(SMALL | change)


def test_another_size_is_refused():
    with pytest.raises(ShapeError, match=r"8 by 4, not \(4, 8\)"):
        nets.build(SMALL | {"accepts": {}})(torch.zeros(1, 2, 4, 8), torch.zeros(1))
