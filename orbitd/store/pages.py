"""Pages of lists, and the cursors between them.

A cursor names the last item of its page by sequence number, so what is added or deleted
meanwhile neither repeats nor hides an item.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from orbit_protocol.errors import InvalidParams
from orbit_protocol.types import MAX_PAGE_SIZE, Session, Workspace
from orbitd.store.rows import Stored

T = TypeVar("T")

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""About how much JSON a page may become; one item is returned whatever its size."""

_CURSOR = re.compile(r"[0-9a-f]{1,15}")
_ITEM_BYTES = 512


def page_size(limit: int | None) -> int:
    """Return how many items a page may have. Raises: InvalidParams."""
    if limit is None:
        return MAX_PAGE_SIZE
    if not 1 <= limit <= MAX_PAGE_SIZE:
        raise InvalidParams(f"`limit` must be from 1 to {MAX_PAGE_SIZE}")
    return limit


def after(cursor: str | None, start: int = 0) -> int:
    """Return the sequence number that a page begins behind. Raises: InvalidParams."""
    if cursor is None:
        return start
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidParams("`cursor` is not one that a page gave")
    return int(cursor, 16)


def cut(items: Iterable[Stored[T]], limit: int | None, size_of: Callable[[T], int]) -> tuple[list[T], str | None]:
    """Take a page from items in order; return it with the cursor of the next, None where it is the last."""
    most, room = page_size(limit), MAX_PAGE_BYTES
    page: list[T] = []
    last = 0
    for stored in items:
        size = size_of(stored.item)
        if len(page) == most or (page and size > room):
            return page, f"{last:x}"
        page.append(stored.item)
        room -= size
        last = stored.seq
    return page, None


def session_bytes(session: Session) -> int:
    """Estimate a session's JSON, in which a character may take six bytes."""
    config = session.config
    words = len(session.name or "") + len(config.command or "") + len(config.cwd or "") + len(session.title or "")
    return _ITEM_BYTES + 6 * words + (len(msgspec.json.encode(config.env)) if config.env else 0)


def workspace_bytes(workspace: Workspace) -> int:
    """Estimate a workspace's JSON."""
    return _ITEM_BYTES + len(bytes(workspace.layout.config)) + 2 * len(workspace.name)


def fixed_bytes(_: object) -> int:
    """Estimate the JSON of what is always about the same."""
    return _ITEM_BYTES
