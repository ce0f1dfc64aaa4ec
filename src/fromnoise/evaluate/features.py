"""Named features: what pictures are compared in, and the network that also reads their labels.

A Fréchet distance means nothing without the network it was taken in. So features carry a name and
a card (hashes of weights and training data), and the network is trained here, on the data set's
own real training half, in seconds: nothing has to be downloaded.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fromnoise.core.errors import FileError, ShapeError, UsageError
from fromnoise.core.tensors import fingerprint

VERSION = 1
"""Of the network below: raised when its layers or its training change."""

CHUNK = 1024


@dataclass(frozen=True)
class ReaderSettings:
    """How a reader is trained. `turn` in degrees, `shift` in pixels, `zoom` as a fraction.

    epochs: fewer where that would show it more than `shown` pictures in all, but at least one.
    """

    epochs: int = 16
    shown: int = 64_000
    batch: int = 64
    width: int = 32
    features: int = 64
    rate: float = 4e-3
    turn: float = 10.0
    shift: float = 0.7
    zoom: float = 0.1


class Features(ABC):
    """Pictures (or points) as rows of numbers to compare them by."""

    name: str

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Features (B, F), float64, of samples x (B, ...) in [−1, 1]."""

    @property
    @abstractmethod
    def card(self) -> dict[str, Any]:
        """What makes two features the same: name, and hashes where there are weights."""


class PixelFeatures(Features):
    """The samples themselves, flattened."""

    name = "pixels"

    def __call__(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1).double()

    @property
    def card(self) -> dict[str, Any]:
        return {"name": self.name}


class FeatureNetwork(Features):
    """A small classifier: features are its penultimate layer, and it reads labels.

    Make one with `train_reader`, or with `restore` from what `state` and `card` gave.
    """

    def __init__(self, net: "ReaderNet", card: Mapping[str, Any]) -> None:
        self.net = net.eval()
        self._card = dict(card)
        self.name = str(card["name"])

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([self.net.features(part).double() for part in self._parts(x)])

    def probabilities(self, x: Tensor) -> Tensor:
        """p(class | x) (B, classes), float64."""
        return torch.cat([self.net(part).double().softmax(1) for part in self._parts(x)])

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class (B,) of each sample."""
        return self.probabilities(x).argmax(1)

    @property
    def card(self) -> dict[str, Any]:
        return dict(self._card)

    def state(self) -> dict[str, Tensor]:
        """The weights by name, for a safetensors file."""
        return {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def _parts(self, x: Tensor) -> Iterator[Tensor]:
        if tuple(x.shape[1:]) != self.net.shape:
            raise ShapeError(
                f"{self.name} reads samples of shape {self.net.shape}, got {tuple(x.shape[1:])}"
            )
        with torch.no_grad():
            yield from torch.split(x.detach().float(), CHUNK)


class ReaderNet(nn.Module):
    """Convolutions (or dense layers for points), a feature layer, a class layer."""

    def __init__(self, shape: tuple[int, ...], classes: int, settings: ReaderSettings) -> None:
        super().__init__()
        self.shape = shape
        trunk, size = _convolutions(shape, settings.width) if len(shape) == 3 else _dense(shape)
        self.trunk = trunk
        self.feature = nn.Sequential(nn.Linear(size, settings.features), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(settings.features, classes)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate layer (B, F)."""
        features: Tensor = self.feature(self.trunk(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.features(x)))
        return logits


def train_reader(
    x: Tensor,
    label: Tensor,
    classes: int,
    seed: int = 0,
    settings: ReaderSettings | None = None,
    data: str = "data",
    watch: Callable[[int, int], None] | None = None,
) -> FeatureNetwork:
    """Train a classifier on samples x (N, ...) in [−1, 1] with labels (N,), the same every time.

    seed: of its weights, order and augmentation; the global generator is left alone.
    data: the name of the data set, for the name of the features.
    watch: called after each batch with how many were shown, and of how many.
    Raises ShapeError for labels of another number, UsageError for labels outside the classes.
    """
    settings = settings or ReaderSettings()
    _check(x, label, classes)
    x, label = x.detach().float(), label.long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ReaderNet(tuple(x.shape[1:]), classes, settings)
        _fit(net, x, label, settings, watch)
    card = {
        "name": f"{data}-reader-v{VERSION}",
        "version": VERSION,
        "shape": list(x.shape[1:]),
        "classes": classes,
        "seed": seed,
        "settings": asdict(settings),
        "data_sha256": fingerprint({"x": x, "label": label}),
        "weights_sha256": fingerprint(net.state_dict()),
    }
    return FeatureNetwork(net, card)


