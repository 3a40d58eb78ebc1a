"""Nothing waits for a picture but who asked for it, and a screens process has nothing, and is nothing, unasked."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from live.programs import SHOW, recorded
from live.screens_processes import descriptors, process_of, screens_processes, template, wait_for_template
from live.sessions import Terminal, create, recorded_screen, restarted, saved_screen, start
from live_support import encoded
from needs import needs
from support import WAIT_SECS, DaemonProcess, RawClient
from terminal_support import shown

pytestmark = needs(linux=True)

SESSIONS = 30


def journal(daemon: DaemonProcess, session_id: str) -> Path:
    return daemon.home / ".local" / "state" / "orbit" / "journal" / session_id


def has_answer(client: RawClient) -> bool:
    return bool(select.select([client.socket], [], [], 0)[0])


def test_nobody_waits_for_a_picture(daemon: DaemonProcess, client: RawClient) -> None:
    """While no picture can be drawn at all, programs are started, typed into, resized, listed and ended as ever."""
    session_id = start(client, "sh -c 'seq 20000; echo painted; exec cat'")
    with daemon.client() as at, daemon.client() as looker:
        terminal = Terminal(at, session_id)
        terminal.follow_until("painted")
        stopped = [wait_for_template(daemon), *screens_processes(daemon)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            params = f'{{"id":"{session_id}","format":"html","scrollback":true}}'
            looker.send(f'{{"jsonrpc":"2.0","id":1,"method":"session.screen","params":{params}}}'.encode())
            client.call("daemon.ping")
            terminal.type("typed\n")
            terminal.follow_until("typed\ntyped")
            at.call("session.resize", attachment_id=terminal.id, cols=100, rows=30)
            other = start(client, "sh -c 'read x; exit 4'")
            assert len(client.call("session.list")["sessions"]) == 2
            client.call("session.send", id=other, data=encoded("\n"))
            assert client.call("session.wait", id=other)["exit_code"] == 4
            assert not has_answer(looker)
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):  # one that answers nothing for long is replaced
                    os.kill(pid, signal.SIGCONT)
        assert "painted" in looker.read_line().decode()


def test_a_ping_overtakes_a_long_picture(shared_daemon: DaemonProcess, shared_client: RawClient) -> None:
    """A ping that is sent after a request for 10,000 lines as HTML is answered before it, also on one connection."""
    session_id = start(shared_client, "sh -c 'seq 12000; echo painted; exec cat'")
    with shared_daemon.client() as at:
        Terminal(at, session_id).follow_until("painted")
        params = f'{{"id":"{session_id}","format":"html","scrollback":true}}'
        screen = f'{{"jsonrpc":"2.0","id":"screen","method":"session.screen","params":{params}}}'
        shared_client.send(f'{screen}\n{{"jsonrpc":"2.0","id":"ping","method":"daemon.ping","params":{{}}}}'.encode())
        assert b'"id":"ping"' in shared_client.read_line()
        assert b'"id":"screen"' in shared_client.read_line()


def test_it_has_nothing_else_open(daemon: DaemonProcess, client: RawClient) -> None:
    """A screens process has its socket, its note, its own memory's figures and journals to read, and dumps no core."""
    with daemon.client() as one, daemon.client() as two:
        ids = [start(client, f"{SHOW} storm {seed}") for seed in range(2)]
        for each, session_id in zip((one, two), ids, strict=True):
            Terminal(each, session_id).follow_until("shown")
        journals = {str(journal(daemon, session_id)) for session_id in ids}
        followed = set()
        for process in screens_processes(daemon):
            found = descriptors(process)
            assert {path for fd, path in found.items() if fd < 3} == {os.devnull}
            kinds = sorted(_kind(path, journals) for fd, path in found.items() if fd > 2)
            assert [kind for kind in kinds if kind != "journal"] == ["note", "own memory", "socket"]
            for fd, path in found.items():
                if path in journals:
                    followed.add(path)
                    flags = Path(f"/proc/{process}/fdinfo/{fd}").read_text().partition("flags:")[2].split()[0]
                    assert int(flags, 8) & os.O_ACCMODE == os.O_RDONLY
            limits = Path(f"/proc/{process}/limits").read_text()
            assert re.search(r"Max core file size\s+0\s+0", limits)
        assert followed == journals


