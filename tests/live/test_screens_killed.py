"""Screens processes that are killed, stopped or starved at random moments: every picture is whole afterwards."""

from __future__ import annotations

import base64
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from live.programs import PROGRAMS, SHOW, prepare, recorded
from live.screens_processes import children, screens_processes, template, wait_for_template
from live.sessions import Terminal, create, kill, recorded_history, recorded_screen, restarted, start, wait_for_end
from live.test_real_programs import differences
from live_support import encoded
from needs import needs
from support import DaemonProcess, RawClient
from terminal_support import shown

pytestmark = [pytest.mark.slow, needs(linux=True)]

STORMS = 2
FAULTS = {"killed": 6, "stopped": 1, "starved": 3, "template killed": 2, "killed, and orbitd": 4}
LONG_SECS = 90.0
"""A process that is stopped in the middle of a piece is given 30 seconds of wall time for it."""


def kill_one(daemon: DaemonProcess, dice: random.Random) -> None:
    """Kill a screens process, if there is one."""
    if found := screens_processes(daemon):
        kill(dice.choice(found))


def stop_one(daemon: DaemonProcess, dice: random.Random) -> None:
    """Stop a screens process for good."""
    if found := screens_processes(daemon):
        os.kill(dice.choice(found), signal.SIGSTOP)


def starve_one(daemon: DaemonProcess, dice: random.Random) -> None:
    """Allow a screens process no more memory than it has."""
    if found := screens_processes(daemon):
        pid, least = dice.choice(found), dice.choice((1 << 20, 40 << 20))
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        limit = least if hard == resource.RLIM_INFINITY else min(least, hard)  # it may not be raised again
        resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


def kill_template(daemon: DaemonProcess, dice: random.Random) -> None:
    """Kill the template; its forks do not end with it."""
    kill(wait_for_template(daemon))


def kill_both(daemon: DaemonProcess, dice: random.Random) -> None:
    """Kill a screens process and then the daemon, which starts again."""
    kill_one(daemon, dice)
    restarted(daemon).close()


FAULTS_BY_NAME: dict[str, Callable[[DaemonProcess, random.Random], None]] = {
    "killed": kill_one,
    "stopped": stop_one,
    "starved": starve_one,
    "template killed": kill_template,
    "killed, and orbitd": kill_both,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS_BY_NAME)
def test_storms_come_through(daemon: DaemonProcess, home: Path, fault: str) -> None:
    """Programs that draw all over their screens end, after faults at random moments, as in an unbroken run."""
    dice = random.Random(fault)
    logs = [home / f"storm-{seed}" for seed in range(STORMS)]
    with daemon.client() as client:
        ids = [start(client, recorded(f"{SHOW} storm {seed}", log)) for seed, log in enumerate(logs)]
    for _ in range(FAULTS[fault]):
        with daemon.client() as client:
            client.socket.settimeout(LONG_SECS)
            terminal = Terminal(client, dice.choice(ids))
            for _ in range(dice.randrange(1, 20)):
                if "shown" not in terminal.text():
                    terminal.step()
            FAULTS_BY_NAME[fault](daemon, dice)
    for session_id, log in zip(ids, logs, strict=True):
        with daemon.client() as client:
            client.socket.settimeout(LONG_SECS)
            terminal = Terminal(client, session_id)
            terminal.follow_until("shown")
            assert shown(terminal.emulator.dump()) == recorded_screen(log)
        with daemon.client() as client:
            client.socket.settimeout(LONG_SECS)
            while "error" in (answer := client.request("session.screen", id=session_id, scrollback=True)):
                assert answer["error"]["data"]["retryable"], answer
            assert answer["result"]["data"] == recorded_history(log)
            client.call("maintenance.auto_save")
            assert client.call("daemon.info")["warnings"] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["killed", "starved", "killed, and orbitd"])
