"""What the keeper knows of one program, from its fork until it is forgotten.

Runs inside the keeper.
"""

from __future__ import annotations

import os
import time

from orbitd.keeper.spawn import parse_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from orbitd.keeper.connection import Connection
    from orbitd.keeper.messages import Value

    Fields = tuple[tuple[str, Value], ...]


class Program:
    """A program on a terminal of its own; only its keeper changes it.

    Args:
        name: The id that orbitd gave it.
        started: Its pid, its terminal's master and the pipe that tells how execve went.
        asked_by: The connection and the `seq` that wait for that.
    """

    def __init__(self, name: str, started: tuple[int, int, int], asked_by: tuple[Connection, str]) -> None:
        self.id = name
        self.pid, self.master, self.report = started
        self.asked_by = asked_by
        self.started_at = time.time()
        self.ended: Fields = ()
        self.acknowledged = False
        self._told = b""

    def fields(self) -> Fields:
        """Return what `program` and `exited` tell."""
        running: Fields = (("id", self.id), ("pid", self.pid), ("started_at", self.started_at))
        return (*running, *self.ended, ("acknowledged", int(self.acknowledged))) if self.ended else running

    def hear(self) -> bool:
        """Read what the child tells before it becomes the program.

        Returns:
            Whether that is all: execve has succeeded, or the child has given up.
        """
        while True:
            try:
                data = os.read(self.report, 4096)
            except BlockingIOError:
                return False
            if not data:
                return True
            self._told += data

    def report_ended(self) -> dict[bytes, bytes]:
        """Close the report and return what it told: `cwd`, and `errno` and `path` if the program did not start."""
        os.close(self.report)
        self.report = -1
        return parse_report(self._told)

    def end(self, status: int) -> None:
        """Note how it ended, from waitpid(2)'s status."""
        code = os.waitstatus_to_exitcode(status)
        how: tuple[str, Value] = ("exit_code", code) if code >= 0 else ("exit_signal", -code)
        self.ended = (("ended_at", time.time()), how)

    def signal(self, target: str, number: int) -> None:
        """Send a signal; before it is reaped, so that its pid cannot be somebody else's.

        Raises:
            OSError: Nobody is there, or it runs as another user.
            KeyError: No such target.
        """
        _TARGETS[target](self, number)

    def _signal_foreground(self, number: int) -> None:
        group = os.tcgetpgrp(self.master)
        if group <= 1:  # nobody; killpg(0) would be the keeper's own group, killpg(1) everybody
            raise ProcessLookupError
        os.killpg(group, number)


_TARGETS: dict[str, Callable[[Program, int], None]] = {
    "program": lambda program, number: os.kill(program.pid, number),
    "group": lambda program, number: os.killpg(program.pid, number),
    "foreground": Program._signal_foreground,
}
