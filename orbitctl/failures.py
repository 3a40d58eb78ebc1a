"""How a command fails: the exit code, one message, and the next step.

The daemon's errors become a `Failure` in one place, by the table `BY_KIND`; its hints speak
of methods, so where a command does the same, the table says the command.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from protocol.errors import OrbitError


class Exit(IntEnum):
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


class Failure(Exception):
    """A command cannot go on.

    Args:
        message: One sentence that names the thing.
        exit_code: What the process exits with.
        hint: The next step, where there is one.
        details: More lines, such as the candidates of an ambiguous name.
    """

    def __init__(
        self, message: str, exit_code: Exit = Exit.ERROR, *, hint: str = "", details: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.hint = hint
        self.details = details


class _Meaning(NamedTuple):
    """What a kind of error means here, and what to say in the place of the kind's usual hint."""

    exit_code: Exit
    hint: str = ""


BY_KIND: dict[str, _Meaning] = {
    "session_not_found": _Meaning(Exit.NOT_FOUND, "`orbitctl session list --status all` shows the sessions there are."),
    "snapshot_not_found": _Meaning(Exit.NOT_FOUND, "`orbitctl snapshot list SESSION` shows a session's snapshots."),
    "workspace_not_found": _Meaning(Exit.NOT_FOUND, "`orbitctl workspace list` shows the workspaces there are."),
    "name_taken": _Meaning(Exit.CONFLICT),
    "ambiguous_reference": _Meaning(Exit.CONFLICT),
    "invalid_transition": _Meaning(Exit.CONFLICT),
    "already_running": _Meaning(Exit.CONFLICT),
    "not_running": _Meaning(Exit.CONFLICT, "`orbitctl session start SESSION` runs it."),
    "timeout": _Meaning(Exit.TIMEOUT),
    "method_not_found": _Meaning(Exit.ERROR, "`orbitctl rpc discover` lists the methods of this daemon."),
    "invalid_params": _Meaning(Exit.ERROR, "-h describes what a command takes; `orbitctl rpc discover`, every method."),
    "internal_error": _Meaning(Exit.ERROR, "`orbitctl daemon logs` has the details under this reference."),
    "shutting_down": _Meaning(Exit.ERROR, "Run the command again when the daemon is back."),
    "snapshot_corrupt": _Meaning(Exit.ERROR),
    "storage_corrupt": _Meaning(Exit.ERROR, "`orbitctl doctor` looks closer and names the newest good backup."),
}


def from_daemon(error: OrbitError) -> Failure:
    """Return what an error of the daemon means for a command."""
    meaning = BY_KIND.get(error.kind, _Meaning(Exit.ERROR))
    candidates = error.extra.get("candidates")
    details = [f"could be: {item}" for item in candidates] if isinstance(candidates, list) else []
    if isinstance(good := error.extra.get("good_snapshot_id"), str):
        details.append(f"newest older good snapshot: {good}")
    is_usual = error.hint in ("", type(error).default_hint)
    hint = meaning.hint if meaning.hint and is_usual else error.hint
    return Failure(error.message, meaning.exit_code, hint=hint, details=tuple(details))