def restore(state: Mapping[str, Tensor], card: Mapping[str, Any]) -> FeatureNetwork:
    """The network that `state` and `card` were taken from.

    Raises FileError when the card is of another version or the weights do not have its hash.
    """
    try:
        settings = ReaderSettings(**card["settings"])
        net = ReaderNet(tuple(card["shape"]), int(card["classes"]), settings)
        net.load_state_dict(dict(state))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"not the weights of a reader: {str(error).splitlines()[0]}") from None
    if card.get("version") != VERSION or fingerprint(net.state_dict()) != card.get(
        "weights_sha256"
    ):
        raise FileError("the reader's weights do not match its card; train it again")
    return FeatureNetwork(net, card)


def _fit(
    net: ReaderNet,
    x: Tensor,
    label: Tensor,
    settings: ReaderSettings,
    watch: Callable[[int, int], None] | None,
) -> None:
    rounds = math.ceil(len(x) / settings.batch)
    epochs = settings.epochs
    if x.ndim == 4:
        epochs = max(1, min(epochs, settings.shown // len(x)))
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=epochs * rounds
    )
    net.train()
    for epoch in range(epochs):
        for step, index in enumerate(torch.randperm(len(x)).tensor_split(rounds), 1):
            picture = _jitter(x[index], settings) if x.ndim == 4 else x[index]
            loss = F.cross_entropy(net(picture), label[index], label_smoothing=0.05)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if watch is not None:
                watch(epoch * rounds + step, epochs * rounds)
    net.eval()


def _jitter(x: Tensor, settings: ReaderSettings) -> Tensor:
    """Turned, shifted and zoomed a little, each picture its own way."""
    count, _, height, width = x.shape
    turn = (2 * torch.rand(count) - 1) * math.radians(settings.turn)
    zoom = 1 + (2 * torch.rand(count) - 1) * settings.zoom
    move = (2 * torch.rand(count, 2) - 1) * torch.tensor(
        [2 * settings.shift / width, 2 * settings.shift / height]
    )
    cos, sin = torch.cos(turn) * zoom, torch.sin(turn) * zoom
    rows = torch.stack([cos, -sin, move[:, 0], sin, cos, move[:, 1]], dim=1)
    grid = F.affine_grid(rows.reshape(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _convolutions(shape: tuple[int, ...], width: int) -> tuple[nn.Sequential, int]:
    channels, height, wide = shape
    layers: list[nn.Module] = []
    while True:
        layers += [*_convolution(channels, width), *_convolution(width, width)]
        channels = width
        if min(height, wide) <= 4:
            # Averaged to 4 by 4 at most, so that large pictures do not make a large layer.
            size = (min(height, 4), min(wide, 4))
            layers += [nn.AdaptiveAvgPool2d(size), nn.Flatten()]
            return nn.Sequential(*layers), width * size[0] * size[1]
        layers.append(nn.MaxPool2d(2))
        height, wide, width = height // 2, wide // 2, min(2 * width, 128)


def _convolution(inside: int, outside: int) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]


def _dense(shape: tuple[int, ...]) -> tuple[nn.Sequential, int]:
    layers = [nn.Flatten(), nn.Linear(math.prod(shape), 128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 128), nn.ReLU()), 128


def _check(x: Tensor, label: Tensor, classes: int) -> None:
    if label.shape != x.shape[:1]:
        raise ShapeError(f"{len(x)} samples but labels of shape {tuple(label.shape)}")
    if len(x) == 0 or int(label.min()) < 0 or int(label.max()) >= classes:
        raise UsageError(f"need samples with labels from 0 to {classes - 1}")
