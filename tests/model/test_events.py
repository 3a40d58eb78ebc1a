"""Events through kill -9: what is heard over any number of reconnects is exactly what has changed.

Several clients change what is theirs, all at once, and keep a log: what was answered, and what was in doubt when the
daemon was killed. Subscribers come and go with their cursors, one of them reads late. In the end the log, the table of
events, what each subscriber has heard and what `session.list` and `workspace.list` show have to agree.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from fuzz.target import FACTOR
from support import EVERY_STATUS, WAIT_SECS, DaemonProcess, RawClient

pytestmark = pytest.mark.slow

WRITERS, KILLS, CHANGES = 3, 4, 60
KINDS = ["session.*", "workspace.*"]
END = "the end"


class Gone(Exception):
    """The daemon was killed."""


class Line:
    """The daemon as its clients see it: there, or to be waited for.

    Attributes:
        changes: How many were asked for.
    """

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.is_up = threading.Event()
        self.is_over = threading.Event()
        self.is_abandoned = threading.Event()  # the test has failed
        self.changes = 0
        self.counted = threading.Condition()

    def count(self) -> None:
        with self.counted:
            self.changes += 1
            self.counted.notify_all()

    def wait_for_changes(self, count: int) -> None:
        with self.counted:
            assert self.counted.wait_for(lambda: self.changes >= count, WAIT_SECS), "nobody changes anything"

    @contextlib.contextmanager
    def client(self) -> Iterator[RawClient]:
        """Connect as soon as the daemon serves. Raises: Gone, also while it is used."""
        assert self.is_up.wait(WAIT_SECS)
        try:
            with self.daemon.client() as client:
                yield client
        except (OSError, ValueError) as error:  # ValueError: the end in the place of JSON
            if isinstance(error, TimeoutError):
                raise
            raise Gone from error


@dataclass
class Change:
    """What a client has asked for.

    Args:
        events: The kind of each event that it has to make, and whose.
        answer: What it was answered with; None while, or as, it was not.
    """

    events: Counter[tuple[str, str]]
    answer: Any = None
    is_answered: bool = False


@dataclass
class Writer:
    """A client that changes sessions and workspaces of its own, and knows what it did.

    Names are unique, so that a session that was in doubt is found again by its own.
    """

    line: Line
    name: str
    chance: random.Random
    log: list[Change] = field(default_factory=list)
    _last: int = 0
    _sessions: dict[str, Any] = field(default_factory=dict)
    _deleted: dict[str, Any] = field(default_factory=dict)
    _workspaces: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        while not self.line.is_over.is_set():
            with contextlib.suppress(Gone), self.line.client() as client:
                self._look(client)
                while not self.line.is_over.is_set():
                    self._change(client)

    def _look(self, client: RawClient) -> None:
        """Learn what has become of what was in doubt."""
        sessions = client.call("session.list", status=EVERY_STATUS)["sessions"]
        self._sessions = {one["id"]: one for one in sessions if self._is_mine(one)}
        deleted = client.call("session.list_deleted")["sessions"]
        self._deleted = {one["id"]: one for one in deleted if self._is_mine(one)}
        workspaces = client.call("workspace.list")["workspaces"]
        self._workspaces = {one["id"]: one for one in workspaces if self._is_mine(one)}

    def _is_mine(self, one: Any) -> bool:
        return str(one["name"]).startswith(f"{self.name}-")

    def _new_name(self) -> str:
        self._last += 1
        return f"{self.name}-{self._last}"

    def _change(self, client: RawClient) -> None:
        ways: list[Callable[[RawClient], None]] = [self._create, self._create_workspace]
        ways += [self._rename, self._label, self._label, self._move, self._delete, self._end] * bool(self._sessions)
        ways += [self._undelete] * bool(self._deleted)
        ways += [self._lay_out, self._rename_workspace, self._delete_workspace] * bool(self._workspaces)
        self.chance.choice(ways)(client)
        self.line.count()

    def _ask(self, client: RawClient, events: list[tuple[str, str]], method: str, **params: Any) -> Any:
        change = Change(Counter(events))
        self.log.append(change)
        change.answer = client.call(method, **params)
        change.is_answered = True
        return dict(change.answer)

    def _some(self, of: dict[str, Any]) -> str:
        return self.chance.choice(sorted(of))

    def _create(self, client: RawClient) -> None:
        name, config = self._new_name(), {"session_type": "local"}
        made = self._ask(client, [("session.created", name)], "session.create", config=config, name=name)
        self._sessions[made["id"]] = made

    def _update(self, client: RawClient, kind: str, method: str, session_id: str, **params: Any) -> None:
        name = params.get("name") or self._sessions[session_id]["name"]
        self._sessions[session_id] = self._ask(client, [(kind, name)], method, id=session_id, **params)

    def _rename(self, client: RawClient) -> None:
        self._update(client, "session.updated", "session.rename", self._some(self._sessions), name=self._new_name())

    def _label(self, client: RawClient) -> None:
        labels = {"change": self._new_name()}
        self._update(client, "session.updated", "session.set_labels", self._some(self._sessions), labels=labels)

    def _move(self, client: RawClient) -> None:
        session_id = self._some(self._sessions)
        targets = {None, *self._workspaces} - {self._sessions[session_id]["workspace_id"]}
        if targets:
            target = self.chance.choice(sorted(targets, key=str))
            self._update(client, "session.updated", "session.move", session_id, workspace_id=target)

    def _end(self, client: RawClient) -> None:
        session_id = self._some(self._sessions)
        if self._sessions[session_id]["status"] != "terminated":
            self._update(client, "session.terminated", "session.terminate", session_id)

    def _delete(self, client: RawClient) -> None:
        session_id = self._some(self._sessions)
        name = self._sessions[session_id]["name"]
        self._ask(client, [("session.deleted", name)], "session.delete", id=session_id)
        self._deleted[session_id] = self._sessions.pop(session_id)

    def _undelete(self, client: RawClient) -> None:
        session_id = self._some(self._deleted)
        name = self._deleted[session_id]["name"]
        self._sessions[session_id] = self._ask(client, [("session.undeleted", name)], "session.undelete", id=session_id)
        del self._deleted[session_id]

    def _create_workspace(self, client: RawClient) -> None:
        name, layout = self._new_name(), {"layout_type": "grid", "config": [1, {"b": 2.0, "a": None}]}
        made = self._ask(client, [("workspace.created", name)], "workspace.create", name=name, layout=layout)
        self._workspaces[made["id"]] = made

    def _rename_workspace(self, client: RawClient) -> None:
        workspace_id, name = self._some(self._workspaces), self._new_name()
        events = [("workspace.updated", name)]
        self._workspaces[workspace_id] = self._ask(client, events, "workspace.rename", id=workspace_id, name=name)

    def _lay_out(self, client: RawClient) -> None:
        workspace_id = self._some(self._workspaces)
        layout = {"layout_type": "grid", "config": {"n": self._new_name()}}
        events = [("workspace.updated", self._workspaces[workspace_id]["name"])]
        found = self._ask(client, events, "workspace.update_layout", id=workspace_id, layout=layout)
        self._workspaces[workspace_id] = found

    def _delete_workspace(self, client: RawClient) -> None:
        workspace_id = self._some(self._workspaces)
        members = [one for one in self._sessions.values() if one["workspace_id"] == workspace_id]
        events = [("workspace.deleted", self._workspaces[workspace_id]["name"])]
        events += [("session.updated", one["name"]) for one in members]
        self._ask(client, events, "workspace.delete", id=workspace_id)
        del self._workspaces[workspace_id]
        for each in [*members, *self._deleted.values()]:
            if each["workspace_id"] == workspace_id:
                each["workspace_id"] = None

    def check(self, heard: list[Any]) -> None:
        """Check that the events are those of the log: each change's once, in order, of one in doubt all or none."""
        mine = [each for each in heard if self._is_mine(each["data"])]
        doubts = [change for change in self.log if not change.is_answered]
        # One in doubt may look like the next one, which was asked for again: so every way to have been made is tried.
        ways = itertools.product((True, False), repeat=len(doubts))
        wrong = [self._mismatch(mine, [one for one, made in zip(doubts, way, strict=True) if not made]) for way in ways]
        assert None in wrong, max(wrong, key=lambda one: one[0] if one else 0)

    def _mismatch(self, mine: list[Any], not_made: list[Change]) -> tuple[int, Any, Any] | None:
        """Return where the events begin to differ from the log, without some changes; None where they do not."""
        at = 0
        for change in self.log:
            if any(change is each for each in not_made):
                continue
            came = mine[at : at + change.events.total()]
            if Counter((each["kind"], each["data"]["name"]) for each in came) != change.events:
                return at, change.events, [(each["kind"], each["data"]["name"]) for each in mine[at - 3 : at + 4]]
            if change.answer and {**came[0]["data"], **change.answer} != came[0]["data"]:
                return at, change.answer, came[0]
            at += len(came)
        return None if at == len(mine) else (at, "no change", mine[at])


