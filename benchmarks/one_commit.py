"""A program: the daemon as it is, but its store commits each change by itself; a baseline."""

from __future__ import annotations

from typing import Any

from orbitd import __main__ as program
from orbitd import daemon
from orbitd.manager import Opening, SessionManager


class OneCommitACall(SessionManager):
    """A SessionManager whose writer takes one piece of work a transaction."""

    @classmethod
    def open(cls, path: str, **options: Any) -> Opening:
        """Open as the daemon asks, without group commit."""
        return super().open(path, **{**options, "max_group": 1})


if __name__ == "__main__":
    vars(daemon)["SessionManager"] = OneCommitACall  # the one thing that differs
    program.main(prog_name="orbitd")
