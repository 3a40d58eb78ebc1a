"""The broker beside its subscriptions: what is live only, and who shows what by itself."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from event_support import Client, Table, settle, subscribed
from orbit_protocol.errors import CursorExpired, ShuttingDown
from orbit_protocol.types import Progress
from orbitd.events import broker as broker_module
from orbitd.events.subscriptions import ClientSubscription, State, Waiter, Wanted

SEEN = "session.output_seen"


async def test_live_events_have_the_session_and_its_workspace() -> None:
    """They are events like the others, without a seq and a cursor; data may be a Struct or JSON."""
    table, client = Table(), Client()
    subscribed(table, client, kinds=frozenset({"session.progress", "session.cwd"}))
    await settle()
    table.broker.publish_live("session.progress", "s1", Progress(state="normal", percent=7))
    table.broker.publish_live("session.cwd", "s2", b'{"cwd":"/tmp"}')
    first, second = (each["params"] for each in client.messages)
    assert (first["seq"], first["cursor"], first["session_id"], first["workspace_id"]) == (None, None, "s1", "w1")
    assert (first["data"], second["data"]) == ({"state": "normal", "percent": 7}, {"cwd": "/tmp"})
    assert (second["session_id"], second["workspace_id"]) == ("s2", None)


async def test_nobody_listens_where_nobody_wants_live_events() -> None:
    """So that what is only for them need not be noticed at all."""
    table = Table()
    stored = subscribed(table, Client(), live=False)
    assert not table.broker.has_live_listeners
    live = subscribed(table, Client())
    assert table.broker.has_live_listeners
    for each in (live, live, stored):
        table.broker.remove(each)
    assert not table.broker.has_live_listeners


async def test_output_is_told_of_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a session comes at once, the last of those within a second at its end; each session for itself."""
    monkeypatch.setattr(broker_module, "OUTPUT_SEEN_SECS", 0.05)
    table, client = Table(), Client()
    later = asyncio.Event()
    subscribed(table, client)
    await settle()
    for number in range(100):
        table.broker.publish_live(SEEN, "s1", msgspec.json.encode({"n": number}))
    table.broker.publish_live(SEEN, "s2", b'{"n":0}')
    shown = [(each["params"]["session_id"], each["params"]["data"]["n"]) for each in client.messages]
    assert shown == [("s1", 0), ("s2", 0)]
    client.on_message = later.set
    await later.wait()
    assert client.messages[2]["params"]["data"] == {"n": 99}
    table.broker.close()


async def test_a_kind_is_handled_while_a_client_that_reads_says_so() -> None:
    """One that hangs shows nothing to anybody, and one that has gone does not either."""
    table, client = Table(), Client(room=1)
    subscription = subscribed(table, client, handles=frozenset({"terminal.notification"}))
    await settle()
    assert table.broker.is_handled("terminal.notification")
    assert not table.broker.is_handled("terminal.bell")
    table.commit("session.created")
    assert not table.broker.is_handled("terminal.notification")
    client.room = None
    assert table.broker.is_handled("terminal.notification")
    table.broker.remove(subscription)
    assert not table.broker.is_handled("terminal.notification")


@pytest.mark.parametrize("is_read", [True, False], ids=["reading", "sending"])
async def test_a_subscription_that_fails_is_forgotten(is_read: bool) -> None:
    """One that has ended by itself shows nothing, listens to nothing, and takes no place of its connection."""
    table, client, ended = Table(), Client(), list[str]()
    table.commit("session.created")
    if is_read:
        table.error = CursorExpired("too old")
    wanted = Wanted(kinds=frozenset({"session.created"}))
    handles = frozenset({"terminal.bell"})
    subscription = ClientSubscription(
        "7", client, table, wanted, 0, live=True, handles=handles, on_end=lambda: ended.append("7")
    )
    table.broker.add(subscription)
    table.broker.start(subscription)
    await settle()
    if not is_read:
        client.send_all = lambda _: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        table.commit("session.created")
    assert (subscription.state, ended) == (State.ENDED, ["7"])
    assert not table.broker.is_handled("terminal.bell")
    assert not table.broker.has_live_listeners


async def test_a_call_that_comes_while_the_daemon_stops() -> None:
    """It is answered so at once, although nothing is published any more."""
    table = Table()
    table.broker.close()
    waiter = Waiter(table, Wanted(kinds=frozenset({"session.created"})), 0, live=False)
    table.broker.add(waiter)
    await waiter.read()
    with pytest.raises(ShuttingDown):
        await waiter.found
    subscription = subscribed(table, Client())
    assert subscription.state is State.ENDED
