"""A label that guides alone are told, and one that network and guide are told alike."""

import pytest
import torch
from model.tiny import tiny

from fromnoise import encoders, guidance, nets, parameterizations, processes, schedules
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.guidance import NoisyClassifier
from fromnoise.model import Model


def judge(classes: list[str]) -> NoisyClassifier:
    torch.manual_seed(1)
    net = nets.build(
        {
            "kind": "classifier",
            "in_channels": 1,
            "classes": len(classes),
            "size": 8,
            "channels": 8,
            "multipliers": [1],
            "blocks": 1,
            "style": {"groups": 4},
        }
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    reader = NetworkDenoiser(net, processes.Gaussian(schedules.cosine()), parameterizations.Eps())
    return NoisyClassifier(reader, classes)


def untold() -> Model:
    """The tiny model without its label: its network takes none."""
    told = tiny()
    net = nets.build({**told.denoiser.net.config, "accepts": {}})
    denoiser = NetworkDenoiser(net, told.denoiser.process, told.denoiser.parameterization)
    return Model(
        denoiser, told.shape, told.codec, encoders.Conditioning({}), told.defaults, told.card
    )


@pytest.mark.parametrize("make", [tiny, untold])
def test_the_label_of_the_call_is_each_samples_own(make) -> None:
    """In batches of 2, as when each label is given to the guide of one sample by itself."""
    model, by, label = make(), judge(["0", "1", "2"]), [2, 0, 1]
    drawn = model.sample(
        3, label=label, guide=guidance.classifier(by, scale=5.0), batch_size=2, dtype="float64"
    )
    told = model.conditioning.names
    for i, one in enumerate(label):
        alone = model.sample(
            1,
            label=one if told else None,
            guide=guidance.classifier(by, one, 5.0),
            seed=i,
            dtype="float64",
        )
        torch.testing.assert_close(drawn.tensor[i : i + 1], alone.tensor, rtol=1e-8, atol=1e-8)
    other = model.sample(
        3, label=[0, 0, 0], guide=guidance.classifier(by, scale=5.0), dtype="float64"
    )
    assert (drawn.tensor - other.tensor)[[0, 2]].abs().max() > 1e-3
    assert drawn.recipe["label"] == label


@pytest.mark.parametrize("make", [list, torch.tensor])
def test_a_guides_own_labels_and_scales_are_each_samples(make) -> None:
    """Of the call, whose batches are cut and filled up behind the guide's back."""
    model, by, label, scale = tiny(), judge(["0", "1", "2"]), [2, 0, 1], [5.0, 0.0, 3.0]
    guide = guidance.classifier(by, make(label), torch.tensor(scale))
    drawn = model.sample(3, label=1, guide=guide, batch_size=2, dtype="float64").tensor
    for i in range(3):
        alone = model.sample(
            1, label=1, guide=guidance.classifier(by, label[i], scale[i]), seed=i, dtype="float64"
        )
        torch.testing.assert_close(drawn[i : i + 1], alone.tensor, rtol=1e-8, atol=1e-8)


def test_values_for_another_number_of_samples_are_refused_at_once() -> None:
    model, by = tiny(), judge(["0", "1", "2"])
    reads = lambda x0: x0.flatten(1)[:, :3]  # noqa: E731
    for guide in (
        guidance.classifier(by, [1, 2]),
        guidance.classifier(reads, [1, 2]),
        guidance.classifier(by, 1, torch.tensor([1.0, 2.0])),
        guidance.Named("by hand", guidance.classifier(by, [1, 2])),
    ):
        with pytest.raises(ShapeError, match="2 .* given for 4 samples"):
            model.stream(4, label=1, guide=guide, batch_size=2)
    with pytest.raises(UsageError, match="is no number"):
        guidance.classifier(by, 1, "3")  # type: ignore[arg-type]


def test_guidance_without_a_classifier_goes_on_beside_it() -> None:
    model, by = tiny(), judge(["0", "1", "2"])
    both = model.sample(2, label=1, guidance=2.0, guide=guidance.classifier(by, scale=2.0))
    only = model.sample(2, label=1, guidance=2.0)
    still = model.sample(2, label=1, guidance=2.0, guide=guidance.classifier(by, scale=0.0))
    assert torch.equal(only.tensor, still.tensor)
    assert not torch.allclose(only.tensor, both.tensor, atol=1e-3)


def test_what_does_not_fit_is_said_before_anything_is_drawn() -> None:
    by = judge(["0", "1", "2"])
    for model in (tiny(), untold()):
        with pytest.raises(UsageError, match="needs a class to go to"):
            model.stream(1, guide=guidance.classifier(by))
        with pytest.raises(UsageError, match="not a class of this model"):
            model.stream(1, label=9, guide=guidance.classifier(by))
    with pytest.raises(UsageError, match="classifier's classes are cat, dog, owl"):
        tiny().stream(1, label=1, guide=guidance.classifier(judge(["cat", "dog", "owl"])))
    nameless = untold()
    nameless.card.classes = []
    with pytest.raises(UsageError, match="give the label to the guide itself"):
        nameless.stream(1, label=1, guide=guidance.classifier(lambda x0: x0.flatten(1)[:, :3]))
    # A label that no guide asks for is still one too many.
    with pytest.raises(UsageError, match="label"):
        untold().stream(1, label=1, guide=guidance.classifier(by, 2))
