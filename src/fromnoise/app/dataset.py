"""`fromnoise sample RUN --as-dataset DIR`: labelled pictures that any trainer reads.

Picture i of a round is drawn with its own seed, in batches of one shape, so the same request draws
the same pictures however often it is interrupted and by however many processes it is shared. What
is dropped is asked for again with the seeds that follow, in another round.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fromnoise.app import provenance
from fromnoise.app.dataset_asking import Asking, Wanted, asking
from fromnoise.app.dataset_folder import DatasetFolder, Drawn, Row, formats_of
from fromnoise.app.dataset_keeping import Everything, Keeping, keeping
from fromnoise.app.opening import about, opened
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import SampleRequest
from fromnoise.app.sample import draw_arguments
from fromnoise.app.shares import share
from fromnoise.core.environment import environment
from fromnoise.core.errors import FromNoiseError, UsageError
from fromnoise.core.files import lock, require_room
from fromnoise.core.images import to_pil
from fromnoise.guidance import Load
from fromnoise.interop.loading import load
from fromnoise.model import Model
from fromnoise.model.samples import part_of
from fromnoise.training.ranks import Ranks, join

_BATCH = 64
_OVERHEAD = 4096
_PATIENCE, _LEAST = 256, 0.02

_ELSEWHERE = {
    "label": "--as-dataset takes --classes in place of --label",
    "out": "--as-dataset names the folder to write; leave out --out",
    "film": "a data set has no film strip; leave out --film",
    "preview": "a data set is looked at as it grows; leave out --preview",
    "hires": "a data set is drawn in one pass; leave out --hires",
    "prior": "a data set is drawn of one model; leave out --prior",
    "replay": "--replay draws one picture again; leave out --as-dataset",
}
_HOW = {"as_dataset", "processes", "model", "out", "film", "preview", "replay"}
"""Fields that do not say what pictures a data set holds."""


@dataclass(frozen=True)
class Job:
    """One data set to be drawn: of what, what for, and where to. batch: pictures at a time.

    opened: opens what guides are made of, once each.
    """

    request: SampleRequest
    model: Model
    source: Asking
    keep: Keeping
    folder: DatasetFolder
    ranks: Ranks
    batch: int
    opened: Load = field(default_factory=lambda: functools.cache(load))

    def wanted(self, first: int, labels: Sequence[int | None]) -> list[list[Wanted]]:
        """What a round asks for, batch by batch; its first picture has the seed `first`."""
        every = [self.source.wanted(first + i, label) for i, label in enumerate(labels)]
        return [every[i : i + self.batch] for i in range(0, len(every), self.batch)]


def as_dataset(request: SampleRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise sample RUN --as-dataset DIR`."""
    ranks = join()
    with ExitStack() as held:
        with ranks.together():
            job = _job(request, ranks)
            # What is wrong is found before anything is written, into the run too: a judge is kept
            # there.
            _stream(job, [job.source.wanted(request.seed, job.source.plan(1)[0])])
            if ranks.first:
                job.folder.check(_asked(job))
        job = replace(job, keep=keeping(job.source, request, ranks, reporter))
        root = job.folder.root
        with ranks.together() as there:
            if ranks.first:
                require_room(root, request.count * (_OVERHEAD + _pixels(job.model)))
                held.enter_context(lock(root))
                there.mine = float(job.folder.begin(_asked(job)))
        if there.all[0]:
            job.folder.tidy()
            reporter.say(f"{root} is complete already ({request.count} pictures)")
            return 0
        rows = _rounds(job, reporter)
        with ranks.together():
            if ranks.first:
                job.folder.finish(rows, _card(job, rows))
        _say(job, rows, reporter)
    return 0


def _job(request: SampleRequest, ranks: Ranks) -> Job:
    """What a request asks for, of which everything is kept."""
    _check(request)
    model = opened(request)
    source = asking(model, request)
    formats = formats_of(request.formats, source.kinds)
    folder = DatasetFolder(Path(request.as_dataset or ""), source.classes, source.kinds, formats)
    batch = request.batch_size or min(request.count, _BATCH)
    return Job(request, model, source, Everything(), folder, ranks, batch)


def _check(request: SampleRequest) -> None:
    for name, reason in _ELSEWHERE.items():
        if getattr(request, name):
            raise UsageError(reason)
    if request.model is None:
        raise UsageError("name a run to draw from, e.g. `fromnoise sample runs/digits`")


def _asked(job: Job) -> dict[str, Any]:
    """What decides which pictures there will be, to be compared when it is gone on with."""
    told = job.request.model_dump(mode="json", exclude=_HOW)
    return {
        **{key: value for key, value in told.items() if value is not None},
        "batch_size": job.batch,
        "formats": list(job.folder.formats),
        "weights": job.model.fingerprint,
        "plan": _counted(job.source.plan(job.request.count), job.source.classes),
    }


def _rounds(job: Job, reporter: Reporter) -> list[Row]:
    """Draw until there are as many pictures as asked for; every row, dropped ones too."""
    rows: list[Row] = []
    labels, first = job.source.plan(job.request.count), job.request.seed
    while labels:
        batches = job.wanted(first, labels)
        with job.ranks.together():
            _draw(job, batches, reporter)
        found: list[Row] = []
        for batch in batches:
            found += job.folder.rows([one.seed for one in batch]) or []
        rows += found
        first += len(labels)
        labels = [row.get("label") for row in found if row["dropped"] is not None]
        _hopeful(rows)
        if labels:
            reporter.say(f"dropped {len(labels)}; drawing others in their place")
    return rows


