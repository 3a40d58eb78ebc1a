"""What an attached client does when the daemon, or the program, is not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest

from attach_support import DETACH, RUN_SHELL, SHELL, Window, settled
from ctl_support import Orbitctl
from live.sessions import keeper_of
from orbit_os.files import open_private, private_folder
from orbit_protocol.terminal_reset import RESET
from orbitctl.client.daemon import start_apart
from orbitctl.client.paths import ClientPaths
from support import DaemonProcess

pytestmark = pytest.mark.slow

REPAINT = RESET.decode()[-12:]
"""How the reset ends that each repaint begins with."""


def shell_pid(window: Window) -> str:
    window.type("echo pid=$$.\r")
    return window.until(rb"pid=(\d+)\.")[1].decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_restarts_is_found_again(
    own_ctl: Orbitctl, daemon: DaemonProcess, number: signal.Signals
) -> None:
    """The same program goes on under the same client, after a restart in good order and after kill -9."""
    with Window(own_ctl, *RUN_SHELL, ORBITCTL_NO_AUTOSTART="1") as window:
        settled(window)
        pid = shell_pid(window)
        daemon.stop(number)
        daemon.start()
        window.until(REPAINT)
        window.type("echo a''gain\r")
        window.until("again\r\n")
        assert shell_pid(window) == pid
        window.type(DETACH)
        assert window.end() == 0
        assert window.settings() == window.before


def test_a_daemon_that_died_is_started_again(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """Without a supervisor the client starts a new daemon in the place of one that was killed."""
    with Window(own_ctl, *RUN_SHELL) as window:
        settled(window)
        pid = shell_pid(window)
        daemon.kill()
        window.until(REPAINT)
        assert shell_pid(window) == pid


def test_a_client_without_a_runtime_folder_comes_back(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """It finds a daemon by the lock: one that goes on elsewhere, and the one that it starts after a kill."""
    run = daemon.home / "run"
    del own_ctl.environment["XDG_RUNTIME_DIR"]
    with Window(own_ctl, *RUN_SHELL) as window:
        settled(window)
        pid = shell_pid(window)
        shutil.rmtree(run)
        run.touch()
        assert shell_pid(window) == pid
        daemon.kill()
        window.until(REPAINT)
        assert shell_pid(window) == pid
    own_ctl.ok("daemon", "stop")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_that_was_ignored_at_the_start_does_not_end_the_client(own_ctl: Orbitctl, number: int) -> None:
    """Under nohup a SIGHUP means nothing, and the client stays attached."""
    ignore = (
        "import os, signal, sys; signal.signal(int(sys.argv[1]), signal.SIG_IGN); os.execv(sys.argv[2], sys.argv[2:])"
    )
    own_ctl.command = [sys.executable, "-c", ignore, str(int(number)), *own_ctl.command]
    with Window(own_ctl, *RUN_SHELL) as window:
        settled(window)
        window.process.send_signal(number)
        assert shell_pid(window)
        window.type(DETACH)
        assert window.end() == 0


def test_one_of_many_clients_starts_it(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """The windows of a daemon that was killed have one process between them that starts it, and all come back."""
    own_ctl.ok("session", "run", "-d", "--name", "web", "--", *SHELL)
    with contextlib.ExitStack() as stack:
        windows = [stack.enter_context(Window(own_ctl, "session", "attach", "web")) for _ in range(4)]
        for window in windows:
            settled(window)
        daemon.kill()
        for window in windows:
            window.until(REPAINT)
    log = own_ctl.home / ".local" / "state" / "orbit" / "orbitd.log"
    assert log.read_text().count(" serving ") == 1


@pytest.mark.parametrize("is_taken", [True, False])
def test_who_has_the_lock_starts_it(lonely: Orbitctl, monkeypatch: pytest.MonkeyPatch, is_taken: bool) -> None:
    """While a client has one started no process is made; else one is, also in a home that has no folder of ours yet."""
    for name, value in lonely.environment.items():
        monkeypatch.setenv(name, value)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def run(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", run)
    paths = ClientPaths(lonely.environment, None)
    with contextlib.ExitStack() as other:
        if is_taken:
            private_folder(paths.resolved.state_folder)
            lock = open_private(f"{paths.resolved.state_folder}/start.lock", os.O_RDWR | os.O_CREAT)
            other.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert start_apart(paths) is not is_taken
    monkeypatch.undo()
    assert len(started) == (0 if is_taken else 1)
    for process in started:
        assert os.waitpid(process.pid, 0)[1] == 0
        assert lonely.ok("status", "--no-autostart").code == 0


def test_a_daemon_that_was_stopped_is_waited_for(own_ctl: Orbitctl) -> None:
    """A daemon that somebody stopped is not started behind his back; the user is told, and can leave."""
    with Window(own_ctl, *RUN_SHELL) as window:
        settled(window)
        own_ctl.ok("daemon", "stop")
        window.screen_until("orbitd has gone; waiting for it, and keys are lost. C-\\ detaches.")
        assert own_ctl("--no-autostart", "session", "list").code == 3
        window.type(DETACH)
        assert window.end() == 0
        assert "[detached from web]" in window.screen()


def test_the_wait_for_a_daemon_has_an_end(own_ctl: Orbitctl) -> None:
    """A client gives up with exit code 3 when the daemon has not come back in time, and gives the terminal back."""
    own_ctl.ok("session", "run", "-d", "--name", "web", "--", *SHELL)
    with Window(own_ctl, "--timeout", "3", "session", "attach", "web") as window:
        settled(window)
        own_ctl.ok("daemon", "stop")
        assert window.end() == 3
        assert "the daemon has not come back within 3 s" in window.screen()
        assert window.settings() == window.before


def test_a_program_that_ended_meanwhile_is_told(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """Where the program ended while no daemon was there, the client says how it ended."""
    with Window(own_ctl, *RUN_SHELL, ORBITCTL_NO_AUTOSTART="1") as window:
        settled(window)
        pid = int(shell_pid(window))
        daemon.kill()
        ending = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        os.close(ending)
        daemon.start()
        assert window.end() == 128 + signal.SIGKILL
        assert "[web ended: SIGKILL]" in window.screen()
        assert window.settings() == window.before


def test_a_program_that_went_with_its_keeper_is_told(own_ctl: Orbitctl) -> None:
    """Where what kept the program is gone, nothing claims to run, and the next step is named."""
    with Window(own_ctl, *RUN_SHELL) as window:
        settled(window)
        os.kill(keeper_of(int(shell_pid(window))), signal.SIGKILL)
        assert window.end() == 1
        assert "web does not run any more" in window.screen()
    with Window(own_ctl, "session", "attach", "web", "--no-start") as window:
        assert window.end() == 5
        assert "does not run" in window.screen()
        assert "orbitctl session start web" in window.screen().replace("\n", "")
    with Window(own_ctl, "a", "web") as window:  # a shell comes back without a question
        window.screen_until("started again")
        settled(window)


def test_a_program_whose_keeper_does_not_answer_is_not_called_lost(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """An attached client waits for it and goes on; another one is told that what runs is not known now."""
    with Window(own_ctl, *RUN_SHELL, ORBITCTL_NO_AUTOSTART="1") as window:
        settled(window)
        pid = shell_pid(window)
        keeper = keeper_of(int(pid))
        daemon.kill()
        os.kill(keeper, signal.SIGSTOP)
        try:
            daemon.start()
            with Window(own_ctl, "session", "attach", "web", size=(200, 24)) as other:
                assert other.end() == 1
                assert f"not available now: the keeper (pid {keeper}) does not answer" in other.screen()
        finally:
            os.kill(keeper, signal.SIGCONT)
        window.until(REPAINT)
        assert shell_pid(window) == pid


def test_what_never_ran_here_says_what_would(ctl: Orbitctl) -> None:
    """Attaching to a session that is only recorded names `start`, and the application that hosts it."""
    ctl.ok("session", "create", "--name", "hosted")
    with Window(ctl, "session", "attach", "hosted", size=(200, 24)) as window:
        assert window.end() == 5
        assert "another application hosts it" in window.screen()
        assert "orbitctl session start hosted" in window.screen()


def test_what_has_ended_says_so(ctl: Orbitctl) -> None:
    """With --no-start, a session whose program has ended is refused; its screen is named, and how to run it again."""
    ctl.ok("session", "run", "-d", "--name", "web", "--", "sh", "-c", "echo bye; exit 4")
    ctl.ok("session", "wait", "web")
    with Window(ctl, "session", "attach", "web", "--no-start", size=(200, 24)) as window:
        assert window.end() == 5
        assert "has ended: exit 4" in window.screen()
        assert "orbitctl session screen web" in window.screen()
    assert "bye" in ctl.ok("session", "screen", "web").text


def test_a_program_is_started_again_under_its_screen(ctl: Orbitctl) -> None:
    """`start` runs an ended program again; its old screen stands above."""
    ctl.ok("session", "run", "-d", "--name", "web", "--", *SHELL)
    ctl.ok("session", "send", "web", "echo be''fore; exit", "--enter")
    ctl.ok("session", "wait", "web")
    assert ctl.ok("session", "start", "web", "--json").json["live"] is True
    with Window(ctl, "session", "attach", "web") as window:
        settled(window)
        assert "before" in window.screen()
    assert ctl("session", "start", "web").code == 5
