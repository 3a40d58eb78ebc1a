"""A person at a session: run, type, look, resize, leave, come back; the terminal is given back each time."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from attach_support import DETACH, RUN_SHELL, SHELL, Window, settled
from ctl_support import Orbitctl
from support import WAIT_SECS


def at_shell(ctl: Orbitctl) -> None:
    """Start a session named web with a shell in it."""
    ctl.ok("session", "run", "--detach", "--name", "web", "--", *SHELL)


def test_a_session_is_run_left_and_found_again(ctl: Orbitctl) -> None:
    """Detaching leaves the program as it is, and attaching from a new terminal shows its screen."""
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        window.type("mark=4711; echo $$\r")
        pid = window.until(rb"[\r\n](\d+)\r\n")[1].decode()
        window.type(DETACH)
        assert window.end() == 0
        assert window.output.endswith(b"[detached from web]\r\n")
    listed = ctl.ok("session", "list").lines
    assert re.split(" {2,}", listed[1])[6:9] == ["live", "80x24", "0"]
    assert Path(f"/proc/{pid}").exists()
    with Window(ctl, "session", "attach", "web") as window:
        window.screen_until(pid)
        window.type("echo mark=$mark\r")
        window.until("mark=4711")


@pytest.mark.parametrize(
    ("script", "code", "said"),
    [("read x; exit 7", 7, "exit 7"), ("read x; exit 0", 0, "exit 0"), ("read x; kill -TERM $$", 143, "SIGTERM")],
)
def test_the_exit_code_of_run_is_the_programs(ctl: Orbitctl, script: str, code: int, said: str) -> None:
    """An attached run ends as its program did, as a shell would tell it."""
    with Window(ctl, "session", "run", "--name", "web", "--", "sh", "-c", f"echo here; {script}") as window:
        window.until("here")
        window.type("\r")
        assert window.end() == code
        assert f"[web ended: {said}]" in window.screen()
        assert window.settings() == window.before


def test_a_program_that_ends_at_once_is_seen(ctl: Orbitctl) -> None:
    """What a quick program printed is shown, and its exit code told, even where it was quicker than the attach."""
    with Window(ctl, "session", "run", "--", "sh", "-c", "echo quick; exit 3") as window:
        assert window.end() == 3
        assert "quick" in window.screen()


def test_what_cannot_be_started_leaves_nothing_behind(ctl: Orbitctl) -> None:
    """A program that cannot be executed is told with errno's words, and no session is left."""
    ended = ctl("session", "run", "--detach", "--", "/nowhere/at/all")
    assert ended.code == 1
    assert "/nowhere/at/all: No such file or directory" in ended.err
    with Window(ctl, "session", "run", "--", "/nowhere/at/all") as window:
        assert window.end() == 1
        assert window.settings() == window.before
    assert ctl.ok("session", "list", "--status", "all", "-q").text == ""


def test_the_program_has_the_users_folder_and_environment(ctl: Orbitctl) -> None:
    """`run` starts in the folder that it was called in, with the caller's variables, but not those of his window."""
    script = "pwd; echo $ORBIT_SESSION $MINE $TERM $TERM_PROGRAM- $SHLVL; read x"
    with Window(ctl, "session", "run", "--", "bash", "-c", script, MINE="mine", TERM_PROGRAM="x", SHLVL="5") as window:
        window.until(str(ctl.home))
        session = ctl.ok("session", "list", "-q").text.strip()
        window.until(f"{session} mine xterm-256color - 1")


def test_the_window_size_is_followed(ctl: Orbitctl) -> None:
    """The program has the size of the window that looks at it, and hears of every change."""
    with Window(ctl, *RUN_SHELL, size=(90, 30)) as window:
        settled(window)
        window.type("stty size\r")
        window.until("30 90")
        window.type("trap 'echo winch; stty size' WINCH\r")
        settled(window)
        window.until(rb"[#$] ")  # the prompt: a signal that comes before readline handles it runs no trap
        window.resize(100, 20)
        window.until("20 100")
    with Window(ctl, "session", "attach", "web", size=(70, 15)) as window:
        window.type("stty size\r")
        window.until("15 70")


WILD = r"printf '\e[?1049h\e[?1000h\e[?1006h\e[?2004h\e[?25l\e[>1u\e[4h\e[2;5r\e]11;rgb:1/2/3\e\\wi''ld'; read x"


