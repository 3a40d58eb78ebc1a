"""Output that harms the terminal emulation harms the picture of the session that printed it, and nothing else."""

from __future__ import annotations

import base64
import os
import select
import sys
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from live.poisons import FATAL, POISONS
from live.sessions import Terminal, create, restarted, start
from live_support import encoded
from orbitd.rpc.connection import MAX_UNSENT_BYTES
from support import DaemonProcess, RawClient

pytestmark = pytest.mark.slow

PROGRAM = f"{sys.executable} {Path(__file__).with_name('poisons.py')}"
PRINT_SECS = 60.0
"""A program waits while its picture is 8 MiB behind."""


class Listener:
    """An attachment that keeps the bytes of the output, and draws nothing."""

    def __init__(self, client: RawClient, session_id: str, size: tuple[int, int]) -> None:
        self.client = client
        self.id = client.call("session.attach", id=session_id, cols=size[0], rows=size[1])["attachment_id"]
        self.output = bytearray()

    def type(self, text: str) -> None:
        self.client.notify("session.input", attachment_id=self.id, data=encoded(text))

    def until(self, wanted: bytes) -> None:
        """Follow until some output has come."""
        while wanted not in self.output:
            notice = self.client.notice()
            if notice["method"] == "session.output":
                self.output += base64.b64decode(notice["params"]["data"])


class Poisoned:
    """A session whose program has printed a poison, and a neighbour."""

    def __init__(self, daemon: DaemonProcess, client: RawClient, at: RawClient, name: str) -> None:
        first, *steps = POISONS[name]
        assert isinstance(first, tuple)
        self.size = sum(len(step) for step in steps if isinstance(step, bytes))
        os.mkfifo(daemon.home / "printed")
        with (daemon.home / "printed").open("r+b", buffering=0) as printed:
            self.neighbour = start(client, "sh -c 'echo neighbour; exec cat'")
            self.id = create(client, f"{PROGRAM} '{name}'", cwd=str(daemon.home))
            client.call("session.rename", id=self.id, name="poisoned")
            client.call("session.start", id=self.id, cols=first[0], rows=first[1])
            self.listener = Listener(at, self.id, first)
            assert select.select([printed], [], [], PRINT_SECS)[0], "the program does not begin"
            printed.read(1)
            for step in steps:
                if isinstance(step, tuple):
                    at.call("session.resize", attachment_id=self.listener.id, cols=step[0], rows=step[1])
                else:
                    self.listener.type("\n")
                    assert select.select([printed], [], [], PRINT_SECS)[0], "the program does not go on"
                    printed.read(1)

    def print(self, client: RawClient, text: str) -> None:
        """Let the program print something at the top of its screen, and ask for that until it is there."""
        client.call("session.send", id=self.id, data=encoded(f"{text}\n"))
        if self.size < MAX_UNSENT_BYTES // 4:  # else output was dropped, since nobody read it meanwhile
            self.listener.until(text.encode() + b"\r\n")
        while text not in self.text(client):
            pass

    def text(self, client: RawClient) -> str:
        """Return the text of history and screen, without the borders of rows."""
        while (answer := client.request("session.screen", id=self.id, scrollback=True)).get("error"):
            assert answer["error"]["data"]["retryable"], answer  # a busy machine: it is being rebuilt
        return str(answer["result"]["data"]).replace("\n", "")


def neighbour_goes_on(daemon: DaemonProcess, session_id: str, text: str) -> None:
    """A neighbour's picture is drawn, its program echoes, and its screen shows that."""
    with daemon.client() as client:
        terminal = Terminal(client, session_id)
        terminal.follow_until("neighbour")
        terminal.type(f"{text}\n")
        terminal.follow_until(f"{text}\n{text}")
        assert text in client.call("session.screen", id=session_id)["data"]


@pytest.mark.parametrize("name", POISONS)
def test_others_are_not_touched(daemon: DaemonProcess, name: str) -> None:
    """Beside each poison sessions are answered and drawn, the next two starts too; its own program and screen go on."""
    journals = daemon.home / ".local" / "state" / "orbit" / "journal"
    with daemon.client() as client, daemon.client() as at:
        poisoned = Poisoned(daemon, client, at, name)
        neighbour_goes_on(daemon, poisoned.neighbour, "one")
        poisoned.print(client, "then")
        if poisoned.size < MAX_UNSENT_BYTES // 4 and len(POISONS[name]) == 2:  # else a repaint may stand for some of it
            assert POISONS[name][1] in poisoned.listener.output
        kept = list(journals.glob(f"{poisoned.id}.unreadable-*"))
        assert bool(kept) == (name in FATAL), daemon.log()
        if kept:
            assert poisoned.id in "\n".join(client.call("daemon.info")["warnings"])
            assert str(kept[0]) in Orbitctl(daemon.home)("doctor").text
    for text in ("two", "three"):
        with restarted(daemon) as client:
            assert client.call("session.get", id=poisoned.id)["live"]
            neighbour_goes_on(daemon, poisoned.neighbour, text)
            assert "then" in poisoned.text(client)
    with daemon.client() as client:
        client.call("session.send", id=poisoned.id, data=encoded("leave\n"))
        assert client.call("session.wait", id=poisoned.id)["exit_code"] == 3
        assert "then" in poisoned.text(client)
        client.call("session.delete", id=poisoned.id)
        assert client.call("daemon.info")["warnings"] == []
        client.call("session.delete", id=poisoned.id, purge=True)
        assert list(journals.glob(f"{poisoned.id}*")) == []


@pytest.mark.parametrize("how", ["leave", "session.terminate", "session.delete"])
def test_it_ends_while_its_picture_cannot_be_drawn(daemon: DaemonProcess, how: str) -> None:
    """A session whose picture holds up a screens process is listed, waited for, ended and deleted as any other."""
    with daemon.client() as client, daemon.client() as at, daemon.client() as ending:
        poisoned = Poisoned(daemon, client, at, FATAL[0])
        ending.socket.settimeout(60)
        if how == "leave":
            ending.call("session.send", id=poisoned.id, data=encoded("leave\n"))
            assert ending.call("session.wait", id=poisoned.id)["exit_code"] == 3
        else:
            ending.call(how, id=poisoned.id)
        neighbour_goes_on(daemon, poisoned.neighbour, "one")
        listed = {one["id"]: one for one in client.call("session.list")["sessions"]}
        if how == "session.delete":
            assert poisoned.id not in listed
        else:
            assert not client.call("session.get", id=poisoned.id)["live"]
            ending.call("session.delete", id=poisoned.id)
        ending.call("session.delete", id=poisoned.id, purge=True)
        assert list((daemon.home / ".local" / "state" / "orbit" / "journal").glob(f"{poisoned.id}*")) == []
