"""Contrastive training: the published loss, captions that repeat, noise, and what it refuses."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fromnoise import nets, processes, schedules
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.guidance.matcher import Matcher
from fromnoise.nets.image_text import WARMEST
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.training.contrastive import Contrastive, contrastive, pair_losses
from fromnoise.training.draws import Draws
from fromnoise.training.objectives import objective_of
from fromnoise.training.settings import ContrastiveSettings

CAPTIONS = ["a red circle", "a blue square", "a red circle", "two stars", "(a: star)"]


@dataclass(frozen=True)
class Pairs:
    x: Tensor
    caption: list[str] | None
    label: Tensor | None = None
    given: dict[str, Any] = field(default_factory=dict)


def matcher(noisy: bool = False, seed: int = 0) -> Matcher:
    torch.manual_seed(seed)
    tower = {
        "kind": "classifier",
        "in_channels": 1,
        "classes": 6,
        "size": 8,
        "channels": 8,
        "multipliers": [1],
        "blocks": 1,
        "style": {"groups": 4},
    }
    net = nets.build({"kind": "image_text", "tower": tower, "words": 12, "noisy": noisy})
    text = {"kind": "text", "length": 24, "width": 12, "depth": 1, "heads": 2, "pooled": True}
    reader = NetworkDenoiser(
        net, processes.Gaussian(schedules.cosine()), PARAMETERIZATIONS.build({"kind": "eps"})
    )
    return Matcher(reader, Conditioning.build({"prompt": text}))


def made(noisy: bool = False) -> Contrastive:
    by = matcher(noisy)
    return contrastive(by.reader, by.conditioning, ContrastiveSettings(), None)


def batch(count: int = 5) -> Pairs:
    generator = torch.Generator().manual_seed(3)
    return Pairs(torch.randn(count, 1, 8, 8, generator=generator), CAPTIONS[:count])


def draws(count: int = 5, total: int | None = None) -> Draws:
    return Draws.of_step(0, 1, range(count), total or count)


def test_of_distinct_captions_it_is_the_symmetric_cross_entropy() -> None:
    near = torch.randn(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    place = torch.arange(7)
    published = (cross_entropy(near, place) + cross_entropy(near.T, place)) / 2
    torch.testing.assert_close(pair_losses(near, place).mean(), published)


def test_equal_captions_are_one_caption() -> None:
    """By hand: pictures 0 and 2 share caption 0, so neither is the other's wrong answer."""
    near = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    own = torch.tensor([0, 1, 0, 2])
    expected = []
    for i in range(4):
        column = near[:, own[i]]
        others = [column[j] for j in range(4) if own[j] != own[i]]
        of_caption = torch.stack([column[i], *others]).logsumexp(0) - column[i]
        expected.append((near[i].logsumexp(0) - near[i, own[i]] + of_caption) / 2)
    torch.testing.assert_close(pair_losses(near, own), torch.stack(expected))
    # The control: taken as four different captions the loss is another one.
    plain = cross_entropy(near[:, own], torch.arange(4), reduction="none")
    assert (plain - near.logsumexp(1) + near.gather(1, own[:, None])[:, 0]).abs().max() > 0.1


def test_the_loss_of_a_batch_is_that_of_its_directions() -> None:
    objective, pairs = made(), batch()
    objective.eval()
    (phase,) = objective.phases(pairs, draws())
    by = objective.matcher
    pictures, texts = by.pictures(pairs.x), by.captions(CAPTIONS)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(texts[0], texts[2])
    near = by.net.scale * pictures @ texts[[0, 1, 3, 4]].T
    expected = pair_losses(near, torch.tensor([0, 1, 0, 2, 3])).mean()
    torch.testing.assert_close(phase.loss, expected)


def test_brackets_of_a_caption_are_text() -> None:
    by = matcher()
    assert not torch.allclose(by.captions(["(a star)"]), by.texts(["(a star)"]))
    assert torch.isfinite(by.captions(["(a: star)"])).all()
    torch.testing.assert_close(by.captions(["a star"]), by.texts(["a star"]))


def test_everything_learns_and_the_loss_falls() -> None:
    objective, pairs = made(), batch()
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    losses = []
    for step in range(60):
        (phase,) = objective.phases(pairs, draws())
        phase.loss.backward()
        if step == 1:
            still = [name for name, p in objective.named_parameters() if p.grad is None]
            assert not still
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step()
        losses.append(phase.loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_the_cosine_is_never_multiplied_by_more_than_published() -> None:
    objective = made()
    with torch.no_grad():
        objective.matcher.net.log_scale.fill_(7.0)
    objective.after_step()
    assert objective.matcher.net.scale.item() == pytest.approx(WARMEST)
    with torch.no_grad():
        objective.matcher.net.log_scale.fill_(2.0)
    objective.after_step()
    assert objective.matcher.net.scale.item() == pytest.approx(math.exp(2.0))


def test_a_model_of_clean_pictures_sees_no_noise_and_one_of_noisy_ones_does() -> None:
    clean, noisy, pairs = made(), made(noisy=True), batch()
    one, other = draws(), Draws.of_step(9, 9, range(5), 5)
    assert torch.equal(clean.losses(pairs, one)[1], clean.losses(pairs, other)[1])
    times, losses = noisy.losses(pairs, one)
    assert times.unique().numel() == 5
    assert not torch.allclose(losses, noisy.losses(pairs, other)[1])
    # What it saw is x_t of the process: the same, done by hand.
    again = draws()
    process = noisy.matcher.reader.process.begin(again.noise, pairs.x)
    t = noisy.time_sampling(again, process.clock)
    x = process.corrupt(pairs.x, t, again.noise.normal(pairs.x))
    seen = noisy.matcher.reader.output(x, t)
    torch.testing.assert_close(noisy._seen(pairs, draws())[1], seen)


def test_what_cannot_be_is_said() -> None:
    objective = made()
    with pytest.raises(UsageError, match="no captions"):
        list(objective.phases(Pairs(batch().x, None), draws()))
    by = matcher()
    with pytest.raises(UsageError, match="clean pictures only"):
        by.pictures(batch().x, torch.zeros(5))
    plain = NetworkDenoiser(
        nets.build({"kind": "mlp"}),
        by.reader.process,
        by.reader.parameterization,
    )
    with pytest.raises(UsageError, match="does not compare pictures"):
        objective_of(ContrastiveSettings(), plain, by.conditioning)
    with pytest.raises(UsageError, match="told a prompt and nothing else"):
        Matcher(by.reader, Conditioning({}))
    with pytest.raises(UsageError, match="is no tower"):
        nets.build({"kind": "image_text", "tower": {"kind": "mlp"}})
