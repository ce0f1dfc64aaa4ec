import pytest
import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding

from fromnoise.core.errors import UsageError
from fromnoise.layers.embeddings import Fourier, TimeEmbedding, positions, sinusoidal

_FALLING = [0.84147096, 0.09983341, 0.00999983, 0.001]
_RISING = [0.54030231, 0.99500418, 0.99994999, 0.99999952]
PUBLISHED = {
    "adm": [*_RISING, *_FALLING],
    "ddpm": [0.84147098, 0.04639923, 0.00215443, 0.0001, 0.54030234, 0.99892294, 0.99999768, 1.0],
}


@pytest.mark.parametrize("convention", PUBLISHED)
def test_published_values(convention):
    got = sinusoidal(torch.ones(1, dtype=torch.float64), 8, convention)[0]
    torch.testing.assert_close(got, torch.tensor(PUBLISHED[convention]).double(), atol=5e-8, rtol=0)


@pytest.mark.parametrize(
    ("convention", "flip", "shift"), [("ddpm", False, 1), ("adm", True, 0), ("closed", True, 1)]
)
@pytest.mark.parametrize("width", [8, 33, 128])
def test_equals_diffusers_bit_for_bit(convention, flip, shift, width):
    time = torch.tensor([0.0, 0.25, 17.0, 999.0])
    theirs = get_timestep_embedding(time, width, flip_sin_to_cos=flip, downscale_freq_shift=shift)
    assert torch.equal(sinusoidal(time, width, convention), theirs)


def test_bfloat16_weights_still_tell_all_steps_apart():
    layer = TimeEmbedding(32, 64).to(torch.bfloat16)
    seen = []
    layer.first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    layer(torch.arange(1000.0))
    assert len(seen[0].unique(dim=0)) > 990
    rounded = sinusoidal(torch.arange(1000.0).bfloat16().float(), 32).bfloat16()
    assert len(rounded.unique(dim=0)) < 600


def test_fourier_frequencies_are_kept_but_not_trained():
    layer = Fourier(16)
    assert [name for name, _ in layer.named_parameters()] == []
    assert list(layer.state_dict()) == ["frequencies"]
    features = layer(torch.tensor([0.3], dtype=torch.float64))
    torch.testing.assert_close(features[0, :8] ** 2 + features[0, 8:] ** 2, torch.ones(8).double())


def test_the_time_of_ncsnpp_has_as_many_frequencies_as_width():
    layer = TimeEmbedding(8, 3, "ncsnpp")
    assert layer.features.frequencies.shape == (8,)
    assert layer.first.in_features == 16
    assert TimeEmbedding(8, 3, "fourier").first.in_features == 8


def test_positions_follow_diffusers():
    theirs = get_2d_sincos_pos_embed(16, 5, base_size=5, output_type="pt")
    torch.testing.assert_close(positions(5, 5, 16), theirs.double(), atol=1e-6, rtol=0)


def test_positions_are_of_the_column_and_then_of_the_row():
    ours = positions(2, 6, 16).reshape(2, 6, 16)
    assert torch.equal(ours[0, :, :8], ours[1, :, :8])
    assert torch.equal(ours[:, 0, 8:], ours[:, 1, 8:])
    torch.testing.assert_close(ours[1, 0, 8], torch.tensor(1.0).double().sin())


def test_widths_that_cannot_be():
    with pytest.raises(UsageError, match="width 3"):
        sinusoidal(torch.ones(1), 3)
    with pytest.raises(UsageError, match="width 7"):
        Fourier(7)
    with pytest.raises(UsageError, match="not 6"):
        positions(2, 2, 6)
