"""What the daemon sends without being asked: the Struct of each notification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Struct

from orbit_protocol.results import ErrorObject, Exit
from orbit_protocol.types import Timestamp

P = TypeVar("P", contravariant=True)


class OutputNotice(Struct, frozen=True, kw_only=True):
    """What the program wrote."""

    attachment_id: str
    data: bytes


RepaintReason = Literal["resized", "behind", "refreshed", "frame"]
"""`resized`: the session has another size; `behind`: output was left out, since the client did not read it;
`refreshed`: the picture is another one, without output that leads to it; `frame`: the part of the picture that fits."""


class RepaintNotice(Struct, frozen=True, kw_only=True):
    """The whole screen, or a part of it that fits the client's window.

    It may be written to a terminal in any state: it begins with the reset that it needs. Only a `frame` that follows a
    frame is a difference to it, for a window of the same size. `cols` and `rows` are the size that the data is drawn
    for: the window's with a frame, else the session's. `lost_lines` counts the
    lines that have left the screen since the client's output ended, and that are not in the data. `cursor_row` is the
    cursor's row, from 0, when all of it is drawn; `history_line` is as in the answer to an attach.
    """

    attachment_id: str
    data: bytes
    cols: int
    rows: int
    reason: RepaintReason
    lost_lines: int = 0
    cursor_row: int = 0
    history_line: int = 0


class ExitedNotice(Exit, frozen=True, kw_only=True, omit_defaults=True):
    """The program has ended; nothing more comes for this attachment.

    A client that has attached with an `after_line` gets the `history_line` here, as in the answer to an attach.
    """

    attachment_id: str
    history_line: int | None = None


DetachReason = Literal["detached", "switched"]
"""`detached`: by `session.detach`; `switched`: by `session.switch`, and the client attaches to `session_id` now."""


class DetachedNotice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The attachment was ended from elsewhere; `history_line` as in `session.exited`."""

    attachment_id: str
    reason: DetachReason
    history_line: int | None = None
    session_id: str | None = None


class ProgressNotice(Struct, frozen=True, kw_only=True):
    """How far the call with this id is: `done` of `total`, which is 0 where that is not known, and of what."""

    id: int | float | str
    what: str
    done: int
    total: int


class EventNotice(Struct, frozen=True, kw_only=True):
    """Something has happened; of what is live only and never stored, `seq` and `cursor` are null.

    The fields are those of an event of `events.list`.
    """

    subscription_id: str
    seq: int | None
    at: Timestamp
    kind: str
    session_id: str | None
    workspace_id: str | None
    data: msgspec.Raw
    cursor: str | None = None


class CursorNotice(Struct, frozen=True, kw_only=True):
    """A subscription has heard all that it wants up to this cursor: what came since its last event was of no use to it.

    A client that hears little, by its filters, keeps this one: an old cursor may expire.
    """

    subscription_id: str
    cursor: str


class SubscriptionEndedNotice(Struct, frozen=True, kw_only=True):
    """A subscription was ended by the daemon, since it cannot be sent every event any more; `error` says why.

    After `cursor_expired` read everything anew. Otherwise subscribe again, from the cursor of the last event.
    """

    subscription_id: str
    error: ErrorObject


@dataclass(frozen=True)
class Notification(Generic[P]):
    """What the daemon sends without being asked.

    Args:
        name: What stands in the message's `method`.
        params: The Struct of its params.
        summary: One sentence for people.
        example: Params as they may come, as JSON has them.
    """

    name: str
    params: type[Any]
    summary: str
    example: dict[str, Any]


_ID = "5e0c6f4e-58d5-4d3a-9f6e-3c3f0f1f7c11/1"

OUTPUT: Notification[OutputNotice] = Notification(
    "session.output", OutputNotice, "The program wrote something.", {"attachment_id": _ID, "data": "aGVsbG8NCg=="}
)
REPAINT: Notification[RepaintNotice] = Notification(
    "session.repaint",
    RepaintNotice,
    "The screen: output was left out, the size has changed, or it does not fit.",
    {
        "attachment_id": _ID,
        "data": "GBtcG1ttaGVsbG8=",
        "cols": 80,
        "rows": 24,
        "reason": "behind",
        "lost_lines": 1200,
        "cursor_row": 23,
        "history_line": 4711,
    },
)
EXITED: Notification[ExitedNotice] = Notification(
    "session.exited",
    ExitedNotice,
    "The program has ended.",
    {"attachment_id": _ID, "exit_code": 0, "exit_signal": None},
)
DETACHED: Notification[DetachedNotice] = Notification(
    "session.detached",
    DetachedNotice,
    "The attachment was ended from elsewhere.",
    {"attachment_id": _ID, "reason": "detached"},
)

PROGRESS: Notification[ProgressNotice] = Notification(
    "$/progress",
    ProgressNotice,
    "A call that works for long has come further; sent where `$/watchProgress` asks for it.",
    {"id": 7, "what": "snapshots", "done": 12000, "total": 320000},
)

EVENT: Notification[EventNotice] = Notification(
    "event",
    EventNotice,
    "Something has happened that the client has subscribed to (`events.subscribe`).",
    {
        "subscription_id": "1",
        "seq": 4711,
        "at": "2026-01-01T12:00:00Z",
        "kind": "command.finished",
        "session_id": "5e0c6f4e-58d5-4d3a-9f6e-3c3f0f1f7c11",
        "workspace_id": None,
        "data": {"command": "make", "exit_code": 2, "duration_secs": 81.5, "cwd": "/home/ada/shop"},
        "cursor": "9f86d081-4711",
    },
)

EVENTS_CURSOR: Notification[CursorNotice] = Notification(
    "events.cursor",
    CursorNotice,
    "A subscription has gone on without an event for its client, which keeps this cursor in the place of its last one.",
    {"subscription_id": "1", "cursor": "9f86d081-5711"},
)

EVENTS_ENDED: Notification[SubscriptionEndedNotice] = Notification(
    "events.ended",
    SubscriptionEndedNotice,
    "The daemon has ended a subscription of this client.",
    {
        "subscription_id": "1",
        "error": {
            "code": 1300,
            "message": "The events after 9f86d081-4711 are not kept any more",
            "data": {"kind": "cursor_expired", "oldest": "9f86d081-104712"},
        },
    },
)

NOTIFICATIONS: tuple[Notification[Any], ...] = (
    OUTPUT,
    REPAINT,
    EXITED,
    DETACHED,
    EVENT,
    EVENTS_CURSOR,
    EVENTS_ENDED,
    PROGRESS,
)
"""All of them."""
