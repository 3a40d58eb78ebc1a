"""Pages of lists, and the cursors between them.

A cursor is the sequence number of the last item of its page, in hexadecimal: an item that
is added or deleted between two calls neither repeats another one nor hides it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from orbit_protocol.errors import InvalidParams
from orbit_protocol.types import MAX_PAGE_SIZE, Session, Workspace
from orbitd.store.rows import Stored

T = TypeVar("T")

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""Limit of a page's JSON, by estimate; a page has at least one item whatever its size."""

_CURSOR = re.compile(r"[0-9a-f]{1,15}")
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


def cut(items: Iterable[Stored[T]], limit: int | None, size_of: Callable[[T], int]) -> tuple[list[T], str | None]:
    """Take one page of items.

    Args:
        items: In order, from the first of the page on; only as many are consumed as are looked at.
        limit: The most items of the page; None for the most that is allowed.
        size_of: Estimates the bytes of an item's JSON.

    Returns:
        The page, and the cursor of the next one or None if this is the last.
    """
    most, bytes_left = page_size(limit), MAX_PAGE_BYTES
    page: list[T] = []
    last_seq = 0
    for stored in items:
        size = size_of(stored.item)
        if len(page) == most or (page and size > bytes_left):
            return page, f"{last_seq:x}"
        page.append(stored.item)
        bytes_left -= size
        last_seq = stored.seq
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
