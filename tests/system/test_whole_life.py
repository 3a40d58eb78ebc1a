"""The whole life of a live session under a real `systemd --user`: run, detach, restart the service, attach."""

from __future__ import annotations

import os

import pytest

from live_support import Viewer
from needs import needs, program
from orbitd.screens.model import Screen
from support import RawClient

pytestmark = pytest.mark.slow


def group_of(pid: int) -> str:
    """Return the control group of a process, in systemd's own hierarchy or the only one."""
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as lines:
        found = [line.rstrip("\n").split(":", 2) for line in lines]
    return next(path for _, name, path in found if name in ("", "name=systemd"))


def attached(client: RawClient, session_id: str) -> Screen:
    """Attach, leave again, and return what was shown."""
    viewer = Viewer(client, session_id)
    client.call("session.leave", attachment_id=viewer.id)
    return viewer.emulator.dump()


@needs("vim")
def test_the_whole_life_of_a_session(installed) -> None:
    """A program in a terminal outlives a restart, a stop and a crash of the service: same program, same screen."""
    with installed.client() as client:
        config = {
            "session_type": "local",
            "command": f"{program('vim')} -u NONE -i NONE -N notes",
            "cwd": str(installed.home),
        }
        session_id = client.call("session.create", config=config, name="editing")["id"]
        pid = client.call("session.start", id=session_id)["pid"]
        viewer = Viewer(client, session_id)
        viewer.type("ione\rtwo\x1b:set number\r:echo 'wri' . 'tten'\r")
        while "written" not in viewer.text() or viewer.emulator.cursor.row != 1 or not viewer.emulator.cursor.visible:
            viewer.step()  # until the cursor is back in the text
        client.call("session.leave", attachment_id=viewer.id)
        # vim may draw on after that: what two clients that come one after the other are shown is its last word.
        reference = None
        while reference != (reference := attached(client, session_id)):
            pass
    assert "orbitd.service" in group_of(pid)

    def come_back(daemon_before: int) -> int:
        with installed.client() as client:
            daemon = client.call("daemon.info")["pid"]
            assert daemon != daemon_before
            session = client.call("session.get", id=session_id)
            assert (session["live"], session["pid"], session["status"]) == (True, pid, "detached")
            assert attached(client, session_id) == reference
        return int(daemon)

    daemon = come_back(0)
    installed.systemctl("restart", "orbitd.service")
    daemon = come_back(daemon)
    installed.systemctl("stop", "orbitd.service")
    daemon = come_back(daemon)  # the socket starts it again
    descriptor = os.pidfd_open(daemon)
    try:
        os.kill(daemon, 9)
        come_back(daemon)
    finally:
        os.close(descriptor)
    with installed.client() as client:
        client.call("session.send", id=session_id, data="OnFhIQ0=")  # :qa! and a return
        assert client.call("session.wait", id=session_id)["exit_code"] == 0
