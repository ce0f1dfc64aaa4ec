"""Small models of perception, trained in seconds: what pictures are worth is what these learn.

Each takes the same number of steps whatever it is trained on, so that ten times the pictures are
not also ten times the training. The same pictures and seed give the same model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.data.annotations import instances
from fromnoise.evaluate.detection import Boxes, average_precision, match
from fromnoise.evaluate.features import ReaderSettings, train_reader

Score = Callable[[Tensor], float]
"""What a trained model reached, with every test picture counted `weight` (N,) times."""

_RATE = 4e-3
_CHUNK = 256
_STRIDE = 2
_PEAKS = 12
_LEAST_HEAT = 1e-4


@dataclass(frozen=True)
class Examples:
    """Pictures x (N, C, H, W) in [−1, 1] and their targets: classes (N,), or maps (N, H, W)."""

    x: Tensor
    target: Tensor

    def __post_init__(self) -> None:
        if len(self.x) != len(self.target) or not len(self.x):
            raise ShapeError(f"{len(self.x)} pictures and {len(self.target)} targets")

    def __len__(self) -> int:
        return len(self.x)

    def some(self, count: int, seed: int = 0) -> "Examples":
        """`count` of them at random, all if there are not more."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return Examples(self.x[order], self.target[order])

    def plus(self, other: "Examples") -> "Examples":
        """These and others."""
        return Examples(torch.cat([self.x, other.x]), torch.cat([self.target, other.target]))


class Learner(ABC):
    """A small model that is trained on some examples and scored on others.

    key: of its figure. steps: of training, of `batch` pictures each.
    """

    key: str

    def __init__(self, classes: int, steps: int, batch: int = 32) -> None:
        if classes < 2 or steps < 1 or batch < 1:
            raise UsageError(f"{classes} classes, {steps} steps, batch {batch}: too few to learn")
        self.classes, self.steps, self.batch = classes, steps, batch

    @abstractmethod
    def __call__(self, train: Examples, test: Examples, seed: int) -> Score:
        """Train on some and be tested on others."""

    def batches(self, count: int, seed: int) -> Iterator[Tensor]:
        """The places (batch,) each step looks at: all of `count`, shuffled, again and again."""
        generator = torch.Generator().manual_seed(seed)
        left = torch.empty(0, dtype=torch.int64)
        for _ in range(self.steps):
            while len(left) < self.batch:
                left = torch.cat([left, torch.randperm(count, generator=generator)])
            yield left[: self.batch]
            left = left[self.batch :]


class Classifier(Learner):
    """The reader's network, pictures turned and shifted a little; the share read rightly."""

    key = "accuracy"

    def __call__(self, train: Examples, test: Examples, seed: int) -> Score:
        index = torch.cat(list(self.batches(len(train), seed)))
        settings = ReaderSettings(epochs=1, batch=self.batch, width=16)
        reader = train_reader(train.x[index], train.target[index], self.classes, seed, settings)
        right = (reader.predict(test.x) == test.target).double()
        return lambda weight: float((right * weight).sum() / weight.sum())


class Segmenter(Learner):
    """A small U-Net that says of every pixel what it is of; the mean of intersection over union."""

    key = "miou"

    def __call__(self, train: Examples, test: Examples, seed: int) -> Score:
        def loss(net: nn.Module, index: Tensor) -> Tensor:
            return F.cross_entropy(net(train.x[index]), train.target[index])

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = Dense(train.x.shape[1], self.classes, stride=1)
        _fit(net, loss, self.batches(len(train), seed), self.steps)
        found = torch.cat([part.argmax(1) for part in _answers(net, test.x)])
        shared, either = overlaps(found, test.target, self.classes)

        def score(weight: Tensor) -> float:
            return mean_overlap(shared * weight[:, None], either * weight[:, None])

        return score


class Detector(Learner):
    """CenterNet in little: a peak for each thing, and its size; average precision at overlap 0.5.

    Targets are label maps, whose connected pieces are the things; class 0 is background.
    Reference: Zhou, Wang & Krähenbühl 2019, "Objects as Points".
    """

    key = "ap50"

    def __call__(self, train: Examples, test: Examples, seed: int) -> Score:
        aim = _aims([boxes_of(ids) for ids in train.target], self.classes - 1, train.x.shape[2:])

        def loss(net: nn.Module, index: Tensor) -> Tensor:
            return _centre_loss(net(train.x[index]), aim[index], self.classes - 1)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = Dense(train.x.shape[1], self.classes - 1 + 4, stride=_STRIDE)
            # As published: peaks are rare, and a network that finds one everywhere learns slowly.
            assert net.head.bias is not None
            nn.init.constant_(net.head.bias[: self.classes - 1], -2.2)
        _fit(net, loss, self.batches(len(train), seed), self.steps)
        found = [_peaks(one, self.classes - 1) for part in _answers(net, test.x) for one in part]
        matched = match(found, [boxes_of(ids) for ids in test.target], self.classes - 1)
        return lambda weight: average_precision(matched, weight)


