"""List runs, and overlay them in one page."""

from pathlib import Path

from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import RunsCompareRequest, RunsListRequest
from fromnoise.core.errors import FileError
from fromnoise.core.files import check_file, write_text
from fromnoise.training.comparison import compare, read_runs


def runs_list(request: RunsListRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise runs list`."""
    folder = Path(request.folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder")
    found = sorted(p for p in folder.iterdir() if (p / "config.json").exists())
    if not found:
        reporter.say(f"no runs in {folder}; `fromnoise train digits` makes one")
    for row in read_runs(found):
        reporter.say(row.line())
    return 0


def runs_compare(request: RunsCompareRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise runs compare`."""
    out = check_file(request.out)
    write_text(out, compare([Path(run) for run in request.runs]))
    reporter.say(f"comparison: {request.out}")
    return 0