def _draw(job: Job, batches: Sequence[list[Wanted]], reporter: Reporter) -> None:
    """The batches of a round that are not there, this process's share of them."""
    left = [b for b in batches if job.folder.rows([one.seed for one in b]) is None]
    mine = share(len(left), 1, job.ranks)
    total = sum(map(len, batches))
    done = total - sum(len(left[i]) for i in mine) if job.ranks.count == 1 else 0
    if done:
        reporter.say(f"going on with {job.folder.root}: {done} of {total} are there")
    goal = total if job.ranks.count == 1 else sum(len(left[i]) for i in mine)
    fresh: list[Row] = []
    with reporter.progress("drawing a data set", goal, done) as progress:
        for number in mine:
            fresh += _batch(job, left[number])
            done += len(left[number])
            dropped = sum(row["dropped"] is not None for row in fresh)
            progress.advance(done, f"{dropped} dropped" if dropped else "")
            _hopeful(fresh)


def _batch(job: Job, wanted: list[Wanted]) -> list[Row]:
    """Draw one batch and write it; its rows."""
    stream = _stream(job, wanted)
    pictures = stream.samples().tensor
    faults = job.keep.faults(pictures, wanted)
    told = about(job.model)
    rows = {one.seed: row for one, row in _rows(job, stream.recipe, wanted, faults)}
    kept = []
    for index, (one, picture, fault) in enumerate(zip(wanted, pictures, faults, strict=True)):
        if fault is None:
            texts = provenance.texts(stream.recipe, index, told)
            ids = job.source.map_of(one, picture) if job.folder.formats else None
            kept.append(Drawn(one, to_pil(picture), texts, ids))
    job.folder.write(kept, rows)
    return list(rows.values())


def _rows(
    job: Job, recipe: Mapping[str, Any], wanted: Sequence[Wanted], faults: Sequence[str | None]
) -> Iterator[tuple[Wanted, Row]]:
    for index, (one, fault) in enumerate(zip(wanted, faults, strict=True)):
        row: Row = {
            "seed": one.seed,
            "label": one.label,
            "text": one.text,
            "guidance": part_of(recipe, [index])["guidance"],
            "dropped": fault,
        }
        if one.label is not None:
            row["class"] = job.source.classes[one.label]
        if isinstance(row["guidance"], list):
            row["guidance"] = row["guidance"][0]
        yield one, row


def _stream(job: Job, wanted: Sequence[Wanted]) -> Any:
    told = draw_arguments(job.model, job.request, job.opened)
    asked = job.source.arguments(wanted)
    told |= {**asked, "inputs": {**told["inputs"], **asked.get("inputs", {})}}
    # By itself tiles would be taken where memory is short, and another picture drawn another time.
    told |= {"tile": job.request.tile or 0}
    told |= {"count": len(wanted), "seed": [one.seed for one in wanted], "batch_size": job.batch}
    return job.model.stream(**told)


def _pixels(model: Model) -> int:
    channels, height, width = model.shape
    return channels * height * width


def _hopeful(rows: Sequence[Row]) -> None:
    """Raise FromNoiseError when next to nothing is kept of many."""
    kept = sum(row["dropped"] is None for row in rows)
    if len(rows) >= _PATIENCE and kept < _LEAST * len(rows):
        reasons = Counter(row["dropped"] for row in rows if row["dropped"] is not None)
        raise FromNoiseError(
            f"{kept} of {len(rows)} pictures are kept ({reasons.most_common(1)[0][0]}); the model "
            "hardly draws what is asked: change the guidance or the steps, or leave out --keep"
        )


def _counted(labels: Sequence[int | None], classes: Sequence[str]) -> dict[str, int]:
    found = Counter(label for label in labels if label is not None)
    return {classes[label]: found[label] for label in sorted(found)}


def _card(job: Job, rows: Sequence[Row]) -> dict[str, Any]:
    """What the card of a complete data set says."""
    kept = [row for row in rows if row["dropped"] is None]
    dropped = [row for row in rows if row["dropped"] is not None]
    wanted = job.source.wanted(job.request.seed, job.source.plan(1)[0])
    recipe = _stream(job, [wanted]).recipe
    each = ("seeds", "label", "prompt", "inputs", "batch_size")
    return {
        "asked": _asked(job),
        "model": about(job.model),
        "sampling": {key: value for key, value in recipe.items() if key not in each},
        "classes": list(job.source.classes),
        "kinds": list(job.source.kinds),
        "formats": list(job.folder.formats),
        "counts": {
            "pictures": len(kept),
            "by_class": _counted([row["label"] for row in kept], job.source.classes),
        },
        "dropped": {
            "count": len(dropped),
            "by_reason": dict(Counter(str(row["dropped"]) for row in dropped)),
            "by_class": _counted([row["label"] for row in dropped], job.source.classes),
        },
        "environment": environment(),
    }


def _say(job: Job, rows: Sequence[Row], reporter: Reporter) -> None:
    root, formats = job.folder.root, ", ".join(("imagefolder", *job.folder.formats))
    dropped = sum(row["dropped"] is not None for row in rows)
    lost = f"; {dropped} more were dropped" if dropped else ""
    reporter.say(f"{len(rows) - dropped} pictures in {root} ({formats}){lost}")
