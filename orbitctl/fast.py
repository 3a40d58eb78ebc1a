"""The lists that a person waits for, without click: `session list`, plain or with `--json` or `-q`.

`main` asks here first. What is not exactly one of these command lines, and whatever a `LightConnection` finds unusual,
is None here, with nothing printed: the click command does it from the start. So this module has no message of its own,
and what it prints is laid out by the same functions as the command's. Every import counts here.
"""

from __future__ import annotations

import os
import sys

from orbitctl.client.light import LightAnswer, LightConnection, Unusual

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Sequence
    from typing import Any

PAGE_SIZE = 1_000
"""As many entries as `ask_all` asks for at once; a longer list is left to that."""
COMPLETION_VARIABLE = "_ORBITCTL_COMPLETE"
FLAGS = {"--json": "json", "-q": "quiet", "--quiet": "quiet"}


def run_fast(arguments: Sequence[str]) -> int | None:
    """Run a plain command line and return its exit code; None, with nothing printed, for any other."""
    if arguments[:1] == ["_complete"]:
        from orbitctl.completion.answer import main

        return main(arguments[1:])
    words = [word for word in arguments if word not in FLAGS]
    if words != ["session", "list"] or COMPLETION_VARIABLE in os.environ:
        return None
    flags = {FLAGS[word] for word in arguments if word in FLAGS}
    try:
        output = _list(flags)
    except (Unusual, LookupError, TypeError, ValueError, AttributeError):  # the last ones: an answer of another shape
        return None
    return None if output is None else _write(output)


def _list(flags: set[str]) -> bytes | str | None:
    """Return what a list of sessions prints; None where it is not stdout that says it. Raises: Unusual."""
    with LightConnection(os.environ) as connection:
        answer = _whole(connection.call("session.list", {"limit": PAGE_SIZE}))
        if "json" in flags:
            return _json(answer.raw)
        sessions = answer.value["sessions"]
        if "quiet" in flags:
            from orbit_protocol.visible import visible

            return "".join(visible(one["id"]) + "\n" for one in sessions)
        if not sessions and sys.stdout.isatty():
            return None
        workspaces: dict[str, str] = {}
        if any(one["workspace_id"] for one in sessions):
            found = _whole(connection.call("workspace.list", {"limit": PAGE_SIZE})).value["workspaces"]
            workspaces = {one["id"]: one["name"] for one in found}
    from orbitctl.ui.listing import LIST_COLUMNS, View, sessions_table
    from orbitctl.ui.stdout import view_of_stdout

    view = view_of_stdout(View, workspaces=workspaces, here=os.environ.get("ORBIT_SESSION"))
    return sessions_table(sessions, LIST_COLUMNS, view)


def _whole(answer: LightAnswer) -> LightAnswer:
    """Return the answer of a method that lists, if one page holds all. Raises: Unusual."""
    if answer.value["next_cursor"] is not None:
        raise Unusual
    return answer


def _json(raw: bytes) -> bytes:
    if sys.stdout.isatty():
        from orbit_protocol.visible import visible_json

        raw = visible_json(raw)
    return raw + b"\n"


def _write(output: bytes | str) -> int:
    """Write to stdout; return the exit code, which is that of `cli.run` where it cannot be written."""
    stdout: Any = sys.stdout
    try:
        if isinstance(output, bytes):
            stdout.buffer.write(output)
        else:
            stdout.reconfigure(errors="backslashreplace")  # as `cli.run` has it
            stdout.write(output)
        stdout.flush()
    except OSError as error:
        from orbitctl.cli import report_unwritable

        return report_unwritable(error)
    return 0
