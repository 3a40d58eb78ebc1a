"""Pages of lists, and the cursors between them.

A cursor is the sequence number of the last item of its page, in hexadecimal: an item that
is added or deleted between two calls neither repeats another one nor hides it. In the trash,
which is in the order of deletion, the time stands before it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from orbit_protocol.errors import InvalidParams
from orbit_protocol.types import MAX_PAGE_SIZE, Session, Workspace
from orbitd.store.rows import Stored, time_to_text

T = TypeVar("T")

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""Limit of a page's JSON, by estimate; a page has at least one item whatever its size."""

_CURSOR = re.compile(r"[0-9a-f]{1,15}")
_DELETED_CURSOR = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)-([0-9a-f]{1,15})", re.ASCII)
_ITEM_BYTES = 512


def page_size(limit: int | None) -> int:
    """Return how many items a page may have. Raises: InvalidParams."""
    if limit is None:
        return MAX_PAGE_SIZE
    if not 1 <= limit <= MAX_PAGE_SIZE:
        raise InvalidParams(f"`limit` must be from 1 to {MAX_PAGE_SIZE}")
    return limit


def start_of(cursor: str | None, default: int = 0) -> int:
    """Return the sequence number that a page starts after. Raises: InvalidParams."""
    if cursor is None:
        return default
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidParams("`cursor` is not one that a page gave")
    return int(cursor, 16)


def start_of_deleted(cursor: str | None) -> tuple[str, int]:
    """Return the time and sequence number that a page of the trash starts before. Raises: InvalidParams."""
    if cursor is None:
        return "~", 0  # after every time
    found = _DELETED_CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidParams("`cursor` is not one that a page gave")
    return found[1], int(found[2], 16)


def cursor_of_deleted(stored: Stored[Session]) -> str:
    """Return the cursor of a page of the trash that ends with this session."""
    assert stored.item.deleted_at is not None
    return f"{time_to_text(stored.item.deleted_at)}-{stored.seq:x}"


def cut(
    items: Iterable[Stored[T]],
    limit: int | None,
    size_of: Callable[[T], int],
    cursor_of: Callable[[Stored[T]], str] = lambda stored: f"{stored.seq:x}",
) -> tuple[list[T], str | None]:
    """Take one page of items.

    Args:
        items: In order, from the first of the page on; only as many are consumed as are looked at.
        limit: The most items of the page; None for the most that is allowed.
        size_of: Estimates the bytes of an item's JSON.
        cursor_of: Returns the cursor of a page that ends with an item.

    Returns:
        The page, and the cursor of the next one or None if this is the last.
    """
    most, bytes_left = page_size(limit), MAX_PAGE_BYTES
    page: list[T] = []
    last: Stored[T] | None = None
    for stored in items:
        size = size_of(stored.item)
        if last is not None and (len(page) == most or size > bytes_left):
            return page, cursor_of(last)
        page.append(stored.item)
        bytes_left -= size
        last = stored
    return page, None


def session_bytes(session: Session) -> int:
    """Estimate the bytes of a session's JSON, in which a character may take six, as a control character does."""
    config = session.config
    texts = [session.name, session.title, session.cwd, config.command, config.resume, config.cwd]
    texts += itertools.chain.from_iterable(session.labels.items())
    # A byte that is not UTF-8 is counted as 24 bytes, and takes 7: `\xNN` in the text, and a third more in base64.
    characters = sum(len(text) for text in texts if text)
    variables = [each for each in (config.env, config.env_bytes) if each]
    return _ITEM_BYTES + 6 * characters + (len(msgspec.json.encode(variables)) if variables else 0)


def workspace_bytes(workspace: Workspace) -> int:
    """Estimate the bytes of a workspace's JSON."""
    return _ITEM_BYTES + len(bytes(workspace.layout.config)) + 2 * len(workspace.name)


def fixed_bytes(_: object) -> int:
    """Estimate the bytes of an item's JSON that is always about the same."""
    return _ITEM_BYTES
