"""A model whose network takes its own last belief is shown it while sampling."""

import torch

from fromnoise import codecs, encoders, nets, parameterizations, processes, schedules
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.guidance import SelfConditioning
from fromnoise.model import Defaults, Model
from fromnoise.samplers import get, last, sample


def test_a_network_that_takes_its_own_belief_is_shown_it() -> None:
    torch.manual_seed(0)
    config = {
        "kind": "unet",
        "in_channels": 1,
        "channels": 8,
        "multipliers": [1],
        "blocks": 1,
        "style": {"groups": 4},
        "accepts": {"channels": {"self": 1}},
    }
    net = nets.build(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    process = processes.Gaussian(schedules.cosine())
    denoiser = NetworkDenoiser(net, process, parameterizations.V())
    model = Model(
        denoiser, (1, 8, 8), codecs.Identity(), encoders.Conditioning({}), Defaults(steps=5)
    )
    start = torch.randn(2, 1, 8, 8)
    drawn = list(model.stream(2, start=start, grid="uniform", sampler="ddim"))[-1].x
    net.eval()
    grid = torch.linspace(1, 0, 6, dtype=torch.float64)
    shown = last(sample(SelfConditioning(denoiser), get("ddim"), grid, start))
    alone = last(sample(denoiser, get("ddim"), grid, start))
    torch.testing.assert_close(drawn, shown, rtol=1e-4, atol=1e-5)
    assert (shown - alone).abs().max() > 1e-2