class Dense(nn.Module):
    """A U-Net of three levels: (B, channels, H, W) → (B, answers, H/stride, W/stride)."""

    def __init__(self, channels: int, answers: int, stride: int, width: int = 8) -> None:
        super().__init__()
        self.first = _pair(channels, width)
        self.second = _pair(width, 2 * width)
        self.third = _pair(2 * width, 4 * width)
        self.upper = _pair(6 * width, 2 * width)
        self.last = _pair(3 * width, width) if stride == 1 else nn.Identity()
        self.stride = stride
        self.head = nn.Conv2d(width if stride == 1 else 2 * width, answers, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        third = self.third(F.max_pool2d(second, 2))
        found = self.upper(torch.cat([second, F.interpolate(third, scale_factor=2)], 1))
        if self.stride == 1:
            found = self.last(torch.cat([first, F.interpolate(found, scale_factor=2)], 1))
        answer: Tensor = self.head(found)
        return answer


def _pair(inside: int, outside: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inside, outside):
        layers += [nn.Conv2d(channels, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers)


def _fit(
    net: nn.Module,
    loss: Callable[[nn.Module, Tensor], Tensor],
    batches: Iterator[Tensor],
    steps: int,
) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    net.train()
    for index in batches:
        value = loss(net, index)
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    net.eval()


def _answers(net: nn.Module, x: Tensor) -> Iterator[Tensor]:
    with torch.no_grad():
        for part in torch.split(x, _CHUNK):
            yield net(part)


def overlaps(found: Tensor, true: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(shared, either): pixels of each class in both maps and in one at least, (N, classes)."""
    one, other = (
        torch.stack([ids.flatten(1) == number for number in range(classes)], 1)
        for ids in (found, true)
    )
    return (one & other).sum(2).double(), (one | other).sum(2).double()


def mean_overlap(shared: Tensor, either: Tensor) -> float:
    """mIoU: the mean over classes that occur of Σ shared / Σ either, summed over pictures."""
    shared, either = shared.sum(0), either.sum(0)
    known = either > 0
    return float((shared[known] / either[known]).mean())


def boxes_of(ids: Tensor) -> Boxes:
    """The boxes of the things in a label map (H, W); class 1 of the map is class 0 of the boxes."""
    things = instances(ids.numpy())
    boxes = torch.tensor([thing.box for thing in things], dtype=torch.float32).reshape(-1, 4)
    corners = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    return Boxes(corners, torch.tensor([thing.category - 1 for thing in things]).long())


def _aims(true: list[Boxes], classes: int, space: torch.Size) -> Tensor:
    """What a detector is to answer, (N, classes + 5, h, w).

    Heat of each class; width, height and where in the cell the centre is; and where these count.
    """
    height, width = (size // _STRIDE for size in space)
    aims = torch.zeros(len(true), classes + 5, height, width)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    for aim, boxes in zip(aims, true, strict=True):
        for corners, number in zip(boxes.corners / _STRIDE, boxes.classes, strict=True):
            size, centre = corners[2:] - corners[:2], (corners[:2] + corners[2:]) / 2
            column, row = (int(value) for value in centre)
            spread = 2 * (size / 6).clamp(min=0.4) ** 2
            heat = torch.exp(-((columns - column) ** 2) / spread[0] - (rows - row) ** 2 / spread[1])
            aim[int(number)] = torch.maximum(aim[int(number)], heat)
            within = centre - torch.tensor([column, row])
            aim[classes:, row, column] = torch.cat([size, within, torch.ones(1)])
    return aims


def _centre_loss(answer: Tensor, aim: Tensor, classes: int) -> Tensor:
    """The focal loss of peaks (equation 1, α = 2, β = 4), and L1 of sizes and places."""
    heat, wanted, here = answer[:, :classes], aim[:, :classes], aim[:, -1:]
    peak, share = (wanted == 1).float(), heat.sigmoid()
    hit = -F.logsigmoid(heat) * (1 - share) ** 2 * peak
    miss = -F.logsigmoid(-heat) * share**2 * (1 - wanted) ** 4 * (1 - peak)
    off = (answer[:, classes:] - aim[:, classes:-1]).abs() * here
    return (hit.sum() + miss.sum() + 0.5 * off.sum()) / here.sum().clamp(min=1)


def _peaks(answer: Tensor, classes: int) -> Boxes:
    """The surest peaks of an answer (classes + 4, h, w), as boxes in pixels."""
    heat = answer[:classes].sigmoid()
    tops = torch.where(F.max_pool2d(heat[None], 3, 1, 1)[0] == heat, heat, 0.0)
    score, place = tops.flatten().topk(min(_PEAKS, tops.numel()))
    place, score = place[score > _LEAST_HEAT], score[score > _LEAST_HEAT]
    width = heat.shape[2]
    cells = heat.shape[1] * width
    number, cell = place // cells, place % cells
    told = answer[classes:].flatten(1)[:, cell].T
    centre = torch.stack([cell % width, cell // width], dim=1) + told[:, 2:]
    half = told[:, :2].clamp(min=0.1) / 2
    return Boxes(_STRIDE * torch.cat([centre - half, centre + half], dim=1), number, score)
