"""All that a store holds, in the words of the clients that made it (see `ledger`)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, str]
World = dict[Key, tuple[Any, ...]]
Call = Callable[..., Any]

STATUSES = ["active", "detached", "terminated"]


@dataclass
class Found:
    """What is in a store: its world, and the id and the time of birth of each thing in it."""

    world: World = field(default_factory=dict)
    facts: dict[Key, tuple[str, str]] = field(default_factory=dict)

    def of(self, owner: str) -> Found:
        """Return one client's part."""
        mine = {key for key in self.world if key[1].startswith(f"{owner}:")}
        return Found({key: self.world[key] for key in mine}, {key: self.facts[key] for key in mine})


def pages(call: Call, method: str, items: str, **params: Any) -> Iterator[Any]:
    """Go through a list, page by page."""
    cursor: dict[str, Any] = {}
    while True:
        page = call(method, **params, **cursor)
        yield from page[items]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}


def read(call: Call) -> Found:
    """Read all that a store holds; every snapshot is loaded."""
    found = Found()
    workspaces = list(pages(call, "workspace.list", "workspaces"))
    sessions = list(pages(call, "session.list", "sessions", status=STATUSES))
    places = {one["id"]: one["layout"]["config"]["token"] for one in workspaces}
    tokens = {one["id"]: one["config"]["command"] for one in sessions}
    for one in sessions:
        key = ("session", tokens[one["id"]])
        found.world[key] = (one["name"], one["status"], one["session_type"], places.get(one["workspace_id"]))
        found.facts[key] = (one["id"], one["created_at"])
        assert one["workspace_id"] == one["config"]["workspace_id"]
        for info in pages(call, "snapshot.list", "snapshots", session_id=one["id"]):
            snapshot = call("snapshot.get", id=info["id"])
            data = base64.b64decode(snapshot["terminal_buffer"]), base64.b64decode(snapshot["scrollback"] or "")
            key = ("snapshot", f"{tokens[one['id']]}/{digest(*data)}")
            assert key not in found.world, "a snapshot is there twice"
            found.world[key] = (tokens[one["id"]], info["cols"], info["rows"])
            found.facts[key] = (info["id"], info["snapshot_at"])
    for one in workspaces:
        key = ("workspace", places[one["id"]])
        front = one["active_session_id"]
        # After a power cut without syncs it can be the id of a session that is not there: another world than any
        # that a client made.
        layout = json.dumps(one["layout"], sort_keys=True)
        found.world[key] = (one["name"], layout, None if front is None else tokens.get(front, front))
        found.facts[key] = (one["id"], one["created_at"])
    return found


def digest(terminal_buffer: bytes, scrollback: bytes) -> str:
    return hashlib.sha256(len(terminal_buffer).to_bytes(8, "big") + terminal_buffer + scrollback).hexdigest()[:32]
