"""Perceptual distances: LPIPS by an outside implementation's parts, and a few laws."""

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as theirs

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.nets import NETS
from fromnoise.nets.classifier import Classifier
from fromnoise.nets.perceptual import PERCEPTS, VGG16, Perceptual, Reading, Small

_VGG = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]


def torchvision_vgg() -> nn.Sequential:
    """The features of VGG-16 as torchvision lays them out (configuration D)."""
    layers: list[nn.Module] = []
    ins = 3
    for width in _VGG:
        if width:
            layers += [nn.Conv2d(ins, width, 3, padding=1), nn.ReLU()]
            ins = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


@torch.no_grad()
def test_lpips_is_that_of_torchmetrics() -> None:
    torch.manual_seed(0)
    backbone = torchvision_vgg()
    heads = [torch.rand(1, width, 1, 1) for width in (64, 128, 256, 512, 512)]
    net = VGG16()
    assert sum(p.numel() for p in net.parameters()) == 14_714_688
    state = zip(net.state_dict(), backbone.state_dict().values(), strict=True)
    net.load_state_dict(dict(state))
    ours = Perceptual(net, heads)
    x, y = (torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(2))
    scaled = [theirs.ScalingLayer()(one) for one in (x, y)]
    wanted = torch.zeros(2)
    ends = (4, 9, 16, 23, 30)
    for end, head in zip(ends, heads, strict=True):
        a, b = (theirs._normalize_tensor(backbone[:end](one)) for one in scaled)
        layer = theirs.NetLinLayer(head.shape[1])
        layer.model[-1].weight.copy_(head)
        wanted += theirs._spatial_average(layer.eval()((a - b) ** 2), keep_dim=False).flatten()
    assert wanted.min() > 0.01
    assert torch.allclose(ours(x, y), wanted, rtol=1e-4)
    # The weights count.
    assert not torch.allclose(Perceptual(net)(x, y), wanted, rtol=0.1)


@pytest.mark.parametrize("kind", ["small", "reading"])
def test_a_distance_is_none_to_itself_the_same_both_ways_and_bounded(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "small":
        net = PERCEPTS.build({"kind": "small", "channels": 3, "width": 4})
    else:
        net = Reading(_classifier(), "a run", 0.0, 1.0)
    far = Perceptual(net)
    x, y = (torch.rand(3, 3, 16, 16) * 2 - 1 for _ in range(2))
    x.requires_grad_()
    assert far(x, x.detach()).abs().max() == 0
    there, back = far(x, y), far(y, x)
    assert torch.allclose(there, back, atol=1e-6)
    assert there.min() > 0 and there.max() <= 4 * len(net.maps(x))
    (slope,) = torch.autograd.grad(there.sum(), x)
    assert torch.isfinite(slope).all() and slope.abs().sum() > 0
    # A little noise is nearer than another picture.
    assert (far(x, x.detach() + 0.01 * torch.randn_like(x)) < there).all()


def _classifier() -> Classifier:
    made: Classifier = NETS.build({
        "kind": "classifier", "in_channels": 3, "classes": 5, "size": 16, "channels": 8,
        "multipliers": [1, 2], "blocks": 1, "style": {"groups": 4},
    })  # fmt: skip
    return made


def test_maps_of_a_classifier_are_one_for_each_size() -> None:
    maps = Reading(_classifier(), "a run", 0.0, 1.0).maps(torch.zeros(1, 3, 16, 16))
    assert [tuple(one.shape[1:]) for one in maps] == [(8, 16, 16), (16, 8, 8)]
    assert [tuple(m.shape[1:]) for m in Small(1, 4).maps(torch.zeros(1, 1, 8, 8))] == [
        (4, 8, 8), (8, 4, 4), (16, 2, 2), (16, 1, 1),
    ]  # fmt: skip


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(1, 3, 16, 16)
    with pytest.raises(UsageError, match="heads are for layers"):
        Perceptual(Small(3, 4), [torch.ones(4)])(x, x)
    with pytest.raises(UsageError, match="below 0"):
        Perceptual(Small(3, 4), [-torch.ones(4)])
    with pytest.raises(ShapeError, match="16 or more"):
        VGG16().maps(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ShapeError, match="16 by 16"):
        Reading(_classifier(), "a run", 0.0, 1.0).maps(torch.zeros(1, 3, 8, 8))
