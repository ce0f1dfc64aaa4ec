"""The whole evaluation on exact models, and the page that shows it."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.denoisers import Denoiser, MixtureDenoiser, Prediction
from fromnoise.evaluate.features import PixelFeatures, ReaderSettings, train_reader
from fromnoise.evaluate.html import Page, Picture, report_html
from fromnoise.evaluate.pictures import (
    line_plot,
    loss_curves,
    quality_curve,
)
from fromnoise.evaluate.report import (
    FLOW,
    KEYS,
    Evaluation,
    Labelled,
    Likelihoods,
    evaluate,
    measure,
    measure_labels,
)
from fromnoise.layers.condition import Condition

MEANS = torch.tensor([[-0.5, 0.0], [0.5, 0.0], [0.0, 0.6]])


def mixture() -> MixtureDenoiser:
    weights, stds = torch.ones(3) / 3, torch.full((3,), 0.12)
    return MixtureDenoiser(weights, MEANS, stds, schedules.vp(), labels=torch.arange(3))


def draw(count: int, seed: int) -> Labelled:
    x = mixture().draw(count, seed)
    return Labelled(x, torch.cdist(x, MEANS.double()).argmin(1))


def told(some: Labelled) -> Condition:
    assert some.label is not None
    return Condition(vector={"label": torch.nn.functional.one_hot(some.label, 3).double()})


KNOWN = set(KEYS) - {"nats_per_token"}
"""What is measured of all but models of tokens."""


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    train, held_out, samples = draw(300, 0), draw(300, 1), draw(300, 2)
    assert train.label is not None
    reader = train_reader(train.x, train.label, 3, settings=ReaderSettings(epochs=10), data="three")
    how = Likelihoods(mixture(), told, steps=64, terms=63, flow=150, calibration=300)
    return evaluate(train, held_out, samples, reader, how)


def test_perfect_samples_score_like_real_data(evaluation: Evaluation):
    figures = evaluation.figures
    assert set(figures) == KNOWN
    for key, figure in figures.items():
        assert figure.low is not None and figure.high is not None, key
        assert figure.low <= figure.value <= figure.high, key
    assert figures["label_accuracy"].value > 0.97
    gap = figures["train_on_real_accuracy"].value - figures["train_on_synthetic_accuracy"].value
    assert abs(gap) < 0.03
    assert figures["kid"].low < 0 < figures["kid"].high
    for key in ("precision", "recall", "coverage"):
        assert figures[key].value == pytest.approx(figures[key].more["real"].value, abs=0.1)
    assert not figures["nearest_train_distance"].more["copying"]


def test_bits_of_an_exact_model_are_the_entropy(evaluation: Evaluation):
    held_out = draw(300, 1)
    zero = torch.zeros(300, dtype=torch.float64)
    log_density = mixture().log_prob(held_out.x, zero, told(held_out))
    truth = -log_density.mean().item() / (2 * np.log(2))
    bound, flow = evaluation.figures["bits_per_dim"], evaluation.figures["bits_per_dim_ode"]
    # The same 300 samples, so only the noise of the bound is left.
    assert bound.value == pytest.approx(truth, abs=0.1)
    assert flow.low - 0.02 < truth < flow.high + 0.02


class Stiff(Denoiser):
    """A belief whose flow no solver follows to its end."""

    def __init__(self) -> None:
        self.process = mixture().process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return Prediction(1e5 * x, x, t, self.process)


def test_a_figure_that_cannot_be_had_is_left_out_and_the_notes_say_why():
    train, held_out, samples = draw(60, 0), draw(60, 1), draw(60, 2)
    assert train.label is not None
    reader = train_reader(train.x, train.label, 3, settings=ReaderSettings(epochs=1))
    how = Likelihoods(Stiff(), steps=8, terms=2, bound=20, flow=2, calibration=20, evaluations=100)
    found = evaluate(train, held_out, samples, reader, how)
    assert KNOWN - set(found.figures) == {FLOW}
    assert "after 100 evaluations" in found.as_json()["notes"][FLOW]


def test_bad_samples_score_badly():
    train, held_out, samples = draw(300, 0), draw(300, 1), draw(300, 2)
    features = PixelFeatures()
    good = dict(measure(train, held_out, samples, features))
    one_mode = Labelled(samples.x[samples.label == 0])
    collapsed = dict(measure(train, held_out, one_mode, features))
    assert collapsed["frechet_distance"].low > good["frechet_distance"].high
    assert collapsed["recall"].high < 0.6 < good["recall"].low
    stolen = dict(measure(train, held_out, train, features))
    assert stolen["nearest_train_distance"].value == 0
    assert stolen["nearest_train_distance"].more["copying"]
    reader = train_reader(train.x, train.label, 3, settings=ReaderSettings(epochs=10))
    mislabelled = Labelled(samples.x, (samples.label + 1) % 3)
    wrong = dict(measure_labels(train, held_out, mislabelled, reader, seeds=(0,)))
    assert wrong["label_accuracy"].high < 0.1
    assert wrong["train_on_synthetic_accuracy"].high < 0.1 < wrong["train_on_real_accuracy"].low
    assert not dict(measure_labels(train, held_out, Labelled(samples.x), reader))


def test_the_file_is_plain_json_with_documented_keys(evaluation: Evaluation):
    made = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    figures = {k for k, v in made.items() if isinstance(v, dict) and "value" in v}
    assert figures == KNOWN
    assert made["features"]["name"] == "three-reader-v1"
    assert made["counts"] == {"train": 300, "held_out": 300, "samples": 300}
    for key in figures:
        assert {"value", "low", "high"} <= set(made[key])
    assert all(text.endswith(".") for text in KEYS.values())


def test_some_of_the_samples_keep_their_labels():
    whole = draw(50, 3)
    part = whole.some(20, seed=1)
    assert len(part.x) == 20
    places = [(whole.x == row).all(1).nonzero().item() for row in part.x]
    assert torch.equal(whole.label[places], part.label)
    assert sorted(places) != list(range(20))
    assert whole.some(80) is whole
    with pytest.raises(ShapeError, match="3 samples"):
        Labelled(torch.zeros(3, 2), torch.zeros(2))


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def test_plots_are_pictures_that_repeat_and_show_their_data():
    rows = [{"step": s, "loss": 1 / (s + 1), "rate": 1e-3} for s in range(20)]
    rows += [{"step": 10, "validation_loss": 0.5}, {"step": 19, "validation_loss": 0.2}]
    first = loss_curves(rows)
    assert first == loss_curves(rows)
    assert first != loss_curves([row for row in rows if "loss" in row])
    assert picture(first).std() > 5
    points = [(5.0, 9.0, 8.0, 10.0), (50.0, 2.0, 1.5, 2.5)]
    plain = quality_curve({"ddim": points}, "Fréchet distance")
    both = quality_curve({"ddim": points, "ddpm": [(5, 40, 35, 45)]}, "Fréchet distance")
    assert plain != both
    assert picture(line_plot({"a": [(0, 1)]}, "x", "y")).std() > 5
    with pytest.raises(UsageError, match="no losses"):
        loss_curves([{"step": 1, "rate": 2.0}])
    with pytest.raises(UsageError, match="no points"):
        quality_curve({"ddim": []}, "distance")


class Collector(HTMLParser):
    """Tags that are left open, addresses, and the texts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset") and v]
        if tag not in ("meta", "img", "br", "link", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else_and_escapes_every_text(evaluation: Evaluation):
    png = line_plot({"a": [(0, 1), (1, 2)]}, "x", "y")
    evil = '<script>alert(1)</script> & "quotes"'
    page = Page(
        title=evil,
        summary=evil,
        figures=evaluation.as_json() | {evil: {"value": 2.0}},
        pictures=[Picture(evil, png, evil, pixels=True), Picture("plot", png)],
        recipe={"prompt": evil},
        environment={"torch": evil},
    )
    text = report_html(page)
    reader = Collector()
    reader.feed(text)
    assert reader.open == []
    assert "script" not in reader.tags and "link" not in reader.tags
    assert len(reader.addresses) == 2
    assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    assert base64.b64decode(reader.addresses[0].split(",")[1]) == png
    assert not re.search(r"https?:|url\(|@import", text)
    assert "<script" not in text
    for key in KNOWN:
        assert key.replace("_", " ") in text
    value = evaluation.figures["label_accuracy"].value
    assert f">{value:.3f}<" in text
    with pytest.raises(UsageError, match="not PNG"):
        report_html(Page("t", "s", {}, [Picture("p", b"GIF89a")]))
