"""A program: the daemon as it is, but its store commits each change by itself; a baseline."""

from __future__ import annotations

import functools

from orbitd import daemon
from orbitd.cli import cli
from orbitd.manager import SessionManager


class OneCommitACall(SessionManager):
    """A SessionManager whose writer takes one piece of work a transaction."""

    open = functools.partial(SessionManager.open, max_group=1)  # the same, but for that


if __name__ == "__main__":
    vars(daemon)["SessionManager"] = OneCommitACall  # the one thing that differs
    cli(prog_name="orbitd")
