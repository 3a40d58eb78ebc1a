"""Workspaces that are opened, parked and imported over the socket, with real programs, and a daemon that dies."""

from __future__ import annotations

import select
import shlex
from pathlib import Path

import pytest

from live.sessions import create
from live_support import Viewer
from support import WAIT_SECS, DaemonProcess, RawClient

LAYOUT = {"layout_type": "splits", "config": {"ratio": 0.5}}


@pytest.mark.parametrize("after", [1, 5])
def test_a_daemon_that_dies_while_it_opens(daemon: DaemonProcess, client: RawClient, after: int) -> None:
    """Another open finishes what was begun: each program runs, and none was started twice."""
    workspace = client.call("workspace.create", name="shop", layout=LAYOUT)["id"]
    marks = daemon.home / "marks"
    marks.mkdir()
    ids = []
    for number in range(12):
        script = f"echo $$ >> {shlex.quote(str(marks / str(number)))}; echo here; exec cat"
        ids.append(create(client, shlex.join(["sh", "-c", script]), workspace_id=workspace))
    with RawClient(daemon.socket_path) as other:
        other.send(
            b'{"jsonrpc": "2.0", "method": "workspace.open", "params": {"id": "%b"}, "id": 1}' % workspace.encode()
        )
        wait_for_files(marks, after)
        daemon.kill()
    daemon.start()
    with daemon.client() as again:
        opened = again.call("workspace.open", id=workspace)
        assert opened["failed"] == []
        assert [each["id"] for each in opened["sessions"]] == ids
        assert {each["live"] for each in opened["sessions"]} == {True}
        for session_id in ids:
            viewer = Viewer(again, session_id)
            viewer.read_until("here")
            again.call("session.leave", attachment_id=viewer.id)
        assert {path.name: path.read_text().count("\n") for path in marks.iterdir()} == {str(n): 1 for n in range(12)}
        parked = again.call("workspace.park", id=workspace)
        assert sorted(parked["changed"]) == sorted(ids)
        kinds = [each["kind"] for each in again.call("events.list", workspace_id=workspace)["events"]]
        assert kinds.count("workspace.parked") == 1
        assert kinds.count("session.terminated") == 12


def wait_for_files(folder: Path, count: int) -> None:
    """Wait until so many files are in a folder."""
    poller = select.poll()  # nothing to wait on but the clock: the daemon that writes them is about to be killed
    for _ in range(int(WAIT_SECS * 1000)):
        if len(list(folder.iterdir())) >= count:
            return
        poller.poll(1)
    raise AssertionError(f"{folder} has fewer than {count} files")


def test_an_app_that_imports_opens_and_parks(client: RawClient, home: Path) -> None:
    """What a document says runs as it says, and comes back with its picture after a park."""
    session = {
        "id": "web",
        "name": "web",
        "cols": 60,
        "rows": 20,
        "config": {"session_type": "local", "cwd": str(home), "command": "sh -c 'echo in $PWD; stty size; exec cat'"},
    }
    layout = {"layout_type": "splits", "config": {"panes": ["web"]}}
    document = {"orbit_workspace": 1, "name": "shop", "layout": layout, "sessions": [session]}
    workspace = client.call("workspace.import", document=document)
    (session_id,) = workspace["layout"]["config"]["panes"]
    opened = client.call("workspace.open", id=workspace["id"], env={"PATH": "/usr/bin:/bin"})
    assert opened["changed"] == [session_id]
    viewer = Viewer(client, session_id, (60, 20))
    viewer.read_until("20 60")
    assert f"in {home}" in viewer.text()
    client.call("session.leave", attachment_id=viewer.id)
    assert client.call("workspace.park", id=workspace["id"])["sessions"][0]["status"] == "terminated"
    client.call("workspace.open", id=workspace["id"], env={"PATH": "/usr/bin:/bin"})
    viewer = Viewer(client, session_id, (60, 20))
    viewer.read_until("started again")
    assert f"in {home}" in viewer.text().partition("started again")[0]