@pytest.mark.parametrize("end", ["detach", "TERM", "HUP", "INT", "daemon"])
def test_the_terminal_is_given_back(request: pytest.FixtureRequest, end: str) -> None:
    """Settings and modes are as before, however the client comes to its end, whatever the program had done."""
    ctl = request.getfixturevalue("own_ctl" if end == "daemon" else "ctl")
    with Window(ctl, *RUN_SHELL, ORBITCTL_NO_AUTOSTART="1") as window:
        fresh = window.emulator.modes()
        settled(window)
        assert window.settings() != window.before
        window.type(f"{WILD}\r")
        window.until("wild")
        if end in ("TERM", "HUP", "INT"):
            window.process.send_signal(signal.Signals[f"SIG{end}"])
        elif end == "daemon":
            ctl.ok("daemon", "stop")
            window.until("orbitd has gone")
            window.type(DETACH)
        else:
            window.type(DETACH)
        wanted = 128 + signal.Signals[f"SIG{end}"] if end in ("TERM", "HUP", "INT") else 0
        assert window.end() == wanted
        assert window.settings() == window.before
        assert window.emulator.modes() == fresh
        assert not window.emulator.alternate
        assert b"\x1b]111\x1b\\" in window.output
        assert "[detached from web]" in window.screen()
        assert "ready" in window.screen()


def test_a_stopped_client_gives_the_terminal_back_until_it_goes_on(ctl: Orbitctl) -> None:
    """SIGTSTP from outside restores the terminal; SIGCONT makes it raw and draws the screen anew."""
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        raw = window.settings()
        window.process.send_signal(signal.SIGTSTP)
        window.until("\x1b[23;0t")
        os.waitid(os.P_PID, window.process.pid, os.WSTOPPED)
        assert window.settings() == window.before
        window.process.send_signal(signal.SIGCONT)
        window.until("ready")
        settled(window)
        assert window.settings() == raw


def test_a_window_that_is_closed_detaches(ctl: Orbitctl) -> None:
    """When the terminal goes away the client ends by SIGHUP, quietly, and the program goes on."""
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        window.vanish()
        assert window.process.wait(WAIT_SECS) == 128 + signal.SIGHUP
    assert ctl.ok("session", "show", "web", "--json").json["live"] is True


def test_ctrl_z_and_ctrl_c_are_the_programs(ctl: Orbitctl) -> None:
    """Keys that would stop or interrupt the client stop and interrupt what runs in the session."""
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        window.type("sh -c 'echo st''arted; exec cat'\r")
        window.until("started")
        window.type(b"\x1a")
        window.until("Stopped")
        window.until(rb"[#$] ")  # the shell reads again; `#` is root's prompt
        window.type("fg\r")
        window.until("exec cat'\r\n")  # what fg has put in front
        window.type("on again\n")
        window.until("on again\r\non again\r\n")
        window.type(b"\x03")
        window.until("^C")
        window.until(rb"[#$] ")  # what is typed before the shell reads again may be flushed with what ^C interrupts
        settled(window)


def test_a_reader_only_looks(ctl: Orbitctl) -> None:
    """--read-only shows everything, types nothing and changes no size; the detach key works."""
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        with Window(ctl, "session", "attach", "web", "--read-only", size=(120, 40)) as reader:
            reader.until("ready")
            reader.type("echo reader was here\r")
            window.type("echo writer; stty size\r")
            reader.until("24 80")
            reader.type(DETACH)
            assert reader.end() == 0
            assert b"reader was here" not in reader.output
        settled(window)
        assert b"reader was here" not in window.output


def test_two_clients_see_the_same(ctl: Orbitctl) -> None:
    """Both type and both see it; the one that types has the size, and the other is sent frames."""
    with Window(ctl, *RUN_SHELL) as one:
        settled(one)
        with Window(ctl, "session", "attach", "web", size=(60, 20)) as two:
            two.until("ready")
            two.type("echo from two; stty size\r")
            one.until("20 60")
            one.type("echo from o''ne\r")
            two.screen_until("\nfrom one\n")
            assert ctl.ok("session", "show", "web", "--json").json["clients"] == 2
            two.type(DETACH)
            assert two.end() == 0
        one.type("stty size\r")
        one.until("24 80")


