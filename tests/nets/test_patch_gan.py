"""The patch discriminator: counts, what a patch is, and what it is not told."""

import pytest
import torch

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.nets import NETS, PatchDiscriminator


def test_the_published_counts() -> None:
    for norm, count in (("instance", 2_764_737), ("batch", 2_765_633)):
        net = NETS.build({"kind": "patch_discriminator", "norm": norm})
        assert sum(p.numel() for p in net.parameters()) == count
        assert net(torch.zeros(1, 3, 64, 64), torch.zeros(1)).shape == (1, 1, 6, 6)


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_a_verdict_is_of_one_patch(layers: int, side: int) -> None:
    net = PatchDiscriminator(1, 4, layers, "batch").eval()
    x = torch.randn(1, 1, 96, 96, requires_grad=True)
    verdict = net(x, torch.zeros(1))
    middle = verdict.shape[-1] // 2
    (slope,) = torch.autograd.grad(verdict[0, 0, middle, middle], x)
    rows = slope[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == side


def test_instance_norms_leave_pictures_to_themselves_and_batch_norms_do_not() -> None:
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for norm, alone in (("instance", True), ("batch", False)):
        torch.manual_seed(0)
        net = PatchDiscriminator(3, 8, 2, norm)
        together, single = net(x, torch.zeros(3))[:1], net(x[:1], torch.zeros(1))
        assert torch.allclose(together, single, atol=1e-5) == alone
        net(x, torch.zeros(3)).sum().backward()
        assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="fewer layers"):
        PatchDiscriminator(3, 8, 3)(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    with pytest.raises(UsageError, match="1 or more"):
        PatchDiscriminator(3, 8, 0)