def test_real_programs_come_through(daemon: DaemonProcess, home: Path, fault: str) -> None:
    """Real programs, typed into while their screens process is lost, are drawn as a terminal that saw everything."""
    dice = random.Random(fault)
    prepare(home)
    names = [
        name for name in PROGRAMS if shutil.which(PROGRAMS[name].command.split()[0]) and name not in ("htop", "tmux")
    ]
    logs = {name: home / f"{name.replace(' ', '-')}.log" for name in names}
    ids = {}
    with daemon.client() as client:
        for name in names:
            command = recorded(PROGRAMS[name].command, logs[name])
            ids[name] = create(client, command, cwd=str(home), env=PROGRAMS[name].env)
            client.call("session.start", id=ids[name])
    for name in names:
        for wanted, keys in PROGRAMS[name].steps:
            with daemon.client() as client:
                client.socket.settimeout(LONG_SECS)
                terminal = Terminal(client, ids[name])
                terminal.follow_until(wanted)
                # Answered: what was only sent may be lost with orbitd.
                client.call("session.input", attachment_id=terminal.id, data=encoded(keys))
            if dice.random() < 0.4:
                FAULTS_BY_NAME[fault](daemon, dice)
    assert [found for name in names if (found := difference(daemon, ids[name], logs[name]))] == []


def difference(daemon: DaemonProcess, session_id: str, log: Path) -> str:
    """Attach with a fresh terminal; return what is not as on one that has seen everything, "" where all is."""
    with daemon.client() as client:
        terminal = Terminal(client, session_id)
        try:
            while (found := shown(terminal.emulator.dump())) != (wanted := recorded_screen(log)):
                terminal.step()
        except TimeoutError:
            return f"{log.name}:\n{differences(found, wanted)}"
    return ""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["nothing", "killed", "template killed", "stopped"])
def test_the_last_words_are_saved(daemon: DaemonProcess, fault: str) -> None:
    """What a program prints last is in its last snapshot, whatever else goes on while it ends."""
    dice = random.Random(fault)
    program = "sh -c 'seq 20000; echo painted; read x; seq 3000; echo LAST WORDS'"
    for _ in range(1 if fault == "stopped" else 3):
        with daemon.client() as client, daemon.client() as looker, daemon.client() as saver:
            for each in (client, looker, saver):
                each.socket.settimeout(LONG_SECS)
            session_id = start(client, program)
            with daemon.client() as at:
                Terminal(at, session_id).follow_until("painted")
            looker.send(_request("session.screen", f'"id":"{session_id}","format":"html","scrollback":true'))
            saver.send(_request("maintenance.auto_save", ""))
            client.call("session.send", id=session_id, data=encoded("\n"))
            if fault != "nothing":
                FAULTS_BY_NAME[fault](daemon, dice)
            assert client.call("session.wait", id=session_id)["exit_code"] == 0
            # A picture that cannot be had at once is saved later: a stopped process has 30 seconds for its piece.
            end = time.monotonic() + LONG_SECS
            while b"LAST WORDS" not in base64.b64decode(_latest(client, session_id)):
                assert time.monotonic() < end
            assert "LAST WORDS" in client.call("session.screen", id=session_id, scrollback=True)["data"]
            client.call("session.delete", id=session_id)


def _latest(client: RawClient, session_id: str) -> str:
    """Return the screen of a session's newest snapshot, in base64."""
    return str((client.call("snapshot.latest", session_id=session_id) or {"terminal_buffer": ""})["terminal_buffer"])


def _request(method: str, params: str) -> bytes:
    return f'{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{{{params}}}}}'.encode()


def test_they_end_with_the_daemon(daemon: DaemonProcess) -> None:
    """Template and screens processes end when orbitd is killed, also those that are stopped."""
    with daemon.client() as client:
        session_id = start(client, "sh -c 'echo here; exec cat'")
        Terminal(client, session_id).follow_until("here")
    (process,) = screens_processes(daemon)
    loader = template(daemon)
    os.kill(process, signal.SIGSTOP)
    daemon.kill()
    wait_for_end(process)
    wait_for_end(loader)


def test_a_template_is_replaced(daemon: DaemonProcess) -> None:
    """Pictures live on when the template is killed; a new one forks the processes that come later."""
    with daemon.client() as client:
        session_id = start(client, "sh -c 'echo here; exec cat'")
        Terminal(client, session_id).follow_until("here")
        (process,) = screens_processes(daemon)
        before = template(daemon)
        kill(before)
        assert "here" in client.call("session.screen", id=session_id)["data"]
        after = wait_for_template(daemon)
        assert after != before
        kill(process)
        assert "here" in client.call("session.screen", id=session_id)["data"]
        assert children(after) != []
