"""Who inside of orbitd hears of events: of private sessions nobody."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from orbit_protocol.types import Event
from orbitd.events import listener
from orbitd.events.listener import unless_private


def event(session_id: str | None, **data: Any) -> Event:
    raw = msgspec.Raw(json.dumps(data).encode())
    return Event(seq=1, at=datetime.now(UTC), kind="k", session_id=session_id, workspace_id=None, data=raw)


def test_the_last_events_of_a_private_session_are_withheld() -> None:
    """Once it has ended, an event that has not the session itself is withheld too; those of others are handed on."""
    heard: list[Event] = []
    handle = unless_private(heard.append, lambda session_id: None)
    handle(event("secret", config={"record": "none"}))
    handle(event("secret", unseen_output=True))
    others = [event("open", config={"record": "full"}), event("open", unseen_output=True), event(None)]
    for each in others:
        handle(each)
    assert heard == others


def test_only_so_many_private_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten, so that what a daemon holds has a bound."""
    monkeypatch.setattr(listener, "MAX_PRIVATE", 2)
    heard: list[Event] = []
    handle = unless_private(heard.append, lambda session_id: None)
    for name in ("one", "two", "three"):
        handle(event(name, config={"record": "none"}))
    for name in ("one", "two", "three"):
        handle(event(name, unseen_output=True))
    assert [each.session_id for each in heard] == ["one"]
