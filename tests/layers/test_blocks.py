"""The residual block that changes the size, against diffusers' with the same weights."""

import math

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D

from fromnoise.layers.blocks import ResampleBlock, Style

NAMES = {"time": "time_emb_proj", "shortcut": "conv_shortcut"}
KERNELS = {"box": None, "fir": "fir"}


@pytest.mark.parametrize("norm", ["default", "scale_shift"])
@pytest.mark.parametrize("by", KERNELS)
@pytest.mark.parametrize("change", ["double", "halve"])
def test_follows_diffusers(change, by, norm):
    theirs = ResnetBlock2D(
        in_channels=8,
        temb_channels=6,
        groups=4,
        time_embedding_norm=norm,
        kernel=KERNELS[by],
        up=change == "double",
        down=change == "halve",
        use_in_shortcut=by == "fir",
    ).double()
    style = Style(
        groups=4,
        eps=1e-6,
        scale_shift=norm == "scale_shift",
        filter=by,
        shortcut="projected" if by == "fir" else "identity",
    )
    ours = ResampleBlock(2, 8, 6, style, change).double()
    torch.manual_seed(0)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter[0].numel()))
    state = {}
    for name, value in ours.state_dict().items():
        part, kind = name.split(".")
        state[f"{NAMES.get(part, part)}.{kind}"] = value
    theirs.load_state_dict(state)
    x, e = torch.randn(2, 8, 4, 6).double(), torch.randn(2, 6).double()
    # diffusers applies SiLU to the embedding inside the block.
    answer = ours(x, torch.nn.functional.silu(e))
    assert answer.std() > 0.1
    torch.testing.assert_close(answer, theirs(x, e), atol=1e-12, rtol=1e-12)
