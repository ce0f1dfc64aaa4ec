"""Check a collection of pictures before training on it; look at any data set."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from fromnoise import data as sets
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import DataCheckRequest, DataPreviewRequest
from fromnoise.app.sources import config_of
from fromnoise.core.files import write_json
from fromnoise.core.images import grid_image, to_pil, write_png
from fromnoise.data.survey import FAULTS, REMARKS, Survey, survey
from fromnoise.model import scatter


def data_check(request: DataCheckRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise data check`."""
    readings = survey(request.path)
    told = next(readings)
    with reporter.progress("reading", told.total) as bar:
        for told in readings:
            bar.advance(len(told.findings))
    for line in _report(told, request.show):
        reporter.say(line)
    if request.out is not None:
        write_json(request.out, told.plain())
        reporter.say(f"written: {request.out}")
    if told.share > request.max_bad:
        reporter.warn(
            f"{told.share:.2%} of the pictures are bad, more than {request.max_bad:.2%}; training "
            "would refuse them. Repair or remove them, or allow more with --max-bad"
        )
        return 1
    return 0


def data_preview(request: DataPreviewRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise data preview`."""
    dataset = sets.load(config_of(request.source, size=request.size, max_bad=1.0))
    count = min(request.count, len(dataset))
    # Evenly spaced places, so that data sorted by class shows all of them.
    places = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    if len(dataset.shape) == 1:
        every = dataset.batch(range(min(len(dataset), 10_000)))
        sheet = scatter(every.x.double().numpy())
    else:
        pictures, labels = _pictures(dataset, places)
        scale = max(1, request.size // max(dataset.shape[1:]))
        sheet = grid_image(pictures, request.columns, scale, labels, gap=4)
    write_png(request.out, sheet)
    reporter.say(f"{dataset.name}: {len(dataset)} samples of shape {dataset.shape}")
    reporter.say(f"preview: {request.out}")
    return 0


def _pictures(
    dataset: sets.Dataset, places: Sequence[int]
) -> tuple[list[Image.Image], list[str] | None]:
    batches = [dataset.batch([place]) for place in places]
    pictures = [to_pil(batch.x[0]) for batch in batches]
    if batches[0].caption is not None:
        return pictures, [(batch.caption or [""])[0] for batch in batches]
    if batches[0].label is not None:
        numbers = [int(batch.label[0]) for batch in batches if batch.label is not None]
        return pictures, [dataset.classes[number] for number in numbers]
    return pictures, None


def _report(told: Survey, show: int) -> Iterator[str]:
    count, bad = len(told.findings), len(told.bad)
    yield f"{told.path}: {count} pictures, {count - bad} good, {bad} bad ({told.share:.2%})"
    yield from _sizes(told)
    formats = Counter(f.format for f in told.findings if f.format)
    modes = Counter(f.mode for f in told.findings if f.mode)
    yield f"formats: {_counts(formats)}; modes: {_counts(modes)}"
    captions = sum(bool(f.caption) for f in told.findings)
    yield f"captions: {captions} of {count}"
    for kind, findings in told.faults().items():
        yield f"bad, {kind} ({FAULTS[kind]}): {len(findings)}"
        yield from _some([f"{f.name}: {f.fault[1]}" for f in findings if f.fault], show)
    for kind, names in told.remarks().items():
        yield f"{kind} ({REMARKS[kind]}): {len(names)}"
        yield from _some(names, show)
    same = told.duplicates()
    if same:
        yield f"same pixels: {sum(map(len, same))} pictures in {len(same)} groups"
        yield from _some([" = ".join(names) for names in same], show)
    if told.lost:
        yield f"captions or samples without a picture: {len(told.lost)}"
        yield from _some(told.lost, show)
    if told.ignored:
        yield f"other files, passed over: {_counts(told.ignored)}"


def _sizes(told: Survey) -> Iterator[str]:
    sizes = told.sizes()
    if sizes:
        widths, heights = [w for w, _ in sizes], [h for _, h in sizes]
        (width, height), times = sizes.most_common(1)[0]
        yield (
            f"sizes: {len(sizes)}, {min(widths)} to {max(widths)} wide and {min(heights)} to "
            f"{max(heights)} high; most often {width}×{height} ({times})"
        )


def _counts(counter: "Counter[str]") -> str:
    return ", ".join(f"{name} {times}" for name, times in counter.most_common()) or "none"


def _some(lines: Sequence[str], show: int) -> Iterator[str]:
    yield from (f"  {line}" for line in lines[:show])
    if len(lines) > show > 0:
        yield f"  … and {len(lines) - show} more"
