"""Run all but the long benchmarks, or the named ones, in order: `python -m benchmarks [NAME …]`."""

import sys
from collections.abc import Sequence
from importlib import import_module

from benchmarks import BENCHMARKS, LONG
from fromnoise.core.errors import UsageError, unknown


def main(names: Sequence[str]) -> None:
    """Run them one after the other in this process, each with its defaults.

    Raises UsageError for an unknown name before anything is run.
    """
    for name in names:
        if name not in (*BENCHMARKS, *LONG):
            raise unknown("benchmark", name, (*BENCHMARKS, *LONG))
    for name in names or BENCHMARKS:
        print(f"\n== {name} ==", flush=True)
        import_module(f"benchmarks.{name}").main([])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UsageError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        sys.exit(2)
