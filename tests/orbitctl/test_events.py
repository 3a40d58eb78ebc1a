"""`orbitctl events`: what has happened, and what happens from now on, over restarts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ctl_support import Orbitctl
from orbit_protocol.event_kinds import LIVE_KINDS, STORED_KINDS
from orbitctl.commands.events import _phrase
from support import WAIT_SECS, DaemonProcess, RawClient

CHANGES = ("--kind", "session.*", "--kind", "workspace.*")


@pytest.fixture
def cursor(shared_client: RawClient) -> str:
    """Where the events of a test begin: the daemon has had others."""
    return str(shared_client.call("events.list", limit=0)["cursor"])


def told(ctl: Orbitctl, *arguments: str) -> list[tuple[str, str]]:
    """Return kind and name of each line."""
    return [(words[1], words[2]) for line in ctl.ok("events", *arguments).lines if (words := line.split())]


class Following:
    """`orbitctl events --follow --json` as a process of its own."""

    def __init__(self, ctl: Orbitctl, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orbitctl", "events", "--follow", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ctl.environment,
            cwd=ctl.home,
        )

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def next(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        return json.loads(line)


def test_lines_say_when_what_to_whom(ctl: Orbitctl, shared_client: RawClient, cursor: str) -> None:
    """A line for each event: its time, kind, the session or workspace by name, and a few words."""
    workspace = shared_client.call("workspace.create", name="shop", layout={"layout_type": "grid", "config": 1})["id"]
    config = {"session_type": "local", "command": "vi\ta\u001b", "workspace_id": workspace}
    web = shared_client.call("session.create", config=config, name="web")["id"]
    shared_client.call("session.rename", id=web, name="api")
    nameless = shared_client.call("session.create", config={"session_type": "ssh", "host": "db"})["id"]
    shared_client.call("session.delete", id=web)
    lines = ctl.ok("events", "--since", cursor, *CHANGES).lines
    assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z  [a-z.]+ +\S+", line) for line in lines)
    assert [line.split()[1:3] for line in lines] == [
        ["workspace.created", "shop"],
        ["session.created", "web"],
        ["session.updated", "api"],
        ["session.created", nameless[:8]],
        ["session.deleted", "api"],
    ]
    assert lines[1].endswith("vi a\\x1b")
    assert lines[3].endswith("ssh db")


def test_json_lines_are_the_events_as_they_came(ctl: Orbitctl, shared_client: RawClient, cursor: str) -> None:
    """One event a line, cursors with -q; each may be gone on from."""
    for name in ("web", "api", "shop"):
        shared_client.call("session.create", config={"session_type": "local"}, name=name)
    stored = shared_client.call("events.list", since=cursor, kinds=["session.*"])["events"]
    shown = ctl.ok("events", "--since", cursor, "--json", "--kind", "session.*").lines
    assert [json.loads(line) for line in shown] == stored
    assert ctl.ok("-q", "events", "--since", cursor, "--kind", "session.*").lines == [one["cursor"] for one in stored]
    assert told(ctl, "--since", stored[0]["cursor"], *CHANGES) == [
        ("session.created", "api"),
        ("session.created", "shop"),
    ]


def test_the_last_ones(ctl: Orbitctl, shared_client: RawClient, cursor: str) -> None:
    """-n counts what fits, however far back it is, and never goes behind --since."""
    for name in ("web", "api"):
        shared_client.call("session.create", config={"session_type": "local"}, name=name)
    session = shared_client.call("session.create", config={"session_type": "local"}, name="shop")["id"]
    for number in range(30):
        shared_client.call("session.set_labels", id=session, labels={"n": str(number)})
    created = ("--kind", "session.created", "--since", cursor)
    assert told(ctl, "-n", "2", *created) == [("session.created", "api"), ("session.created", "shop")]
    assert told(ctl, "-n", "9", *created) == [("session.created", name) for name in ("web", "api", "shop")]
    assert len(told(ctl, "-n", "9" * 20, *created)) == 3
    assert told(ctl, "-n", "0", *created) == []
    assert len(ctl.ok("events", "-n", "5").lines) == 5
    assert told(ctl, "-n", "1", "--session", "api") == [("session.created", "api")]


def test_since_a_time(ctl: Orbitctl, shared_client: RawClient, cursor: str) -> None:
    """The place is found by time: everything from that moment on, and nothing before."""
    for number in range(20):
        shared_client.call("session.create", config={"session_type": "local"}, name=f"s{number}")
    stored = shared_client.call("events.list", since=cursor, kinds=["session.created"])["events"]
    for at in (0, 7, 19):
        shown = ctl.ok("events", "--since", stored[at]["at"], "--json", "--kind", "session.created").lines
        assert [json.loads(line) for line in shown] == stored[at:]
    assert len(ctl.ok("events", "--since", "1h", "--kind", "session.created").lines) >= 20
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert ctl.ok("events", "--since", future).lines == []


def test_what_cannot_be_meant_is_refused(ctl: Orbitctl, cursor: str) -> None:
    """A kind, a time and a session that there are not; a cursor of another store comes with the next step."""
    for arguments, code, words in (
        (["--kind", "session.exploded"], 2, "session.exploded"),
        (["--since", "soonish"], 2, "soonish"),
        (["--session", "nobody"], 4, "nobody"),
        (["--workspace", "nowhere"], 4, "nowhere"),
        (["--since", "0badc0de-1"], 4, "orbitctl events"),
        (["-f", "--since", "0badc0de-1"], 4, "orbitctl events"),
    ):
        ended = ctl("events", *arguments)
        assert (ended.code, words in ended.err) == (code, True), (arguments, ended)


def test_following_begins_at_a_time_before_the_first_event(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """All that is stored comes first: there may be no event from before that time."""
    with daemon.client() as client:
        client.call("session.create", config={"session_type": "local"}, name="web")
    with Following(own_ctl, "--since", "1h") as following:
        assert [following.next()["kind"] for _ in range(2)] == ["daemon.started", "session.created"]


def test_following_goes_on_over_restarts(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """A stop and a start, and kill -9: each event is printed once, in order, as it comes; none is missing."""
    with daemon.client() as client:
        cursor = client.call("events.list", limit=0)["cursor"]
        client.call("session.create", config={"session_type": "local"}, name="before")
    seqs: list[int] = []
    # It would start a daemon after the kill, and this test does.
    with Following(
        own_ctl, "--no-autostart", "--kind", "session.*", "--kind", "daemon.*", "--since", cursor
    ) as following:

        def follow_until(kind: str) -> None:
            while (event := following.next())["kind"] != kind:
                seqs.append(event["seq"])
            seqs.append(event["seq"])

        follow_until("session.created")
        daemon.restart()
        follow_until("daemon.started")
        daemon.kill()
        with daemon.start().client() as client:
            session = client.call("session.create", config={"session_type": "local"}, name="after")["id"]
            client.call("session.delete", id=session)
            follow_until("session.deleted")
            stored = client.call("events.list", since=cursor, kinds=["session.*", "daemon.*"])["events"]
    assert seqs == [each["seq"] for each in stored]


def test_ctrl_c_ends_following(process_ctl: Orbitctl, shared_client: RawClient, cursor: str) -> None:
    """With the exit code of what is interrupted, and no message."""
    shared_client.call("session.create", config={"session_type": "local"}, name="web")
    with Following(process_ctl, "--since", cursor, "--kind", "session.*") as following:
        assert following.next()["data"]["name"] == "web"
        following.process.send_signal(signal.SIGINT)
        assert following.process.wait(WAIT_SECS) == 130
        assert following.process.stderr is not None
        assert following.process.stderr.read().strip() == b""


def test_a_reader_that_leaves_ends_following_at_once(
    process_ctl: Orbitctl, shared_client: RawClient, cursor: str
) -> None:
    """Not only when the next event comes, which may be tomorrow."""
    shared_client.call("session.create", config={"session_type": "local"}, name="web")
    line = f"{sys.executable} -m orbitctl events -f --since {cursor} --kind session.created | head -n 1"
    ended = process_ctl.shell(f"{line}; echo ${{PIPESTATUS[*]}}")
    assert ended.lines[0].split()[1:] == ["session.created", "web"]
    assert ended.lines[1:] == ["141 0"]


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("session.exited", {"exit_code": 3, "exit_signal": None}, "exit 3"),
        ("session.exited", {"exit_code": None, "exit_signal": 9}, "signal KILL"),
        ("session.attached", {"client_pid": 7, "read_only": True}, "by pid 7, read-only"),
        ("session.disconnected", {"reason": "the keeper was killed"}, "the keeper was killed"),
        (
            "command.finished",
            {"command": "make\n all", "exit_code": 2, "duration_secs": 81.5},
            "make all, exit 2, after 1m",
        ),
        ("command.finished", {"command": None, "exit_code": None, "duration_secs": None}, ""),
        ("terminal.notification", {"title": "done", "body": "0 errors"}, "done: 0 errors"),
        ("terminal.notification", {"title": "", "body": "hi"}, "hi"),
        ("terminal.dropped", {"count": 1}, "1 event too fast, left out"),
        ("session.progress", {"progress": {"state": "normal", "percent": 40}}, "40 %"),
        ("session.progress", {"state": "error", "percent": 40}, "error 40 %"),
        ("session.progress", {"progress": None}, ""),
        ("daemon.warning", {"warning": "The disk is full."}, "The disk is full."),
        ("snapshot.saved", {"buffer_bytes": 2048}, "2.0 KiB"),
    ],
)
def test_a_few_words_for_each_kind(kind: str, data: dict[str, Any], words: str) -> None:
    """What a person wants to know of it; what a program or shell did not say is left out."""
    assert _phrase(kind, data) == words


@pytest.mark.parametrize("kind", [*STORED_KINDS, *LIVE_KINDS])
def test_no_data_is_too_odd_to_be_shown(kind: str) -> None:
    """A newer or older daemon may send less: then there are no words."""
    assert _phrase(kind, {}) in ("", "into the trash", "0 events too fast, left out")
