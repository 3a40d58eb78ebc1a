"""What the daemon sends without being asked: the Struct of each notification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from msgspec import Struct

from orbit_protocol.results import Exit

P = TypeVar("P", contravariant=True)


class OutputNotice(Struct, frozen=True, kw_only=True):
    """What the program wrote."""

    attachment_id: str
    data: bytes


class RepaintNotice(Struct, frozen=True, kw_only=True):
    """The whole screen, after output was left out or the size changed; clear the terminal first."""

    attachment_id: str
    data: bytes
    cols: int
    rows: int


class ExitedNotice(Exit, frozen=True, kw_only=True):
    """The program has ended; nothing more comes for this attachment."""

    attachment_id: str


class DetachedNotice(Struct, frozen=True, kw_only=True):
    """The attachment was ended from elsewhere, by `session.detach`."""

    attachment_id: str


@dataclass(frozen=True)
class Notification(Generic[P]):
    """What the daemon sends without being asked.

    Args:
        name: What stands in the message's `method`.
        params: The Struct of its params.
        summary: One sentence for people.
    """

    name: str
    params: type[Any]
    summary: str


OUTPUT: Notification[OutputNotice] = Notification("session.output", OutputNotice, "The program wrote something.")
REPAINT: Notification[RepaintNotice] = Notification(
    "session.repaint", RepaintNotice, "The whole screen, after output was left out or the size changed."
)
EXITED: Notification[ExitedNotice] = Notification("session.exited", ExitedNotice, "The program has ended.")
DETACHED: Notification[DetachedNotice] = Notification(
    "session.detached", DetachedNotice, "The attachment was ended by `session.detach`."
)
