"""Work that other libraries do for us, whose failures are told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from fromnoise.core.errors import FromNoiseError

_LONGEST = 200


@contextmanager
def attempt(failed: str) -> Iterator[None]:
    """Turn whatever is raised within into a FromNoiseError that says what failed, and why.

    Our own errors, and those of the disk, pass: they have words of their own.
    """
    try:
        yield
    except (FromNoiseError, OSError):
        raise
    except Exception as error:
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        said = (str(first).strip() or "no message").splitlines()[0][:_LONGEST]
        raise FromNoiseError(
            f"{failed} ({type(first).__name__}: {said}); nothing was written. Please report it "
            "with the versions of torch, onnxscript and onnxruntime"
        ) from error
