"""Subscriptions with a scripted table and client: what each is sent, when, and what happens when it does not read."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from event_support import Client, Table, drain, settle, subscribed
from orbit_protocol.errors import ShuttingDown, StorageCorrupt
from orbit_protocol.params import EventsWait
from orbitd.events.methods import EventMethods
from orbitd.events.subscriptions import CURSOR_EVERY, State, Waiter, Wanted

CREATED, UPDATED = "session.created", "session.updated"


async def test_a_follower_is_sent_each_commit_in_one_write() -> None:
    """What was there before is not sent; what is committed is, as the notification that the protocol describes."""
    table, client = Table(), Client()
    table.commit(CREATED)
    subscribed(table, client)
    await settle()
    table.commit(CREATED, UPDATED, data=b'{"b":1,"a":{"c":2.0}}')
    assert client.writes == [2]
    assert client.messages[0] == {
        "jsonrpc": "2.0",
        "method": "event",
        "params": {
            "subscription_id": "7",
            "seq": 2,
            "at": "2026-01-01T12:00:00Z",
            "kind": CREATED,
            "session_id": "s1",
            "workspace_id": "w1",
            "data": {"b": 1, "a": {"c": 2.0}},
            "cursor": "e-2",
        },
    }
    assert client.seqs == [2, 3]


async def test_data_goes_out_as_it_was_stored() -> None:
    """Not one byte of the stored JSON changes, but that it cannot break the line that it stands on."""
    table = Table()
    sent: list[bytes] = []
    client = Client()
    client.send_all = sent.extend  # type: ignore[method-assign]
    subscribed(table, client)
    await settle()
    table.commit(CREATED, data=b'{"b" : 1.0,"a":1e3}')
    table.commit(CREATED, data=b'{"b":\n1}')
    assert b'"data":{"b" : 1.0,"a":1e3},' in sent[0]
    assert b"\n" not in sent[1]
    assert json.loads(sent[1])["params"]["data"] == {"b": 1}


async def test_what_is_stored_comes_before_what_is_new() -> None:
    """Events that are committed while the table is read come behind those in it, each once."""
    table, client = Table(), Client()
    table.commit(*[CREATED] * 3)
    table.gate.clear()
    subscription = subscribed(table, client, since=1)
    await settle()
    table.commit(UPDATED)
    assert (client.seqs, subscription.state) == ([], State.READING)
    table.gate.set()
    await settle()
    table.commit(UPDATED)
    assert client.seqs == [2, 3, 4, 5]
    assert subscription.state is State.FOLLOWING


async def test_a_client_that_does_not_read_is_sent_the_rest_from_the_table() -> None:
    """Beyond the limit nothing is sent, live events are dropped; what is stored comes when the client has read."""
    table, slow, quick = Table(), Client(room=2), Client()
    subscription = subscribed(table, slow)
    subscribed(table, quick)
    await settle()
    for _ in range(5):
        table.commit(CREATED)
    table.broker.publish_live("session.title", "s1", b"{}")
    assert (slow.seqs, quick.seqs) == ([1, 2], [1, 2, 3, 4, 5, None])
    assert table.pages == 0
    drain(table, slow, subscription, room=1)  # and full again in the middle of the page
    await settle()
    assert slow.seqs == [1, 2, 3, 4, 5]  # a group of one write is not divided
    table.commit(CREATED)
    assert (slow.seqs[-1], subscription.state) == (5, State.READING)
    drain(table, slow, subscription)
    await settle()
    table.broker.publish_live("session.title", "s1", b"{}")
    assert slow.seqs == [1, 2, 3, 4, 5, 6, None]


async def test_a_large_commit_is_cut_where_the_client_does_not_read() -> None:
    """Of thousands of events in one commit, as of an archive, no more than the limit waits for a slow client."""
    table, client = Table(), Client(room=3)
    subscription = subscribed(table, client)
    await settle()
    table.commit(*[UPDATED] * 20, data=json.dumps("x" * 100_000).encode())
    assert client.seqs == [1, 2, 3]
    while subscription.state is State.READING:
        drain(table, client, subscription, room=4)
        await settle()
        assert max(client.writes) <= 3
        drain(table, client, subscription, room=9)
        await settle()
    assert client.seqs == list(range(1, 21))


async def test_only_what_was_asked_for_is_sent() -> None:
    """By kind, session and workspace, for stored and live events alike."""
    table = Table()
    by_kind, by_session, by_workspace, stored = Client(), Client(), Client(), Client()
    subscribed(table, by_kind, kinds=frozenset({UPDATED}))
    subscribed(table, by_session, session_id="s2")
    subscribed(table, by_workspace, since=0, workspace_id="w1")
    subscribed(table, stored, live=False)
    await settle()
    table.commit(CREATED, UPDATED)
    table.commit(CREATED, session_id="s2")
    for session in ("s1", "s2"):
        table.broker.publish_live("session.title", session, b"{}")
    assert by_kind.seqs == [2]
    assert by_session.seqs == [3, None]
    assert by_workspace.seqs == [1, 2, None]
    assert stored.seqs == [1, 2, 3]


async def test_who_wants_live_events_alone_follows_at_once() -> None:
    """Without a stored kind there is nothing to read, whatever the cursor is."""
    table, client = Table(), Client()
    table.commit(*[CREATED] * 3)
    subscribed(table, client, since=0, kinds=frozenset({"session.title"}))
    await settle()
    table.broker.publish_live("session.title", "s1", b'{"title":"vim"}')
    assert (client.seqs, table.pages) == ([None], 0)
    assert client.messages[0]["params"]["cursor"] is None


async def test_a_client_that_wants_little_is_sent_newer_cursors() -> None:
    """Its last event may be long ago, and the cursor of that would expire; the newer one misses nothing."""
    table, client = Table(), Client()
    subscribed(table, client, kinds=frozenset({UPDATED}))
    await settle()
    for _ in range(2 * CURSOR_EVERY - 1):
        table.commit(CREATED)
    table.commit(UPDATED)
    notices = [each for each in client.messages if each["method"] == "events.cursor"]
    assert [each["params"] for each in notices] == [{"subscription_id": "7", "cursor": f"e-{CURSOR_EVERY}"}]
    assert client.seqs == [2 * CURSOR_EVERY]


async def test_a_cursor_says_that_the_table_was_read_in_vain() -> None:
    """A replay that finds nothing of use gives the client the cursor behind it, too."""
    table, client = Table(), Client()
    table.commit(*[CREATED] * CURSOR_EVERY)
    subscribed(table, client, since=0, kinds=frozenset({UPDATED}))
    await settle()
    assert [each["params"]["cursor"] for each in client.messages] == [f"e-{CURSOR_EVERY}"]


async def test_what_is_gone_from_the_table_ends_a_slow_subscription() -> None:
    """A client so slow that events were removed before it had them is told so, rather than missing them."""
    table, client = Table(), Client(room=1)
    subscription = subscribed(table, client)
    await settle()
    table.commit(CREATED)
    table.commit(*[CREATED] * 5)
    table.oldest = 4
    drain(table, client, subscription)
    await settle()
    (notice,) = (each for each in client.messages if each["method"] == "events.ended")
    assert notice["params"]["subscription_id"] == "7"
    assert (notice["params"]["error"]["code"], notice["params"]["error"]["data"]["oldest"]) == (1300, "e-4")
    table.commit(CREATED)
    assert (client.seqs, subscription.state) == ([1], State.ENDED)


@pytest.mark.parametrize(("error", "code"), [(StorageCorrupt("a bad page"), 1901), (ValueError("a defect"), -32603)])
async def test_a_table_that_cannot_be_read_ends_its_subscription_alone(error: Exception, code: int) -> None:
    """The client is told why, and others go on."""
    table, client, other = Table(), Client(), Client()
    table.commit(CREATED)
    subscribed(table, other)
    table.error = error
    subscription = subscribed(table, client, since=0)
    await settle()
    table.commit(CREATED)
    assert client.messages[-1]["params"]["error"]["code"] == code
    assert (subscription.state, other.seqs) == (State.ENDED, [2])


async def test_a_subscriber_that_fails_stops_no_other() -> None:
    """A defect in sending to one client is logged; the next one is sent the event."""
    table, broken, client = Table(), Client(), Client()
    broken.send_all = lambda _: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    subscribed(table, broken)
    subscribed(table, client)
    await settle()
    table.commit(CREATED)
    table.broker.publish_live("session.title", "s1", b"{}")
    assert client.seqs == [1, None]


async def test_nothing_is_sent_after_the_end() -> None:
    """Neither what is committed afterwards nor a page that was being read."""
    table, client = Table(), Client()
    table.commit(CREATED)
    table.gate.clear()
    subscription = subscribed(table, client, since=0)
    await settle()
    table.broker.remove(subscription)
    table.gate.set()
    await settle()
    table.commit(CREATED)
    table.broker.start(subscription)
    await settle()
    assert client.messages == []
    assert not table.broker.has_live_listeners


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_each_event_comes_once_and_in_order(seed: int) -> None:
    """Commits, drains, congestion and slow reads in any order: no gap, no double, no other order."""
    chance = random.Random(seed)
    table = Table()
    table.most = chance.choice([1, 3, 1_000])
    table.commit(*[CREATED] * chance.randrange(6))
    starts = [chance.randrange(table.newest_seq + 1) for _ in range(3)]
    clients = [Client(chance.choice([None, 1, 4])) for _ in starts]
    subscriptions = [subscribed(table, client, since) for client, since in zip(clients, starts, strict=True)]
    for _ in range(60):
        what, at = chance.randrange(6), chance.randrange(3)
        if what < 2:
            table.commit(*[chance.choice([CREATED, UPDATED]) for _ in range(chance.randint(1, 5))])
        elif what == 2:
            drain(table, clients[at], subscriptions[at], chance.choice([None, 1, 4]))
        elif what == 3:
            table.gate.clear() if table.gate.is_set() else table.gate.set()
        else:
            await asyncio.sleep(0)
    table.gate.set()
    for client, subscription in zip(clients, subscriptions, strict=True):
        drain(table, client, subscription)
    await settle()
    for client, since in zip(clients, starts, strict=True):
        assert client.seqs == list(range(since + 1, table.newest_seq + 1))


async def test_a_waiter_takes_the_first_event_alone() -> None:
    """A call that waits is answered with one event, the first that fits, from the table or from a commit."""
    table = Table()
    table.commit(CREATED, UPDATED, UPDATED)
    stored, new = (Waiter(table, Wanted(kinds=frozenset({UPDATED})), since, live=False) for since in (0, 3))
    for waiter in (stored, new):
        table.broker.add(waiter)
        await waiter.read()
    table.commit(CREATED)
    assert not new.found.done()
    table.commit(UPDATED, UPDATED)
    assert ((await stored.found).seq, (await new.found).seq) == (2, 5)


async def test_the_cursor_of_a_live_event_is_before_what_comes_next() -> None:
    """Who goes on from what a wait was answered with hears what was committed between that event and the answer."""
    table = Table()
    table.commit(CREATED)
    wait = EventMethods(table, table.broker).wait  # type: ignore[arg-type]  # what a wait needs of it
    call = asyncio.ensure_future(wait(None, EventsWait(kinds=[UPDATED, "session.title"])))  # type: ignore[arg-type]
    await settle()
    table.commit(CREATED)
    table.broker.publish_live("session.title", "s1", b"{}")
    table.commit(UPDATED)
    answer = await call
    assert (answer.event.kind, answer.cursor) == ("session.title", "e-2")


async def test_what_is_never_stored_answers_a_wait_by_its_name_alone() -> None:
    """Not where all kinds of a group are waited for, also not beside another one that is named."""
    table = Table()
    wait = EventMethods(table, table.broker).wait  # type: ignore[arg-type]  # what a wait needs of it
    calls = [
        asyncio.ensure_future(wait(None, EventsWait(kinds=kinds)))  # type: ignore[arg-type]
        for kinds in (None, ["session.*"], ["session.*", "session.title"])
    ]
    await settle()
    table.broker.publish_live("session.cwd", "s1", b"{}")
    table.broker.publish_live("session.title", "s1", b"{}")
    table.commit(UPDATED)
    assert [(await call).event.kind for call in calls] == [UPDATED, UPDATED, "session.title"]


async def test_a_stop_ends_what_waits() -> None:
    """Calls are answered that the daemon stops; clients are sent nothing, since their connection ends."""
    table, client = Table(), Client()
    subscribed(table, client)
    waiter = Waiter(table, Wanted(kinds=frozenset({UPDATED})), 0, live=False)
    table.broker.add(waiter)
    await settle()
    table.broker.close()
    with pytest.raises(ShuttingDown):
        await waiter.found
    table.commit(CREATED)
    assert client.messages == []
