"""What programs say while nobody is there is heard once, whoever is killed meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from live.screens_processes import screens_processes
from live.sessions import kill, restarted, start
from live_support import Viewer, encoded
from needs import needs
from support import DaemonProcess, RawClient

KILLS = 5
NUMBERED = r"""sh -c 'while read -r i; do printf "\033[31mtext\033[m\033]777;notify;$i;\033\\"; done'"""


def kill_orbitd(daemon: DaemonProcess) -> None:
    """Kill the daemon, and start it again."""
    restarted(daemon).close()


def kill_screens(daemon: DaemonProcess) -> None:
    """Kill what follows the journals."""
    for pid in screens_processes(daemon):
        kill(pid)


def said(client: RawClient, kind: str) -> list[dict[str, object]]:
    """Return the data of the stored events of a kind."""
    return [each["data"] for each in client.call("events.list", kinds=[kind])["events"]]


@pytest.mark.parametrize("fault", [kill_orbitd, pytest.param(kill_screens, marks=needs(linux=True))])
def test_each_notification_is_heard_once(daemon: DaemonProcess, fault: Callable[[DaemonProcess], None]) -> None:
    """A program prints numbered notifications while orbitd, or its screens process, is killed again and again."""
    dice, count = random.Random(7), 0
    with daemon.client() as client:
        session_id = start(client, NUMBERED)
    for _ in range(KILLS):
        with daemon.client() as client:
            for _ in range(2):
                cursor = client.call("events.list", limit=0)["cursor"]
                for _ in range(dice.randrange(1, 6)):
                    count += 1
                    client.call("session.send", id=session_id, data=encoded(f"{count}\n"))
                if dice.random() < 0.7:  # else it is killed at once
                    wanted = ["terminal.notification"]
                    client.call("events.wait", kinds=wanted, session_id=session_id, since=cursor, timeout_secs=30)
            if dice.random() < 0.3:
                client.call("maintenance.auto_save")
            fault(daemon)
    with daemon.client() as client:
        client.call("session.send", id=session_id, data=encoded("\x04"))
        client.call("session.wait", id=session_id)
        client.call("session.terminate", id=session_id)  # its exit is stored then, behind all that it has said
        heard = [each["title"] for each in said(client, "terminal.notification")]
        assert heard == [str(number) for number in range(1, count + 1)]
        assert not said(client, "terminal.dropped")
        session = client.call("session.get", id=session_id)
        assert session["notification"] == {"title": str(count), "body": "", "urgency": "normal"}
        assert session["unseen_output"]


def test_marks_and_a_running_command_outlive_orbitd(daemon: DaemonProcess) -> None:
    """A command that began before a kill -9 ends after it; marks are there until somebody attaches who may type."""
    with daemon.client() as client:
        cursor = client.call("events.list", limit=0)["cursor"]
        session_id = start(client, "sh")

        def run(line: str) -> None:
            client.call("session.send", id=session_id, data=encoded(line + "\n"))

        def wait_for(kind: str) -> dict[str, object]:
            found = client.call("events.wait", kinds=[kind], session_id=session_id, since=cursor, timeout_secs=30)
            return dict(found["event"]["data"])

        run(r"printf '\033]0;title\a\033]133;C;cmdline_url=make%%20all\a\033]9;begun\a\033]9;4;1;45\a\a'")
        assert wait_for("terminal.notification") == {"title": "", "body": "begun", "urgency": "normal"}
        wait_for("terminal.bell")
    with restarted(daemon) as client:
        found = client.call("session.list")["sessions"][0]
        assert (found["bell"], found["notification"]["body"], found["unseen_output"]) == (True, "begun", True)
        assert found["progress"] == {"state": "normal", "percent": 45}
        run(r"printf '\033]133;D;2\a'")
        finished = wait_for("command.finished")
        assert (finished["command"], finished["exit_code"], finished["cwd"]) == ("make all", 2, found["cwd"])
        assert isinstance(finished["duration_secs"], float)
        assert client.call("session.get", id=session_id)["last_command"] == finished
        assert [each["body"] for each in said(client, "terminal.notification")] == ["begun"]
        assert len(said(client, "terminal.bell")) == 1
        viewer = Viewer(client, session_id)
        found = client.call("session.get", id=session_id)
        assert (found["bell"], found["notification"], found["unseen_output"]) == (False, None, False)
        assert found["last_command"] == finished
        viewer.type("exit\n")
        client.call("session.wait", id=session_id)
    with restarted(daemon) as client:
        (found,) = client.call("session.list", status=["terminated"])["sessions"]
        assert (found["bell"], found["notification"], found["progress"]) == (False, None, None)
        assert found["last_command"] == finished
