"""The errors of commands: an exit code, one message, and the next step.

`from_daemon` is the one place where an error of the daemon becomes a `CommandError`, by tables. The
daemon's hints name methods; here they name the commands that do the same.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from orbit_protocol.errors import InvalidParams, OrbitError

if TYPE_CHECKING:
    from orbit_protocol.types import Session


class ExitCode(IntEnum):
    """Exit codes; scripts rely on them."""

    OK = 0
    ERROR = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_FOUND = 4
    CONFLICT = 5
    TIMEOUT = 6
    PROTOCOL = 7
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CommandError(Exception):
    """A command has failed.

    Args:
        message: One sentence that names the thing.
        exit_code: What the process exits with.
        hint: The next step, where there is one.
        details: More lines, such as the candidates of an ambiguous name.
        damaged_id: Of the row that could not be read, if that is what failed; it can be deleted by it.
        is_busy: The daemon has no room for this call now.
    """

    def __init__(
        self,
        message: str,
        exit_code: ExitCode = ExitCode.ERROR,
        *,
        hint: str = "",
        details: tuple[str, ...] = (),
        damaged_id: str | None = None,
        is_busy: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.hint = hint
        self.details = details
        self.damaged_id = damaged_id
        self.is_busy = is_busy


EXIT_BY_KIND: dict[str, ExitCode] = {
    "session_not_found": ExitCode.NOT_FOUND,
    "snapshot_not_found": ExitCode.NOT_FOUND,
    "workspace_not_found": ExitCode.NOT_FOUND,
    "name_taken": ExitCode.CONFLICT,
    "ambiguous_reference": ExitCode.CONFLICT,
    "invalid_transition": ExitCode.CONFLICT,
    "already_running": ExitCode.CONFLICT,
    "not_running": ExitCode.CONFLICT,
    "would_loop": ExitCode.CONFLICT,
    "timeout": ExitCode.TIMEOUT,
    "cursor_expired": ExitCode.NOT_FOUND,
}
"""The exit code of a kind of error; any other is `ExitCode.ERROR`."""

HINT_BY_KIND: dict[str, str] = {
    "invalid_params": "-h describes what a command takes; `orbitctl rpc discover`, every method.",
    "internal_error": "`orbitctl daemon logs` has the details under this reference.",
    "shutting_down": "Run the command again when the daemon is back.",
    "cursor_expired": "`orbitctl events` prints all that are kept; what there is now, `orbitctl ls -a` and "
    "`orbitctl workspace list` print.",
    "snapshot_corrupt": "Show the older good snapshot, and run `orbitctl maintenance check`.",
}
"""Hints in place of the daemon's usual one, where that is for programs."""

_COMMANDS: dict[str, str] = {
    "daemon.info": "status",
    "daemon.shutdown": "daemon stop",
    "session.get": "session show",
    "session.find": "session show",
    "session.update_status": "session set-status",
    "session.restore_archived": "session restore",
    "session.list": "ls -a",
    "session.list_deleted": "ls --deleted",
    "session.set_labels": "session label",
    "session.set_resume": "session resume",
    "events.list": "events",
    "events.subscribe": "events --follow",
    "events.wait": "events --follow",
    "snapshot.get": "snapshot show",
    "snapshot.latest": "snapshot show --latest",
    "workspace.get": "workspace show",
    "workspace.find": "workspace show",
    "workspace.update_layout": "workspace set-layout",
    "workspace.set_active_session": "workspace set-active",
    "maintenance.auto_save": "maintenance auto-save",
    "maintenance.cleanup_snapshots": "maintenance cleanup",
    "stats.get": "stats",
}
"""The command that does what a method does, where their names differ."""

_METHOD_NAME = re.compile(r"`?\b((?:daemon|rpc|session|snapshot|workspace|events|maintenance|stats)\.[a-z_]+)\b`?")


def in_commands(hint: str) -> str:
    """Return a hint with methods replaced by commands: "session.list shows" by "`orbitctl ls -a` shows"."""
    return _METHOD_NAME.sub(lambda found: f"`orbitctl {command_of(found[1])}`", hint)