def _kind(path: str, journals: set[str]) -> str:
    """Return what a descriptor leads to, as far as it may be open."""
    if path in journals:
        return "journal"
    expected = {r"socket:.*": "socket", r"/memfd:orbit-note.*": "note", r"/proc/\d+/statm": "own memory"}
    return next((kind for pattern, kind in expected.items() if re.fullmatch(pattern, path)), path)


@pytest.mark.slow
def test_nothing_is_drawn_unasked(daemon: DaemonProcess) -> None:
    """A start with thirty live sessions forks no screens process before somebody looks at one of them."""
    with daemon.client() as client:
        ids = [start(client, f"sh -c 'echo session {number}; exec cat'") for number in range(SESSIONS)]
        for number, session_id in enumerate(ids):
            with daemon.client() as at:
                Terminal(at, session_id).follow_until(f"session {number}")
    with restarted(daemon) as client:
        assert len(client.call("session.list")["sessions"]) == SESSIONS
        assert all(client.call("session.get", id=session_id)["live"] for session_id in ids)
        client.call("daemon.info")
        loader = wait_for_template(daemon)
        assert screens_processes(daemon) == []
        assert "session 7" in client.call("session.screen", id=ids[7])["data"]
        assert template(daemon) == loader
        (process,) = screens_processes(daemon)
        assert [path for path in descriptors(process).values() if "/journal/" in path] == [str(journal(daemon, ids[7]))]


@pytest.mark.slow
def test_a_quiet_session_has_no_emulator(daemon: DaemonProcess, home: Path) -> None:
    """Once it is saved, and has had no client and no output for a while, its emulator is freed; it comes back equal."""
    log = home / "modes.log"
    with daemon.client() as client:
        with daemon.client() as at:
            session_id = create(client, recorded(f"{SHOW} modes", log))
            client.call("session.start", id=session_id)
            Terminal(at, session_id).follow_until("shown")
            process = process_of(daemon, session_id)
            assert client.call("stats.get")["scrollback_bytes"] > 0
        client.call("maintenance.auto_save")
        end = time.monotonic() + 3 * WAIT_SECS  # it is freed ten seconds after the save
        while any(path.startswith(str(journal(daemon, session_id))) for path in descriptors(process).values()):
            assert time.monotonic() < end, "it is not closed"
            client.call("daemon.ping")
        assert client.call("stats.get")["scrollback_bytes"] == 0
        assert saved_screen(client, session_id) == recorded_screen(log)
        with daemon.client() as at:
            terminal = Terminal(at, session_id)
            assert shown(terminal.emulator.dump()) == recorded_screen(log)


def cut(path: Path) -> None:
    """Leave nothing of a file."""
    os.truncate(path, 0)


def zero(path: Path) -> None:
    """Leave nothing but zeros of a file."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("harm", [cut, zero])
def test_a_journal_that_is_harmed_harms_no_session(daemon: DaemonProcess, client: RawClient, harm: Any) -> None:
    """The program goes on under a journal that somebody empties; later output is drawn, and the damage is told."""
    with daemon.client() as at, daemon.client() as third:
        other = start(client, "cat")
        beside = Terminal(third, other)
        terminal = Terminal(at, start(client, "cat"))
        session_id = terminal.session["id"]
        terminal.type("before\n")
        terminal.follow_until("before\nbefore")
        harm(journal(daemon, session_id))
        for number in range(3):
            terminal.type(f"after {number}\n")
            terminal.follow_until(f"after {number}\nafter {number}")
        assert "after 2\nafter 2" in client.call("session.screen", id=session_id)["data"]
        beside.type("beside\n")
        beside.follow_until("beside\nbeside")
    with restarted(daemon) as client:
        assert client.call("session.get", id=session_id)["live"]
        assert "after 2\nafter 2" in client.call("session.screen", id=session_id)["data"]
        client.call("session.send", id=session_id, data=encoded("again\n"))
        with daemon.client() as at:
            Terminal(at, session_id).follow_until("again\nagain")
        assert "journal damaged" in daemon.log() or "journal" in "\n".join(client.call("daemon.info")["warnings"])
        assert "beside" in client.call("session.screen", id=other)["data"]