def test_windows_of_two_sizes(ctl: Orbitctl) -> None:
    """Who types has the size; the other window shows the part around the cursor, and its rows as they are."""
    at_shell(ctl)
    with Window(ctl, "session", "attach", "web", size=(100, 30)) as large:
        settled(large)
        large.type("PS1='> '; clear; seq 100; stty size\r")
        large.screen_until("\n30 100\n")
        with Window(ctl, "session", "attach", "web", size=(40, 10)) as small:
            small.screen_until("\n>\n")
            small.type("stty size\r")
            small.screen_until("\n10 40\n")
            large.screen_until("\n10 40\n")
            assert "\n30 100\n" in large.screen()  # a larger window has room for all of it
            large.type("clear; seq 200 228; printf '\\e[30;90Hcorner'; read x; stty size\r")
            large.screen_until("corner")
            shown = small.screen_until("corner").splitlines()
            assert [line.rstrip() for line in shown] == [*[""] * 9, f"{'corner':>39}"]
            large.type("\r")
            assert large.screen_until("\n30 100\n")
            small.screen_until("30 100\n")
            small.type(DETACH)
            assert small.end() == 0
            assert small.settings() == small.before


def test_everybody_is_put_off_by_session_detach(ctl: Orbitctl) -> None:
    """`session detach` elsewhere ends every client and says so; the program goes on."""
    with Window(ctl, *RUN_SHELL) as window:
        settled(window)
        ctl.ok("session", "detach", "web")
        assert window.end() == 0
        assert "[web was detached from elsewhere]" in window.screen()
        assert window.settings() == window.before
    assert ctl.ok("session", "show", "web", "--json").json["live"] is True


@pytest.mark.parametrize("words", [["session", "attach", "web"], ["session", "run"]])
def test_without_a_terminal_there_is_no_attach(ctl: Orbitctl, words: list[str]) -> None:
    """In a pipe, attach and run say what to do in their place, and start nothing."""
    ended = ctl(*words)
    assert ended.code == 2
    assert "needs a terminal" in ended.err
    assert ctl.ok("session", "list", "-q").text == ""


@pytest.mark.parametrize(
    ("option", "typed"),
    [
        (None, [b"\x1c"]),
        (None, [b"\x1b[92;5u"]),
        (None, [b"\x1b[92", b";5u"]),
        (None, [b"\x1b[27;5;92~"]),
        ("^q", [b"\x11"]),
        ("C-a d", [b"\x01d"]),
        ("C-a d", [b"\x01", b"d"]),
        ("M-q", [b"\x1bq"]),
    ],
)
def test_the_detach_key_detaches(ctl: Orbitctl, option: str | None, typed: list[bytes]) -> None:
    """The key is the one asked for, in every encoding that a program can ask for, also cut in two."""
    chosen = ["--detach-key", option] if option else []
    at_shell(ctl)
    with Window(ctl, "session", "attach", "web", *chosen) as window:
        settled(window)
        for piece in typed:
            window.type(piece)
        assert window.end() == 0
        assert "[detached from web]" in window.screen()


def test_a_detach_key_that_is_none_is_a_usage_error(ctl: Orbitctl) -> None:
    """A key that is a key for typing is refused before anything happens."""
    with Window(ctl, "session", "attach", "web", "--detach-key", "d") as window:
        assert window.end() == 2
        assert "a key for typing" in window.screen()


@pytest.mark.parametrize("with_socket", [False, True])
def test_the_detach_key_of_the_configuration_is_the_default(ctl: Orbitctl, with_socket: bool) -> None:
    """`[client] detach_key` changes the key, also where the socket is named; what is no key is an error."""
    at_shell(ctl)
    config = ctl.home / "orbit" / "config.toml"
    config.parent.mkdir()
    environment = {"XDG_CONFIG_HOME": str(ctl.home)}
    if with_socket:
        environment["ORBITD_SOCKET"] = f"{ctl.environment['XDG_RUNTIME_DIR']}/orbit/orbitd.sock"
    config.write_text("[client]\ndetach_key = '^q'\n")
    with Window(ctl, "a", "web", **environment) as window:
        settled(window)
        window.type(b"\x11")
        assert window.end() == 0
    config.write_text("[client]\ndetach_key = 'd'\n")
    checked = ctl("config", "check", **environment)
    assert (checked.code, "`client.detach_key`" in checked.err) == (2, True)
    with Window(ctl, "a", "web", **environment) as window:
        assert window.end() == 2
        assert "`client.detach_key`" in window.screen()


def test_the_detach_key_of_the_environment_is_the_default(ctl: Orbitctl) -> None:
    """ORBITCTL_DETACH_KEY changes the key, and the usual one goes to the program."""
    at_shell(ctl)
    with Window(ctl, "session", "attach", "web", ORBITCTL_DETACH_KEY="^q") as window:
        settled(window)
        window.type("sh -c 'echo st''arted; exec cat'\r")
        window.until("started")
        window.type(b"\x1c")
        window.until("^\\")
        window.type(b"\x11")
        assert window.end() == 0
