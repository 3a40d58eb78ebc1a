"""Lists that come in pages, followed to their end."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from orbit_protocol.methods import Method
from orbitctl.client.client import Answer, Client

R = TypeVar("R")

PAGE_SIZE = 1_000
"""Entries asked for at once: a page of them stays small."""


class _Cursor(Struct, frozen=True):
    next_cursor: str | None = None


def ask_all(client: Client, method: Method[Any, R], params: Struct, field: str, limit: int | None = None) -> Answer[R]:
    """Ask for every page of a list.

    Args:
        client: A connected client.
        method: A method that takes limit and cursor and answers with `field` and next_cursor.
        params: Its params, without limit and cursor.
        field: The member that holds the entries.
        limit: The most entries wanted.

    Returns:
        The answer as it came where one page holds all, else one like it with the entries of all.
    """
    entries: list[Raw] = []
    cursor: str | None = None
    while True:
        wanted = PAGE_SIZE if limit is None else min(PAGE_SIZE, limit - len(entries))
        answer = client.ask(method, msgspec.structs.replace(params, limit=wanted, cursor=cursor))
        cursor = answer.read(_Cursor).next_cursor
        if not entries and (cursor is None or limit == wanted):
            return answer
        assert answer.value is not None  # what is no page ends here
        page = msgspec.json.decode(answer.raw, type=dict[str, Raw])
        entries += msgspec.json.decode(page[field], type=list[Raw])
        if cursor is None or len(entries) == limit:
            raw = msgspec.json.encode({field: entries, "next_cursor": cursor})
            return Answer(client, method, raw)
