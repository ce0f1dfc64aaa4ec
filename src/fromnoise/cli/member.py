"""One of several processes that carry out a request: `python -m fromnoise.cli.member VERB JSON`."""

import os
import signal
import sys
import threading

from fromnoise.app.verbs import VERBS, carry_out
from fromnoise.cli.main import guarded, reporter


def main(verb: str, request: str) -> int:
    """Carry out a request that was checked before; returns the exit code."""
    threading.Thread(target=_stop_with_launcher, daemon=True).start()
    return guarded(lambda: carry_out(verb, VERBS[verb][0].model_validate_json(request), reporter()))


def _stop_with_launcher() -> None:
    """When the launcher is gone, its end of our standard input closes: save and leave."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
