"""What orbitd asks of its keeper and is told by it, as types; and how they stand in messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from orbit_protocol.errors import AlreadyRunning, Busy, InternalError, NotRunning, OrbitError, SpawnFailed
from orbitd.keeper.messages import Message, Value

SignalTarget = Literal["program", "group", "foreground"]
"""The program itself, its process group, or the group at the terminal's foreground (what Ctrl-C reaches)."""


class KeeperGone(Busy):
    """The keeper has ended, does not answer, or serves another orbitd.

    Args:
        message: What happened.
        superseded: Another orbitd has taken over; the programs go on, but are not ours any more.
    """

    default_hint = "Start the session again; if the keeper has ended, its programs have too."

    def __init__(self, message: str, *, superseded: bool = False) -> None:
        super().__init__(message)
        self.superseded = superseded


class SpawnRequest(Struct, frozen=True, kw_only=True):
    """A program to be started on a new terminal.

    Args:
        id: The session's id; one program of an id at a time.
        file: A path, or a name to be found on the PATH of `env`.
        argv: All arguments from argv[0] on; a login shell's begins with `-`.
        env: The whole environment.
        cwd: Where it starts; if that cannot be entered, in `HOME` of `env` or `/`.
        umask: The user's, not the daemon's.
    """

    id: str
    file: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    cols: int
    rows: int
    umask: int


class Spawned(Struct, frozen=True, kw_only=True):
    """A program that runs: execve has succeeded."""

    pid: int
    master_fd: int
    cwd: str


class KeptProgram(Struct, frozen=True, kw_only=True):
    """A program that the keeper has not been told to forget; it runs while `ended_at` is None."""

    id: str
    pid: int
    started_at: datetime
    ended_at: datetime | None = None
    exit_code: int | None = None
    exit_signal: int | None = None
    acknowledged: bool = False


_REASONS: dict[str, type[OrbitError]] = {
    "spawn_failed": SpawnFailed,
    "exists": AlreadyRunning,
    "running": AlreadyRunning,
    "unknown_id": NotRunning,
    "ended": NotRunning,
    "not_active": KeeperGone,
}


def spawn_fields(request: SpawnRequest) -> list[tuple[str, Value]]:
    """Return the fields of a `spawn` message."""
    # execve takes no empty name, and one such entry in an environment must not keep a session from starting
    variables = [f"{name}={value}" for name, value in request.env.items() if name and "=" not in name]
    return [
        ("id", request.id),
        ("file", request.file),
        *(("argv", argument) for argument in request.argv),
        *(("env", variable) for variable in variables),
        ("cwd", request.cwd),
        ("cols", request.cols),
        ("rows", request.rows),
        ("umask", request.umask),
    ]


def kept_program(message: Message) -> KeptProgram:
    """Read a `program` or `exited` message."""
    names = {name for name, _ in message.fields}
    return KeptProgram(
        id=message.text("id"),
        pid=message.number("pid"),
        started_at=_time(message, "started_at"),
        ended_at=_time(message, "ended_at") if "ended_at" in names else None,
        exit_code=message.number("exit_code") if "exit_code" in names else None,
        exit_signal=message.number("exit_signal") if "exit_signal" in names else None,
        acknowledged=message.number("acknowledged", 0) == 1,
    )


def _time(message: Message, name: str) -> datetime:
    return datetime.fromtimestamp(float(message.value(name)), UTC)


def error_of(message: Message) -> OrbitError:
    """Return the exception that an `error` message stands for."""
    words = message.value("words", b"").decode(errors="replace")
    return _REASONS.get(message.text("reason", ""), InternalError)(words)
