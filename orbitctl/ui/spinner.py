"""A spinner on stderr while something takes long."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Iterator

DELAY_SECONDS = 0.5
"""Seconds of work before the spinner is shown."""
_STEP_SECONDS = 0.1


@contextlib.contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show a spinner on stderr while the block runs, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    # A thread, since the block waits for the daemon in a blocking read. It writes to stderr only, and has ended before
    # anything that follows the block is written.
    thread = threading.Thread(target=_spin, args=(what, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _spin(what: str, done: threading.Event) -> None:
    if done.wait(DELAY_SECONDS):
        return
    for sign in itertools.cycle("|/-\\"):
        sys.stderr.write(f"\r{sign} {what}")
        sys.stderr.flush()
        if done.wait(_STEP_SECONDS):
            break
    sys.stderr.write("\r" + " " * (len(what) + 2) + "\r")
    sys.stderr.flush()
