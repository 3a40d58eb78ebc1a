"""A spinner on stderr while something takes long, and how far that is."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator

from orbit_protocol.visible import visible
from orbitctl.ui.output import is_smart_terminal

DELAY_SECONDS = 0.5
"""Seconds of work before the spinner is shown."""
_STEP_SECONDS = 0.1
_COLUMNS = 80


class Shown:
    """What a spinner shows beside its sign.

    Args:
        what: What is done, such as "checking the database".

    Attributes:
        is_on_terminal: Whether anything is shown at all.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.text = what  # replaced as a whole, and read by the spinner's thread
        self.is_on_terminal = sys.stderr.isatty() and is_smart_terminal()

    def show_progress(self, what: str, done: int, total: int) -> None:
        """Show how far the work is; `total` is 0 where that is not known."""
        what = visible(what)  # as the daemon sent it
        self.text = f"{self._what}: {done:,} of {total:,} {what}" if total else f"{self._what}: {what}"


@contextlib.contextmanager
def spinner(what: str) -> Iterator[Shown]:
    """Show a spinner on stderr while the block runs, if stderr is a terminal that can draw one."""
    shown = Shown(what)
    if not shown.is_on_terminal:
        yield shown
        return
    done = threading.Event()
    # A thread, since the block waits for the daemon in a blocking read. It writes to stderr only, and has ended before
    # anything that follows the block is written.
    thread = threading.Thread(target=_spin, args=(shown, done), daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        done.set()
        thread.join()


def _spin(shown: Shown, done: threading.Event) -> None:
    # Signals are for the main thread: one that another thread gets does not interrupt the main one's system call.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if done.wait(DELAY_SECONDS):
        return
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except (OSError, ValueError):
        columns = _COLUMNS
    width = 0
    with contextlib.suppress(OSError):  # the terminal has hung up
        for sign in itertools.cycle("|/-\\"):
            line = f"{sign} {shown.text}"[: columns - 1]  # a line that wraps could not be written over
            sys.stderr.write(f"\r{line:<{width}}")
            sys.stderr.flush()
            width = len(line)
            if done.wait(_STEP_SECONDS):
                break
        sys.stderr.write("\r" + " " * width + "\r")
        sys.stderr.flush()
