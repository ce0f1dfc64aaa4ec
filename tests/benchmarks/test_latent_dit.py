"""The two networks that are compared do as many operations, and the count is the right one."""

import pytest

from benchmarks.latent_dit import operations
from fromnoise.recipes import get
from fromnoise.recipes.latent import DIT, UNET

LATENT = (4, 8, 8)


@pytest.mark.slow
def test_both_do_as_many_operations() -> None:
    """In a training step; docs/latent-diffusion.md holds those of the forward pass."""
    unet, dit = operations(UNET, LATENT), operations(DIT, LATENT)
    assert abs(unet / dit - 1) < 0.05
    # The control: a quarter more channels are not as many.
    assert abs(operations({**UNET, "channels": 64}, LATENT) / dit - 1) > 0.05


def test_the_recipes_differ_in_the_network_alone() -> None:
    one, other = (get(f"shapes-latent-{kind}").model_dump() for kind in ("unet", "dit"))
    differing = {key for key in one if one[key] != other[key]}
    assert differing == {"name", "summary", "paper", "net", "figure"}
    assert one["net"] == UNET and other["net"] == DIT


def test_the_count_is_that_of_the_formula() -> None:
    """A linear layer of an n×n perceptron: 2·n² forward, twice that backward."""
    net = {"kind": "mlp", "in_channels": 4, "width": 32, "depth": 2}
    wider = {**net, "width": 64}
    ratio = operations(wider, (4,)) / operations(net, (4,))
    assert 3 < ratio < 4.01
