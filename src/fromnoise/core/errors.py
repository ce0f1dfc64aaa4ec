"""One family of errors: each message says what was wrong, with which value, and what to do."""

import difflib
from collections.abc import Iterable


class FromNoiseError(Exception):
    """Base of every error raised on purpose. The command line prints it as one line.

    `exit_code` is what the command line exits with: 2 for a mistake in what was asked,
    1 for trouble while doing it. `quiet`: another process of the group says it.
    """

    exit_code = 1
    quiet = False


class UsageError(FromNoiseError):
    """What was asked cannot be: an unknown name, a wrong type, a value out of range."""

    exit_code = 2


class ShapeError(UsageError):
    """A tensor or picture has a shape the receiver cannot take."""


class FileError(UsageError):
    """A file is missing, unreadable, corrupt, or of a kind that is never opened."""


class TrainingError(FromNoiseError):
    """Training cannot go on: the loss is not finite, a loader died, a checkpoint is gone."""


class NumberError(FromNoiseError):
    """A computation ended in numbers that are not finite, so there is no result to show."""


class OutOfMemoryError(FromNoiseError):
    """Memory ran out; nothing that was there before was changed."""


class DiskError(FromNoiseError):
    """A file could not be written; nothing that was there before was changed."""


def unknown(what: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a closed table, with the nearest names that are.

    >>> str(unknown("sampler", "dmp", ["ddpm", "ddim", "euler"]))
    "unknown sampler 'dmp'; did you mean ddpm? Known: ddim, ddpm, euler"
    """
    names = sorted(known)
    near = nearest(name, names)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    if near and len(names) > 12:
        return UsageError(f"unknown {what} {str(name)!r}{hint}")
    listed = ", ".join(names) if len(names) <= 60 else f"{len(names)} names"
    return UsageError(f"unknown {what} {str(name)!r}{hint} Known: {listed}")


def nearest(name: object, known: Iterable[str]) -> list[str]:
    """The names that are most like one that is not there, at most 3, the nearest first."""
    return difflib.get_close_matches(str(name).lower(), sorted(known), n=3, cutoff=0.5)