def command_of(method: str) -> str:
    """Return the command that does what a method does, without `orbitctl`."""
    return _COMMANDS.get(method) or method.replace(".", " ")


_OPTIONS: dict[str, str] = {
    "name": "the name",
    "ref": "a session or workspace",
    "id": "the id",
    "session_id": "the id",
    "workspace_id": "--workspace",
    "session_type": "--type",
    "host": "--host",
    "port": "--port",
    "username": "--user",
    "command": "the command",
    "cwd": "--cwd",
    "env": "--env",
    "resume": "--resume",
    "labels": "labels",
    "reconnect": "--reconnect",
    "layout_type": "--layout-type",
    "config": "--config",
    "status": "the status",
    "path": "the path",
    "data": "the text",
    "signal": "the signal",
    "terminal_buffer": "the screen",
    "scrollback": "--scrollback",
    "cols": "--cols",
    "rows": "--rows",
    "limit": "--limit",
    "keep_last_n": "--keep",
    "terminated_before": "--before",
    "since": "--since",
    "kinds": "--kind",
    "timeout_secs": "--timeout",
}
"""What commands call the fields of params; they have one name in all commands."""


def usage_message(error: Exception) -> str:
    """Return what is wrong with params that were made from a command's arguments and options, in their words."""
    from orbit_protocol.plain_words import in_plain_words  # here: most runs need no expressions compiled

    return in_plain_words(str(error), lambda path: _OPTIONS.get(path.rpartition(".")[2], f"'{path}'"))


def candidate_of(session: Session) -> dict[str, Any]:
    """Return a session as `data.sessions` of an ambiguous reference describes it."""
    return {
        "id": session.id,
        "name": session.name,
        "status": session.status,
        "since": session.last_active,
        "command": session.config.command,
    }


def candidate_lines(sessions: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return a table of what an ambiguous reference could be, line by line."""
    from orbitctl.ui.listing import Column, View, table  # here: most runs have no such error

    def column(title: str, field: str) -> Column:
        return Column(title, lambda one, _: str(one.get(field) or ""))

    columns = [column("ID", "id"), column("NAME", "name"), column("STATUS", "status")]
    columns += [Column("SINCE", lambda one, _: _since(one.get("since"))), column("COMMAND", "command")]
    return tuple(table(columns, sessions, View(terminal=False)).splitlines())


def _since(value: Any) -> str:
    """Return how long ago a time of an error's data was."""
    from datetime import datetime  # not at the top: an attached client needs no dates

    from orbitctl.ui.text import ago

    try:
        return ago(value if isinstance(value, datetime) else datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return str(value or "")


def _candidates(error: OrbitError) -> tuple[str, ...]:
    """Return the lines about what an ambiguous reference could be; older daemons send the ids alone."""
    sessions, ids = error.extra.get("sessions"), error.extra.get("candidates")
    if error.kind == "ambiguous_reference" and isinstance(sessions, list) and sessions:
        return candidate_lines([one for one in sessions if isinstance(one, dict)])
    return tuple(f"could be: {item}" for item in ids) if isinstance(ids, list) else ()


def from_daemon(error: OrbitError) -> CommandError:
    """Return the CommandError for an error of the daemon."""
    details = list(_candidates(error))
    if isinstance(good := error.extra.get("good_snapshot_id"), str):
        details.append(f"newest older good snapshot: {good}")
    # A hint that the daemon has written for this very case is better than the one of the table.
    is_usual = error.hint in ("", type(error).default_hint)
    hint = (HINT_BY_KIND.get(error.kind) if is_usual else None) or in_commands(error.hint)
    message = error.message
    if isinstance(error, InvalidParams):
        from orbit_protocol.plain_words import in_plain_words

        message = in_plain_words(message)
    is_row = error.kind == "storage_corrupt" and error.extra.get("table") in (
        "sessions",
        "archived_sessions",
        "workspaces",
    )
    return CommandError(
        message,
        EXIT_BY_KIND.get(error.kind, ExitCode.ERROR),
        hint=hint,
        details=tuple(details),
        damaged_id=str(error.extra["id"]) if is_row and "id" in error.extra else None,
        is_busy=error.kind == "busy",
    )
