"""What a person waits for, without click: `ls` and `session list`, plain or with `--json` or `-q`, and `a`.

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
    from collections.abc import Callable, Sequence
    from typing import Any

PAGE_SIZE = 1_000
"""As many entries as `ask_all` asks for at once; a longer list is left to that."""
COMPLETION_VARIABLE = "_ORBITCTL_COMPLETE"
LS, LIST = ("ls",), ("session", "list")
FLAGS = {"--json": "json", "-q": "quiet", "--quiet": "quiet"}
LS_FLAGS = {**FLAGS, "-a": "all", "--all": "all"}


def run_fast(arguments: Sequence[str]) -> int | None:
    """Run a plain command line and return its exit code; None, with nothing printed, for any other."""
    if arguments[:1] == ["_complete"]:
        from orbitctl.completion.answer import main

        return main(arguments[1:])
    if COMPLETION_VARIABLE in os.environ:
        return None
    command = tuple(word for word in arguments if not word.startswith("-"))
    known = {LS: LS_FLAGS, LIST: FLAGS}.get(command)
    try:
        if known is None:
            attach = _prepared_attach(arguments)
            output = None
        else:
            attach = None
            # KeyError for any other option; before the command stand only those that all commands have.
            at = arguments.index(command[0])
            flags = [FLAGS[word] for word in arguments[:at]]
            output = _list(command, {*flags, *(known[word] for word in arguments[at:] if word.startswith("-"))})
    except (Unusual, LookupError, TypeError, ValueError, AttributeError):  # the last ones: an answer of another shape
        return None
    if attach is not None:
        return attach()
    return None if output is None else _write(output)


def _prepared_attach(arguments: Sequence[str]) -> Callable[[], int] | None:
    """Return what attaches, if no more than a session is named; None for another command line. Raises: Unusual."""
    words = arguments[1:] if arguments[:1] == ["session"] else arguments
    if words[:1] not in (["a"], ["attach"]) or len(words) > 2 or any(word.startswith("-") for word in words):
        return None
    if words is not arguments and len(words) == 1:  # `session attach` alone
        return None
    from orbitctl.attach.plain import prepare

    return prepare(words[1] if len(words) == 2 else None)


def _list(command: tuple[str, ...], flags: set[str]) -> bytes | str | None:
    """Return what a list of sessions prints; None where it is not stdout that says it. Raises: Unusual."""
    params: dict[str, Any] = {"limit": PAGE_SIZE}
    if "all" in flags:
        params["status"] = ["active", "detached", "terminated"]
    with LightConnection(os.environ) as connection:
        answer = _whole(connection.call("session.list", params))
        if "json" in flags:
            return _json(answer.raw)
        sessions = answer.value["sessions"]
        if "quiet" in flags:
            from orbit_protocol.visible import visible

            return "".join(visible(one["id"]) + "\n" for one in sessions)
        if not sessions and sys.stdout.isatty():
            return None
        workspaces: dict[str, str] = {}
        if command == LIST and any(one["workspace_id"] for one in sessions):  # `ls` has no column for them
            found = _whole(connection.call("workspace.list", {"limit": PAGE_SIZE})).value["workspaces"]
            workspaces = {one["id"]: one["name"] for one in found}
    from orbitctl.ui.listing import LIST_COLUMNS, LS_ALL_COLUMNS, LS_COLUMNS, View, sessions_table
    from orbitctl.ui.stdout import view_of_stdout

    view = view_of_stdout(View, workspaces=workspaces, here=os.environ.get("ORBIT_SESSION"))
    columns = LIST_COLUMNS if command == LIST else LS_ALL_COLUMNS if "all" in flags else LS_COLUMNS
    return sessions_table(sessions, columns, view)


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
        from orbitctl.cli import report
        from orbitctl.errors import CommandError

        is_closed = isinstance(error, BrokenPipeError)  # which has an exit code of its own
        return report(error if is_closed else CommandError(f"cannot write to stdout: {error.strerror}"))
    return 0
