"""A pager for what may be longer than the terminal, as git has it: $PAGER, else less."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

DEFAULT_PAGER = "less"
LESS_OPTIONS = "FRX"
"""Where LESS is not set: end at once where all fits on the screen, show colours, and leave the text there."""


@contextlib.contextmanager
def pager() -> Iterator[TextIO]:
    """Give what is written in the block to the user's pager; to stdout where that is no terminal, or there is none.

    The block ends early, without an error, where the user leaves the pager.
    """
    command = os.environ.get("PAGER", DEFAULT_PAGER).strip()
    if not sys.stdout.isatty() or not _is_there(command):
        yield sys.stdout
        return
    sys.stdout.flush()
    environment = {"LESS": LESS_OPTIONS, "LV": "-c", **os.environ}
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],  # $PAGER may have options
        stdin=subprocess.PIPE,
        env=environment,
    )
    assert process.stdin is not None
    stdin = io.TextIOWrapper(process.stdin, encoding=sys.stdout.encoding, errors="backslashreplace")
    # Ctrl-C is for the pager, which shows more of what it has then.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with contextlib.suppress(BrokenPipeError), stdin:
            yield stdin
    finally:
        process.wait()
        signal.signal(signal.SIGINT, before)


def _is_there(command: str) -> bool:
    """Return whether a command line begins with a program that can be run; cat is none that pages."""
    try:
        words = [word for word in shlex.split(command) if "=" not in word]
    except ValueError:
        return bool(command)  # the shell says what is wrong with it
    return bool(words) and words[0] != "cat" and shutil.which(words[0]) is not None