@dataclass
class Subscriber:
    """A client that hears events, and leaves and comes back with its cursor.

    Args:
        line: The daemon.
        chance: Decides when it leaves.
        cursor: Where it begins.
        reads_late: It leaves what it is sent in the socket until the end.
    """

    line: Line
    chance: random.Random
    cursor: str
    reads_late: bool = False
    heard: list[Any] = field(default_factory=list)

    def run(self) -> None:
        while not (self._is_done() or self.line.is_abandoned.is_set()):
            with contextlib.suppress(Gone), self.line.client() as client:
                self._listen(client)

    def _is_done(self) -> bool:
        return bool(self.heard) and self.heard[-1]["data"].get("name") == END

    def _listen(self, client: RawClient) -> None:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.call("events.subscribe", since=self.cursor, kinds=KINDS)
        if self.reads_late:
            assert self.line.is_over.wait(WAIT_SECS)
        for _ in range(self.chance.choice([0, 1, 5, 50, 500])):
            notice = client.notice()
            self.cursor = notice["params"]["cursor"]
            if notice["method"] == "events.cursor":
                continue
            assert notice["method"] == "event", notice
            self.heard.append(notice["params"])
            if self._is_done():
                return


def replayed(events: list[Any], noun: str) -> dict[str, Any]:
    """Return what there is after some events, by id."""
    found: dict[str, Any] = {}
    for each in events:
        if each["kind"] == f"{noun}.deleted":
            del found[each["data"]["id"]]
        elif each["kind"].startswith(f"{noun}."):
            found[each["data"]["id"]] = each["data"]
    return found


