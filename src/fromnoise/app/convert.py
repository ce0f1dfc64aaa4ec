"""Turn a model or weights of one format into another."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import ConvertRequest
from fromnoise.core.atomic import temporary_beside
from fromnoise.core.errors import FromNoiseError, UsageError
from fromnoise.core.files import check_file, check_folder, refuse_pickle, write_json
from fromnoise.interop.conversion import (
    Choice,
    Report,
    fingerprinted,
    open_source,
    write_target,
)
from fromnoise.interop.sandbox import extract

_MOST_SHOWN = 40


def convert(request: ConvertRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise convert`."""
    source, out = Path(request.source), Path(request.out)
    report = Report(request.source, to=_format(request), out=request.out)
    if request.report is not None:
        check_file(request.report)
    try:
        report.sha256 = fingerprinted(source)
        if source.is_file() and not request.from_pickle:
            refuse_pickle(source)
        _carry_out(request, source, out, report)
    except FromNoiseError as error:
        report.notes.append(str(error))
        _complain(report, reporter)
        raise
    finally:
        if request.report is not None:
            write_json(request.report, report.json())
    for note in report.notes:
        reporter.say(note)
    reporter.say(_summary(report))
    return 0


def _format(request: ConvertRequest) -> str:
    if request.to is not None:
        return request.to
    return "safetensors" if Path(request.out).suffix == ".safetensors" else "fromnoise"


def _carry_out(request: ConvertRequest, source: Path, out: Path, report: Report) -> None:
    if report.to == "safetensors":
        if not request.from_pickle:
            raise UsageError("--to safetensors takes weights out of a pickle: give --from-pickle")
        _said(report, request, source, out)
        report.written = True
        return
    with _weights(request, source, out, report) as weights:
        opened = open_source(weights, Choice(request.preset, request.flags), report)
        write_target(opened, report.to, out, report, request.half)


@contextmanager
def _weights(request: ConvertRequest, source: Path, out: Path, report: Report) -> Iterator[Path]:
    """The file to open: the source itself, or what was in the pickle, kept while it is needed."""
    if not request.from_pickle:
        yield source
        return
    # On the disk of the result: it has the room for it, which the system's own may not have.
    check_folder(out.parent).mkdir(parents=True, exist_ok=True)
    with temporary_beside(out, ".") as room:
        room.mkdir()
        _said(report, request, source, room / "weights.safetensors")
        yield room / "weights.safetensors"


def _said(report: Report, request: ConvertRequest, source: Path, target: Path) -> None:
    found = extract(source, target, request.weights)
    report.wrapper, report.weights = found.wrapper, found.which
    report.tensors = found.tensors


def _complain(report: Report, reporter: Reporter) -> None:
    faults = report.faults()
    for line in faults[:_MOST_SHOWN]:
        reporter.warn(line)
    if len(faults) > _MOST_SHOWN:
        reporter.warn(f"and {len(faults) - _MOST_SHOWN} more; --report FILE lists them all")


def _summary(report: Report) -> str:
    parts = [f"{report.source} → {report.out} ({report.to})"]
    if report.weights is not None:
        parts.append(f"{report.weights} weights, {report.tensors} tensors")
    if report.preset is not None:
        parts.append(f"taken for {report.preset}")
    if report.ignored:
        parts.append(f"left out: {', '.join(report.ignored)}")
    return "; ".join(parts)
