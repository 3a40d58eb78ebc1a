"""Every error that a peer can be answered with, as one tree.

    OrbitError
    ├── ParseError -32700
    ├── InvalidRequest -32600
    │   └── MessageTooLarge
    ├── MethodNotFound -32601
    ├── InvalidParams -32602
    ├── InternalError -32603
    ├── Busy -32000        ShuttingDown -32001        RequestTimeout -32002
    ├── Cancelled -32800
    ├── SessionError
    │   ├── SessionNotFound 1000      NameTaken 1001       InvalidTransition 1002
    │   ├── AmbiguousReference 1003   AlreadyRunning 1004  SpawnFailed 1005
    │   ├── NotRunning 1006          LiveUnavailable 1007
    │   └── WouldLoop 1008            TooManySessions 1009
    ├── SnapshotError
    │   └── SnapshotNotFound 1100     SnapshotCorrupt 1101
    ├── WorkspaceNotFound 1200
    └── StorageError
        └── StorageFull 1900          StorageCorrupt 1901  StorageReadOnly 1902

Each class carries its code (JSON-RPC 2.0, 5.1), its kind (what programs compare), a hint
(what a person can do next) and whether the same call may succeed later. Details of the
daemon's inside never travel: an unexpected exception becomes `InternalError` with a
reference that is in the log.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it: an attached client, which lives for weeks, loads neither that nor msgspec
    from typing import Any, Protocol

    class ErrorMember(Protocol):
        """The `error` member of a response, however it was decoded."""

        @property
        def code(self) -> int:
            """The number that programs compare."""

        @property
        def message(self) -> str:
            """One sentence."""

        @property
        def data(self) -> dict[str, Any] | None:
            """Kind, hint, and what else belongs to it."""


class OrbitError(Exception):
    """The base of the tree.

    Args:
        message: One sentence that names the thing.
        hint: What to do next, where the class's own hint does not fit.
        data: More members for `error.data`, JSON-encodable.
    """

    code: int = -32603
    kind: str = "internal_error"
    default_hint: str = ""
    retryable: bool = False

    def __init__(self, message: str, *, hint: str | None = None, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.extra = data or {}

    def data(self) -> dict[str, Any]:
        """Return the members of `error.data`."""
        return {"kind": self.kind, "hint": self.hint, "retryable": self.retryable, **self.extra}


class ParseError(OrbitError):
    """The line is not JSON."""

    code = -32700
    kind = "parse_error"
    default_hint = "Send one JSON-RPC 2.0 message a line, in UTF-8."


class InvalidRequest(OrbitError):
    """The JSON is not a JSON-RPC 2.0 request (section 4)."""

    code = -32600
    kind = "invalid_request"
    default_hint = 'Send {"jsonrpc": "2.0", "method": ..., "params": {...}, "id": ...}.'


class MessageTooLarge(InvalidRequest):
    """The line is longer than the daemon takes; the connection is closed after this answer."""

    kind = "message_too_large"
    default_hint = "Send less, or raise max_message_bytes in the daemon's configuration."


class MethodNotFound(OrbitError):
    """No such method."""

    code = -32601
    kind = "method_not_found"
    default_hint = "rpc.discover lists the methods of this daemon."


class InvalidParams(OrbitError):
    """The params do not fit the method; the message names the field."""

    code = -32602
    kind = "invalid_params"
    default_hint = "rpc.discover describes the params of every method."


class InternalError(OrbitError):
    """The daemon failed in a way that it did not expect."""

    code = -32603
    kind = "internal_error"
    default_hint = "The daemon's log has the details under this reference."


class Busy(OrbitError):
    """The daemon has no room for this now."""

    code = -32000
    kind = "busy"
    default_hint = "Try again in a moment."
    retryable = True


class ShuttingDown(OrbitError):
    """The daemon is about to end and takes no new work."""

    code = -32001
    kind = "shutting_down"
    default_hint = "Connect again when the daemon is back."
    retryable = True


class RequestTimeout(OrbitError):
    """What was waited for did not happen in time."""

    code = -32002
    kind = "timeout"
    default_hint = "Try again, or allow more time."
    retryable = True


class Cancelled(OrbitError):
    """`$/cancelRequest` has ended the call."""

    code = -32800
    kind = "cancelled"
    default_hint = "Call again to go on waiting."


class SessionError(OrbitError):
    """What can be wrong with a session."""


class SessionNotFound(SessionError):
    """No session has this id or answers to this reference."""

    code = 1000
    kind = "session_not_found"
    default_hint = "session.list shows the sessions there are."


class NameTaken(SessionError):
    """The name belongs to another one."""

    code = 1001
    kind = "name_taken"
    default_hint = "Choose another name, or rename the one that has it."


class InvalidTransition(SessionError):
    """The session's status does not allow this."""

    code = 1002
    kind = "invalid_transition"
    default_hint = "active and detached change into each other or end; terminated becomes active by starting again."