def without_touches(one: Any) -> Any:
    """Return a session without what is written by an auto-save, which is no change."""
    return {name: value for name, value in one.items() if name != "last_active"}


def _kill_now_and_then(line: Line, chance: random.Random) -> None:
    """Kill the daemon and start it again, each time after some changes."""
    line.is_up.set()
    for kill in range(1, KILLS + 1):
        line.wait_for_changes(kill * CHANGES + chance.randrange(CHANGES))
        line.is_up.clear()
        line.daemon.kill()
        line.daemon.start()
        line.is_up.set()
    line.wait_for_changes((KILLS + 2) * CHANGES)
    line.is_over.set()


def _end(line: Line, cursor: str) -> tuple[list[Any], list[Any], list[Any]]:
    """Make the last event; return all, and the sessions and workspaces that there are."""
    with line.daemon.client() as client:
        client.call("session.create", config={"session_type": "local"}, name=END)
        stored: list[Any] = []
        while page := client.call("events.list", since=cursor, kinds=KINDS)["events"]:
            stored, cursor = stored + page, page[-1]["cursor"]
        sessions = client.call("session.list", status=EVERY_STATUS)["sessions"]
        return stored, sessions, client.call("workspace.list")["workspaces"]


@pytest.mark.parametrize("seed", range(FACTOR))
def test_what_is_heard_is_what_has_changed(daemon: DaemonProcess, seed: int) -> None:
    """Through kills, reconnects and slow reads each change is heard once, in order, and makes the state at the end."""
    seed += int.from_bytes(os.urandom(4)) if FACTOR > 1 else 0
    chance, line = random.Random(seed), Line(daemon)
    with daemon.client() as client:
        cursor = client.call("events.list", limit=0)["cursor"]
    writers = [Writer(line, f"w{number}", random.Random(chance.random())) for number in range(WRITERS)]
    subscribers = [
        Subscriber(line, random.Random(chance.random()), cursor, reads_late=number == 0) for number in range(3)
    ]
    with ThreadPoolExecutor(max_workers=WRITERS + len(subscribers)) as pool:
        writing = [pool.submit(each.run) for each in writers]
        hearing = [pool.submit(each.run) for each in subscribers]
        try:
            _kill_now_and_then(line, chance)
            for each in writing:
                each.result(WAIT_SECS)
            stored, sessions, workspaces = _end(line, cursor)
            for each in hearing:
                each.result(WAIT_SECS)
        finally:
            line.is_over.set()
            line.is_abandoned.set()
            daemon.kill()  # so that nobody waits for what does not come
    assert [each["seq"] for each in stored] == sorted({each["seq"] for each in stored})
    for subscriber in subscribers:
        told = [{name: value for name, value in each.items() if name != "subscription_id"} for each in subscriber.heard]
        assert told == stored
    for writer in writers:
        writer.check(stored)
    assert {one["id"]: without_touches(one) for one in sessions} == {
        key: without_touches(one) for key, one in replayed(stored, "session").items()
    }
    assert {one["id"]: one for one in workspaces} == replayed(stored, "workspace")
