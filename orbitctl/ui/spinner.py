"""Shows on a terminal that something long is going on."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Iterator

PATIENCE = 0.5
"""Seconds before anything is shown."""
_STEP = 0.1


@contextlib.contextmanager
def spinner(what: str) -> Iterator[None]:
    """Turn a spinner on stderr while the block runs, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_turn, args=(what, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _turn(what: str, done: threading.Event) -> None:
    if done.wait(PATIENCE):
        return
    for sign in itertools.cycle("|/-\\"):
        sys.stderr.write(f"\r{sign} {what}")
        sys.stderr.flush()
        if done.wait(_STEP):
            break
    sys.stderr.write("\r" + " " * (len(what) + 2) + "\r")
    sys.stderr.flush()
