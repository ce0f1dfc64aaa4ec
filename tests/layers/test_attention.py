import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fromnoise.core.errors import UsageError
from fromnoise.layers.attention import (
    Attention,
    Place,
    ReadMaps,
    ReplaceMaps,
    active_hooks,
    attend,
    hooked,
    probabilities,
)
from fromnoise.layers.condition import Tokens

PLACE = Place("here", "cross")


def triple(batch=2, heads=3, queries=5, keys=7, width=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, n, width) for n in (queries, keys, keys)]
    return [torch.randn(s, generator=generator, dtype=dtype) for s in shapes]


def layer(channels=12, heads=3, context=None):
    attention = Attention(nn.GroupNorm(3, channels), channels, heads, "somewhere", context)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    return attention.eval()


def test_reading_gives_the_same_result_and_rows_that_sum_to_one():
    q, k, v = triple()
    read = ReadMaps()
    with hooked(read):
        watched = attend(q, k, v, PLACE)
    torch.testing.assert_close(watched, attend(q, k, v, PLACE), atol=1e-12, rtol=0)
    torch.testing.assert_close(watched, F.scaled_dot_product_attention(q, k, v))
    (maps,) = read.maps_at["here"]
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 3, 5).double())


def test_masked_tokens_weigh_nothing_and_no_token_at_all_gives_zero():
    q, k, v = triple()
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[0, 4:] = False
    mask[1] = False
    told = mask[:, None, None, :]
    short = attend(q[:1], k[:1, :, :4], v[:1, :, :4], PLACE)
    for watched in (False, True):
        with hooked(*([ReadMaps()] if watched else [])):
            got = attend(q, k, v, PLACE, told)
        torch.testing.assert_close(got[:1], short, atol=1e-12, rtol=0)
        assert torch.equal(got[1], torch.zeros_like(got[1]))
    assert probabilities(q, k, told)[0, :, :, 4:].abs().max() == 0


def test_replacing_touches_only_the_heads_and_tokens_named():
    q, k, v = triple()
    read = ReadMaps()
    shown = []

    def double(place, part):
        shown.append((place, part.shape))
        return 2 * part

    before = probabilities(q, k)
    with hooked(ReplaceMaps(double, heads=[2], tokens=[0, 6]), read):
        got = attend(q, k, v, PLACE)
    (after,) = read.maps_at["here"]
    expected = before.clone()
    expected[:, 2, :, 0] *= 2
    expected[:, 2, :, 6] *= 2
    assert torch.equal(after, expected)
    torch.testing.assert_close(got, expected @ v)
    assert shown == [(PLACE, (2, 1, 5, 2))]


def test_one_head_on_one_key_copies_its_value():
    q, k, v = triple()

    def point(place, part):
        return F.one_hot(torch.tensor(3), part.shape[-1]).to(part).expand_as(part)

    with hooked(ReplaceMaps(point, heads=[1])):
        got = attend(q, k, v, PLACE)
    torch.testing.assert_close(got[:, 1], v[:, 1, 3:4].expand(-1, 5, -1))
    torch.testing.assert_close(got[:, 0], attend(q, k, v, PLACE)[:, 0])


def test_a_place_not_wanted_is_untouched_and_all_is_as_before_afterwards():
    attention, x = layer(), torch.randn(2, 12, 4, 4)
    before = attention(x)
    with hooked(ReplaceMaps(lambda place, part: 0 * part, lambda place: place.kind == "cross")):
        assert torch.equal(attention(x), before)
    blank = ReplaceMaps(lambda place, part: 0 * part)
    with pytest.raises(RuntimeError, match="inside"), hooked(blank):
        assert not torch.equal(attention(x), before)
        raise RuntimeError("inside")
    assert active_hooks() == ()
    assert torch.equal(attention(x), before)


def test_hooks_nest_outermost_first():
    q, k, v = triple()
    outer, inner = ReadMaps(), ReadMaps()
    with (
        hooked(outer),
        hooked(ReplaceMaps(lambda place, part: 0 * part)),
        hooked(inner),
    ):
        attend(q, k, v, PLACE)
    assert outer.maps_at["here"][0].abs().max() > 0
    assert inner.maps_at["here"][0].abs().max() == 0


def test_self_attention_does_not_care_where_a_pixel_stands():
    attention, x = layer().double(), torch.randn(2, 12, 6, dtype=torch.float64)
    order = torch.randperm(6)
    torch.testing.assert_close(attention(x[:, :, order]), attention(x)[:, :, order])


def test_equals_torchs_multi_head_attention():
    attention, x = layer().double(), torch.randn(2, 12, 6, dtype=torch.float64)
    outside = nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    parts = [attention.query, attention.key, attention.value]
    with torch.no_grad():
        outside.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        outside.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
        outside.out_proj.load_state_dict(attention.out.state_dict())
    own = attention.norm(x).transpose(1, 2)
    expected = x + outside(own, own, own)[0].transpose(1, 2)
    torch.testing.assert_close(attention(x), expected)


def test_cross_attention_reads_the_tokens_and_their_order_is_free():
    attention = layer(context=5).double()
    x = torch.randn(2, 12, 4, dtype=torch.float64)
    values = torch.randn(2, 6, 5, dtype=torch.float64)
    mask = torch.rand(2, 6) > 0.3
    order = torch.randperm(6)
    got = attention(x, Tokens(values, mask))
    torch.testing.assert_close(got, attention(x, Tokens(values[:, order], mask[:, order])))
    assert not torch.allclose(got, attention(x, Tokens(values + 1, mask)))


def test_heads_must_divide():
    with pytest.raises(UsageError, match="5 attention heads"):
        Attention(nn.Identity(), 12, 5, "x")
