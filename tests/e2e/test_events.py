"""Events of the real daemon, as any program on its socket hears them."""

from __future__ import annotations

import json
import socket
from typing import Any

from orbitd.events.methods import MAX_SUBSCRIPTIONS
from support import DaemonProcess, RawClient


def kinds(events: list[Any]) -> list[str]:
    return [each["kind"] for each in events]


def everything(client: RawClient, since: str | None = None, **wanted: Any) -> list[Any]:
    """Return all stored events after a cursor, page by page."""
    found: list[Any] = []
    while page := client.call("events.list", since=since, **wanted)["events"]:
        found += page
        since = page[-1]["cursor"]
    return found


def create(client: RawClient, name: str | None = None, **config: Any) -> str:
    return str(client.call("session.create", config={"session_type": "local", **config}, name=name)["id"])


def test_who_subscribes_hears_what_others_do(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """The first screen of an app: cursor, lists, subscribe; then each change of any client, with what it is now."""
    with shared_daemon.client() as other:
        cursor = shared_client.call("events.list", limit=0)["cursor"]
        session = create(other, "web")
        answer = shared_client.call("events.subscribe", since=cursor, kinds=["session.*"])
        assert answer == {"subscription_id": answer["subscription_id"], "cursor": cursor}
        other.call("session.rename", id=session, name="api")
        created, renamed = shared_client.notice()["params"], shared_client.notice()["params"]
        assert (created["kind"], created["data"]["name"], created["session_id"]) == ("session.created", "web", session)
        assert (renamed["kind"], renamed["data"]["name"]) == ("session.updated", "api")
        assert renamed["data"] == other.call("session.get", id=session)
        stored = everything(other, cursor, kinds=["session.*"])
        told = [{**each, "subscription_id": answer["subscription_id"]} for each in stored]
        assert told == [created, renamed]


def test_the_answer_comes_before_the_first_event(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """Also in a batch, whose answer is one line; so the client knows the subscription before it hears of it."""
    cursor = shared_client.call("events.list", limit=0)["cursor"]
    create(shared_client)
    request = {"jsonrpc": "2.0", "method": "events.subscribe", "params": {"since": cursor}}
    shared_client.send(json.dumps([{**request, "id": 1}, {**request, "id": 2}]).encode())
    first = json.loads(shared_client.read_line())
    ids = {each["result"]["subscription_id"] for each in first}
    assert {shared_client.notice()["params"]["subscription_id"] for _ in ids} == ids


def test_filters_and_groups(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """By session, workspace and kind; snapshots are only heard by those who ask for them."""
    cursor = shared_client.call("events.list", limit=0)["cursor"]
    workspace = shared_client.call("workspace.create", name="shop", layout={"layout_type": "grid", "config": 1})["id"]
    web, api = create(shared_client, "web", workspace_id=workspace), create(shared_client, "api")
    shared_client.call("snapshot.save", session_id=web, terminal_buffer="aGk=")
    everywhere = everything(shared_client, cursor, kinds=["workspace.*", "session.*"])
    assert kinds(everywhere) == ["workspace.created", "session.created", "session.created"]
    assert everything(shared_client, cursor, session_id=api) == everywhere[2:]
    assert everything(shared_client, cursor, workspace_id=workspace) == everywhere[:2]
    assert kinds(everything(shared_client, cursor, kinds=["snapshot.*", "workspace.created"])) == [
        "workspace.created",
        "snapshot.saved",
    ]
    assert everything(shared_client, cursor, kinds=["session.title"]) == []
    error = shared_client.error("events.subscribe", kinds=["session.created", "session.exploded"])
    assert (error["code"], "session.exploded" in error["message"]) == (-32602, True)


def test_a_session_in_the_trash_still_has_events(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """It may come back; one that is purged is not found, and neither are its events."""
    session = create(shared_client, "web")
    shared_client.call("session.delete", id=session)
    subscription = shared_client.call("events.subscribe", session_id=session)["subscription_id"]
    assert kinds(everything(shared_client, session_id=session)) == ["session.created", "session.deleted"]
    shared_client.call("session.undelete", id=session)
    assert shared_client.notice()["params"]["kind"] == "session.undeleted"
    shared_client.call("events.unsubscribe", subscription_id=subscription)
    shared_client.call("session.delete", id=session, purge=True)
    assert shared_client.error("events.list", session_id=session)["code"] == 1000


def test_events_wait_is_answered_by_the_first_that_fits(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """At once where it is stored already, else when it happens; with a timeout of 0 it only looks."""
    cursor = shared_client.call("events.list", limit=0)["cursor"]
    assert shared_client.error("events.wait", since=cursor, timeout_secs=0)["code"] == -32002
    session = create(shared_client)
    found = shared_client.call("events.wait", since=cursor, timeout_secs=0)
    assert (found["event"]["kind"], found["cursor"]) == ("session.created", found["event"]["cursor"])
    wait = {"jsonrpc": "2.0", "method": "events.wait", "params": {"kinds": ["session.deleted"]}, "id": "w"}
    shared_client.send(json.dumps(wait).encode())
    with shared_daemon.client() as other:
        other.call("session.rename", id=session, name="web")
        other.call("session.delete", id=session)
    answer = json.loads(shared_client.read_line())
    assert (answer["id"], answer["result"]["event"]["session_id"]) == ("w", session)


def test_a_wait_takes_no_place_and_can_be_cancelled(shared_client: RawClient) -> None:
    """A hundred of them keep no other call waiting; `$/cancelRequest` answers one with its own error."""
    for number in range(100):
        wait = {"jsonrpc": "2.0", "method": "events.wait", "params": {}, "id": f"w{number}"}
        shared_client.send(json.dumps(wait).encode())
    assert shared_client.call("daemon.ping") == {"pong": True}
    shared_client.notify("$/cancelRequest", id="w7")
    answer = json.loads(shared_client.read_line())
    assert (answer["id"], answer["error"]["code"]) == ("w7", -32800)


def test_subscriptions_have_a_bound_and_an_end(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """64 a connection; one that is ended is sent nothing more, and another may take its place."""
    ids = [shared_client.call("events.subscribe")["subscription_id"] for _ in range(MAX_SUBSCRIPTIONS)]
    assert len(set(ids)) == MAX_SUBSCRIPTIONS
    assert shared_client.error("events.subscribe")["code"] == -32000
    with shared_daemon.client() as other:
        assert other.error("events.unsubscribe", subscription_id=ids[0])["code"] == -32602
        for each in ids[1:]:
            shared_client.call("events.unsubscribe", subscription_id=each)
        create(other)
    assert shared_client.notice()["params"]["subscription_id"] == ids[0]
    assert shared_client.call("events.subscribe")["subscription_id"] not in ids
    assert shared_client.error("events.unsubscribe", subscription_id=ids[1])["code"] == -32602


def test_a_client_that_does_not_read_holds_up_nobody(daemon: DaemonProcess) -> None:
    """It is sent all that is stored when it reads at last; meanwhile others are served, and the daemon stays small."""
    with daemon.client() as slow, daemon.client() as other, daemon.client() as quick:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for client in (slow, quick):
            client.call("events.subscribe", kinds=["workspace.*"])
        first = {"layout_type": "grid", "config": 0}
        workspace = other.call("workspace.create", name="shop", layout=first)["id"]
        for number in range(200):  # 10 MB
            layout = {"layout_type": "grid", "config": [number, "x" * 50_000]}
            other.call("workspace.update_layout", id=workspace, layout=layout)
            assert quick.notice()["params"]["kind"] == ("workspace.updated" if number else "workspace.created")
        quick.notice()
        heard = [slow.notice()["params"]["seq"] for _ in range(201)]
        assert heard == [each["seq"] for each in everything(other, kinds=["workspace.*"])]
        other.call("workspace.delete", id=workspace)
        assert slow.notice()["params"]["kind"] == "workspace.deleted"


def test_a_restart_is_heard_of_from_both_sides(daemon: DaemonProcess) -> None:
    """The last event of a daemon is that it stops, the next one's first that it serves; a wait ends with the stop."""
    with daemon.client() as client, daemon.client() as waiting:
        waiting.send(b'{"jsonrpc":"2.0","method":"events.wait","params":{"kinds":["session.*"]},"id":1}')
        assert waiting.call("daemon.ping") == {"pong": True}
        client.call("events.subscribe", kinds=["daemon.*"])
        cursor = client.call("events.list", limit=0)["cursor"]
        daemon.stop()
        *_, stopping = (json.loads(line)["params"] for line in iter(client.read_line, b""))
        assert (stopping["kind"], set(stopping["data"])) == ("daemon.stopping", {"version"})
        assert json.loads(waiting.read_line())["error"]["code"] == -32001
    with daemon.start().client() as client:
        client.call("events.wait", since=stopping["cursor"], kinds=["daemon.started"], timeout_secs=10)
        assert kinds(everything(client, cursor, kinds=["daemon.*"]))[-2:] == ["daemon.stopping", "daemon.started"]
        epoch = stopping["cursor"].partition("-")[0]
        error = client.error("events.list", since=stopping["cursor"].replace(epoch, "0badc0de"))
        assert (error["code"], error["data"]["oldest"].partition("-")[0]) == (1300, epoch)
