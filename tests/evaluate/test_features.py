"""The reader: good, repeatable, the same after a file, and what it says of bad samples."""

import pytest
import torch
from safetensors.torch import load, save
from sklearn.datasets import load_digits
from torch import Tensor

from fromnoise.core.errors import FileError, ShapeError, UsageError
from fromnoise.evaluate.classify import classifier_accuracy, label_accuracy
from fromnoise.evaluate.distances import frechet_distance
from fromnoise.evaluate.features import (
    FeatureNetwork,
    PixelFeatures,
    ReaderSettings,
    restore,
    train_reader,
)
from fromnoise.evaluate.report import Labelled

FAST = ReaderSettings(epochs=8, width=16)


@pytest.fixture(scope="module")
def digits() -> tuple[Labelled, Labelled]:
    """Real scans, 1,297 to learn from and 500 held out, shuffled."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = (torch.tensor(data.images).float()[:, None] / 8 - 1)[order]
    label = torch.tensor(data.target)[order]
    return Labelled(x[:1297], label[:1297]), Labelled(x[1297:], label[1297:])


@pytest.fixture(scope="module")
def reader(digits: tuple[Labelled, Labelled]) -> FeatureNetwork:
    """Smaller, and trained more briefly, than those that figures are taken with."""
    train, _ = digits
    assert train.label is not None
    return train_reader(train.x, train.label, 10, data="digits", settings=FAST)


def noise_like(x: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator).clamp(-1, 1)


@pytest.mark.slow
def test_a_reader_of_full_size_reads_held_out_digits(digits):
    train, held_out = digits
    full = train_reader(train.x, train.label, 10, data="digits")
    assert label_accuracy(full, held_out.x, held_out.label).value >= 0.985


def test_the_reader_reads_held_out_digits(reader, digits):
    _, held_out = digits
    found = label_accuracy(reader, held_out.x, held_out.label)
    assert found.value >= 0.95
    assert set(found.more["by_class"]) == {str(c) for c in range(10)}


def test_shuffled_labels_are_seen(reader, digits):
    _, held_out = digits
    wrong = label_accuracy(reader, held_out.x, (held_out.label + 1) % 10)
    assert wrong.high < 0.05
    order = torch.randperm(len(held_out.x), generator=torch.Generator().manual_seed(1))
    assert label_accuracy(reader, held_out.x, held_out.label[order]).high < 0.25


def test_noise_is_far_from_digits_and_digits_are_not(reader, digits):
    train, held_out = digits
    real = reader(held_out.x)
    near = frechet_distance(real, reader(train.x[:500]), resamples=40)
    far = frechet_distance(real, reader(noise_like(train.x[:500])), resamples=40)
    assert near.high < 0.2 * far.low
    one_class = train.x[train.label == 3]
    assert frechet_distance(real, reader(one_class), resamples=40).low > 5 * near.high


def test_training_is_repeatable_and_leaves_the_global_generator_alone(digits):
    train, _ = digits
    part, labels = train.x[:200], train.label[:200]
    settings = ReaderSettings(epochs=1, width=8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    told: list[tuple[int, int]] = []
    first = train_reader(
        part, labels, 10, settings=settings, watch=lambda *shown: told.append(shown)
    )
    batches = told[-1][1]
    assert told == [(n, batches) for n in range(1, batches + 1)]
    assert torch.equal(torch.rand(3), expected)
    again = train_reader(part, labels, 10, settings=settings)
    other = train_reader(part, labels, 10, seed=1, settings=settings)
    assert first.card == again.card
    assert first.card["weights_sha256"] != other.card["weights_sha256"]
    changed = train_reader(part + 0.01, labels, 10, settings=settings)
    assert first.card["data_sha256"] != changed.card["data_sha256"]


def test_a_reader_survives_a_file_and_a_changed_weight_is_noticed(reader, digits):
    _, held_out = digits
    state = load(save(reader.state()))
    back = restore(state, reader.card)
    assert torch.equal(back(held_out.x), reader(held_out.x))
    assert reader(held_out.x).dtype == torch.float64
    assert reader(held_out.x).shape == (len(held_out.x), 64)
    state["head.bias"] = state["head.bias"] + 1e-3
    with pytest.raises(FileError, match="do not match"):
        restore(state, reader.card)
    with pytest.raises(FileError, match="not the weights"):
        restore({}, reader.card)
    with pytest.raises(FileError, match="not the weights"):
        restore(state, {"name": "x"})


@pytest.mark.slow
def test_a_classifier_trained_on_real_data_beats_ones_trained_on_spoilt_data(digits):
    train, held_out = digits
    test = (held_out.x, held_out.label)

    def accuracy(x: Tensor, label: Tensor):
        return classifier_accuracy(x, label, *test, classes=10, seeds=(0, 1), settings=FAST)

    real = accuracy(train.x[:500], train.label[:500])
    assert real.value > 0.95 and len(real.more["runs"]) == 2
    shuffled = accuracy(train.x[:500], train.label[600:1100])
    assert shuffled.high < 0.35


def test_points_have_a_reader_too():
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(300) % 3
    angle = label * 2.1
    centre = torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)
    x = centre + 0.2 * torch.randn(300, 2, generator=generator)
    found = train_reader(x[:200], label[:200], 3, settings=ReaderSettings(epochs=20), data="three")
    assert label_accuracy(found, x[200:], label[200:]).value > 0.95
    assert found.name == "three-reader-v1"


def test_pixels_are_the_samples_themselves():
    x = torch.arange(8.0).reshape(2, 1, 2, 2)
    assert PixelFeatures()(x).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_what_cannot_be_read_is_refused(reader):
    with pytest.raises(ShapeError, match=r"\(1, 8, 8\), got \(1, 9, 9\)"):
        reader(torch.zeros(2, 1, 9, 9))
    with pytest.raises(UsageError, match="0 to 9"):
        train_reader(torch.zeros(2, 1, 8, 8), torch.tensor([3, 10]), 10)
    with pytest.raises(ShapeError, match="2 samples"):
        train_reader(torch.zeros(2, 1, 8, 8), torch.tensor([3]), 10)


def test_a_reader_of_many_pictures_sees_each_less_often() -> None:
    x, label = torch.randn(120, 1, 8, 8), torch.arange(120) % 2
    few = ReaderSettings(epochs=4, width=8, shown=250)
    two = train_reader(x, label, 2, settings=few).state()
    same = train_reader(x, label, 2, settings=ReaderSettings(epochs=2, width=8)).state()
    more = train_reader(x, label, 2, settings=ReaderSettings(epochs=4, width=8)).state()
    assert all(torch.equal(two[name], same[name]) for name in two)
    assert any(not torch.equal(two[name], more[name]) for name in two)