class AmbiguousReference(SessionError):
    """The reference fits more than one; `data.candidates` lists their ids."""

    code = 1003
    kind = "ambiguous_reference"
    default_hint = "Give more characters of the id."


class AlreadyRunning(SessionError):
    """The session's program runs already."""

    code = 1004
    kind = "already_running"
    default_hint = "Attach to it instead."


class SpawnFailed(SessionError):
    """The program could not be executed; the message has errno's words and the path."""

    code = 1005
    kind = "spawn_failed"
    default_hint = "Check the command and that it can be executed."


class NotRunning(SessionError):
    """The session has no running program."""

    code = 1006
    kind = "not_running"
    default_hint = "session.start runs it."


class LiveUnavailable(SessionError):
    """Live sessions cannot be had here, or not now; `data.reason` says why."""

    code = 1007
    kind = "live_unavailable"
    default_hint = "Stored screens and external sessions are served; `orbitctl doctor` says what is wrong."
    retryable = True


class WouldLoop(SessionError):
    """The session would show itself; `data.sessions` is the circle, from it to one that the client sits in."""

    code = 1008
    kind = "would_loop"
    default_hint = "Attach from another terminal."


class TooManySessions(SessionError):
    """There is no room for another program; `data.resource` says of what, `data.limit` how much there is."""

    code = 1009
    kind = "too_many_sessions"
    default_hint = "End a session, then try again."
    retryable = True


class SnapshotError(OrbitError):
    """What can be wrong with a snapshot."""


class SnapshotNotFound(SnapshotError):
    """No snapshot has this id."""

    code = 1100
    kind = "snapshot_not_found"
    default_hint = "snapshot.list shows a session's snapshots."


class SnapshotCorrupt(SnapshotError):
    """The stored bytes do not match their checksum; `data.good_snapshot_id` is the newest older good one."""

    code = 1101
    kind = "snapshot_corrupt"
    default_hint = "Load the snapshot named in good_snapshot_id, and run maintenance.check."


class WorkspaceNotFound(OrbitError):
    """No workspace has this id or answers to this reference."""

    code = 1200
    kind = "workspace_not_found"
    default_hint = "workspace.list shows the workspaces there are."


class CursorExpired(OrbitError):
    """The cursor is of another store, or older than what is kept; `data.oldest` is the oldest that can be used."""

    code = 1300
    kind = "cursor_expired"
    default_hint = "Read everything anew, then subscribe from the cursor of `events.list` with limit 0."


class StorageError(OrbitError):
    """What can be wrong with the database."""


class StorageFull(StorageError):
    """There is no room on the disk; nothing was changed."""

    code = 1900
    kind = "storage_full"
    default_hint = "Free room on the database's disk, then try again."
    retryable = True


class StorageCorrupt(StorageError):
    """The database cannot be read as it should."""

    code = 1901
    kind = "storage_corrupt"
    default_hint = "Run `orbitctl doctor`; it names the newest good backup."


class StorageReadOnly(StorageError):
    """The database cannot be written."""

    code = 1902
    kind = "storage_read_only"
    default_hint = "Give the daemon's user write access to the database and its folder."


def _walk(root: type[OrbitError]) -> list[type[OrbitError]]:
    """Return the classes below `root` that are answered with, not the branches."""
    below = [leaf for child in root.__subclasses__() for leaf in _walk(child)]
    return [root, *below] if "kind" in vars(root) and root is not OrbitError else below


ALL_ERRORS: tuple[type[OrbitError], ...] = tuple(_walk(OrbitError))
BY_KIND: dict[str, type[OrbitError]] = {error.kind: error for error in ALL_ERRORS}
BY_CODE: dict[int, type[OrbitError]] = {error.code: error for error in reversed(ALL_ERRORS)}


def from_object(error: ErrorMember) -> OrbitError:
    """Return the exception that an error object stands for, as its most specific class.

    An error that this version does not know keeps its code and kind, as an `OrbitError`.
    """
    data = dict(error.data or {})
    kind, hint, retryable = str(data.pop("kind", "")), str(data.pop("hint", "")), bool(data.pop("retryable", False))
    found = (BY_KIND.get(kind) or BY_CODE.get(error.code) or OrbitError)(error.message, hint=hint, data=data)
    found.code, found.kind, found.retryable = error.code, kind or found.kind, retryable
    return found
