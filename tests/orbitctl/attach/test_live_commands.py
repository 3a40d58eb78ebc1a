"""`session send|screen|wait|signal|start`, and the list that shows what runs."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attach_support import LateReader, Window
from ctl_support import Orbitctl, Peer, read_line
from live.sessions import keeper_of
from orbit_protocol.errors import Busy, Cancelled, OrbitError, ShuttingDown
from orbit_protocol.jsonrpc import encode_error, encode_result
from orbitctl.commands.doctor_checks import lingering
from support import WAIT_SECS, DaemonProcess

CAT = ("session", "run", "--detach", "--name", "web", "--")


def shown(ctl: Orbitctl, program: str, wanted: str) -> None:
    """Attach until the session shows something; what is sent before is not typed into nothing."""
    with Window(ctl, "session", "attach", program, "--read-only") as window:
        window.screen_until(wanted)


def test_run_detached_prints_the_session(ctl: Orbitctl) -> None:
    """--detach prints a row, -q the id, and --json the result of the start."""
    row = ctl.ok(*CAT, "cat").lines[1]
    assert re.split(" {2,}", row)[1:3] == ["web", "detached"]
    found = ctl.ok("-q", "session", "run", "-d", "cat").text.strip()
    assert ctl.ok("session", "show", found, "--json").json["live"] is True
    assert ctl.ok("--json", "session", "run", "-d", "cat").json["live"] is True


def test_options_of_a_new_session_are_kept(ctl: Orbitctl) -> None:
    """--cwd, --env and --restart go into the session's config; without --cwd, `create` names no folder."""
    config = ctl.ok("--json", "session", "create", "--cwd", "/", "--env", "A=b=c", "--restart", "cat").json["config"]
    assert (config["cwd"], config["env"], config["restart"]) == ("/", {"A": "b=c"}, True)
    assert ctl.ok("--json", "session", "create").json["config"]["cwd"] is None
    assert ctl("session", "create", "--env", "nothing").code == 2
    assert ctl("session", "create", "--reconnect").code == 2


def test_send_types_text_keys_and_enter(ctl: Orbitctl) -> None:
    """Text is joined by blanks, keys follow it, Enter comes last."""
    ctl.ok(*CAT, "cat", "-v")
    assert ctl.ok("session", "send", "web", "hello", "world", "--key", "C-v", "--key", "Esc", "--enter").text == ""
    shown(ctl, "web", "hello world^[")
    ctl.ok("session", "send", "web", "-", stdin="von stdin é\n".encode())
    shown(ctl, "web", "von stdin")
    found = ctl.ok("session", "show", "web", "-q").text
    assert ctl.ok("-q", "session", "send", "web", "x").text == found
    assert ctl.ok("--json", "session", "send", "web", "x").json == {}


def test_cursor_keys_are_sent_as_the_program_wants_them(ctl: Orbitctl) -> None:
    """Up is ESC [ A, and ESC O A once the program has asked for application keys."""
    ctl.ok("session", "run", "-d", "--name", "app", "--", "bash", "-c", r"printf '\e[?1happ'; exec cat -v")
    shown(ctl, "app", "app")
    ctl.ok("session", "send", "app", "--key", "Up", "--enter")
    shown(ctl, "app", "^[OA")
    assert ctl.ok("session", "show", "app", "--json").json["live"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["send", "web"], "give a TEXT, --key or --enter"),
        (["send", "web", "--key", "nokey"], "'nokey' is no key"),
        (["send", "web", "--key", "C-pageupp"], "did you mean C-PageUp?"),
        (["signal", "web", "NOSUCH"], "'NOSUCH' is no signal; TERM, INT, HUP, 15 and RTMIN+1 are, for example"),
        (["signal", "web", "sigtermm"], "did you mean TERM?"),
        (["signal", "web", "0"], "'0' is no signal"),
        (["signal", "web", "65"], "'65' is no signal"),
        (["screen", "web", "--format", "png"], "Invalid value for '--format'"),
        (["screen", "web", "--lines", "-1"], "Invalid value for '--lines'"),
        (["wait", "web", "--for", "text"], "--for text needs a PATTERN"),
        (["wait", "web", "Listening"], "--for text needs a PATTERN, and nothing else takes one"),
        (["wait", "web", "--silence", "3"], "--silence is for --for silence"),
        (["wait", "web", "--for", "silence", "--silence", "nan"], "nan is no number of seconds"),
        (["wait", "web", "--for", "silence", "--silence", "inf"], "inf is no number of seconds"),
    ],
)
def test_what_is_typed_wrong_is_a_usage_error(ctl: Orbitctl, words: list[str], said: str) -> None:
    """The message names what is wrong, with exit code 2."""
    ended = ctl("session", *words)
    assert ended.code == 2
    assert said in ended.err


def test_the_screen_comes_in_four_formats(ctl: Orbitctl) -> None:
    """Text without styles, VT bytes with them, HTML and SVG in a theme's colours; and --json is the result."""
    ctl.ok(*CAT, "sh", "-c", r"printf '\033[31mred\033[m\n'; read x")
    shown(ctl, "web", "red")
    assert ctl.ok("session", "screen", "web").lines[0] == "red"
    vt = ctl.ok("session", "screen", "web", "--format", "vt").out
    assert re.search(rb"\x1b\[[0-9;]*31mred", vt)
    html = ctl.ok("session", "screen", "web", "--format", "html", "--no-cursor").text
    assert html.count("<span") == 1
    svg = ctl.ok("session", "screen", "web", "--format", "svg", "--theme", "light").text
    assert svg.startswith("<svg xmlns=")
    assert "fill='#c41e2a'>red</text>" in svg
    assert ctl.ok("session", "screen", "web", "--json").json["cols"] == 80


def test_scrollback_comes_before_the_screen(ctl: Orbitctl) -> None:
    """--scrollback prints the whole history, in order."""
    ctl.ok(*CAT, "sh", "-c", "seq 1 100; read x")
    shown(ctl, "web", "100")
    numbers = [line for line in ctl.ok("session", "screen", "web", "--scrollback").lines if line]
    assert numbers == [str(number) for number in range(1, 101)]
    assert "1" not in ctl.ok("session", "screen", "web").lines
    assert ctl.ok("session", "screen", "web", "--lines", "2").lines == ["100"]
    part = ctl.ok("session", "screen", "web", "--first-line", "10", "--lines", "2", "--json").json
    assert (part["data"], part["first_line"], part["total_lines"]) == ("11\n12\n", 10, 101)


def test_wait_prints_how_it_ended(ctl: Orbitctl) -> None:
    """Wait returns when the program has ended, with 0 and the way of its end; also afterwards."""
    ctl.ok(*CAT, "sh", "-c", "read x; exit 9")
    assert ctl("session", "wait", "web", "--timeout", "0.1").code == 6
    ctl.ok("session", "send", "web", "--enter")
    assert ctl.ok("session", "wait", "web").text == "exit 9\n"
    assert ctl.ok("session", "wait", "web", "--json").json == {"exit_code": 9, "exit_signal": None}


def test_wait_for_a_text(ctl: Orbitctl) -> None:
    """The line that holds it is printed; a program that ends before it is an error that says how."""
    ctl.ok(*CAT, "sh", "-c", "echo Listening on 80; read x; exit 3")
    assert ctl.ok("session", "wait", "web", "--for", "text", "ing on").text == "Listening on 80\n"
    assert ctl("session", "wait", "web", "--for", "text", "listening", "--timeout", "0.1").code == 6
    ctl.ok("session", "send", "web", "--enter")
    ended = ctl("session", "wait", "web", "--for", "text", "never")
    assert (ended.code, "has ended before the text: exit 3" in ended.err) == (5, True)
    assert ctl.ok("session", "wait", "web", "--for", "text", "80", "--json").json["line"] == "Listening on 80"


def test_wait_for_output_and_silence(ctl: Orbitctl) -> None:
    """Output after the call; a silence that may have begun before it."""
    ctl.ok(*CAT)
    assert ctl.ok("session", "wait", "web", "--for", "silence", "--silence", "0.1").text == "silence\n"
    waited = ctl("session", "wait", "web", "--for", "output", "--timeout", "0.1")
    assert (waited.code, "has not had any output after 0.1 s" in waited.err) == (6, True)


def test_signals_reach_the_program(ctl: Orbitctl) -> None:
    """A signal by name or by number ends a program that does not catch it."""
    ctl.ok(*CAT, "cat")
    ctl.ok("session", "signal", "web", "int")
    assert ctl.ok("session", "wait", "web").text == "signal SIGINT\n"
    for written, name in (("SIGTERM", "SIGTERM"), ("15", "SIGTERM"), ("rtmin+1", "SIGRTMIN+1")):
        ctl.ok("session", "start", "web")
        ctl.ok("session", "signal", "web", written)
        assert ctl.ok("session", "wait", "web").text == f"signal {name}\n"
    assert ctl("session", "signal", "web", "TERM").code == 5


def test_the_list_shows_what_runs(ctl: Orbitctl) -> None:
    """On a terminal, columns without anything in them are left out; live ones come with the first program."""
    ctl.ok("session", "create", "--name", "hosted")
    assert "LIVE" not in ctl.on_terminal("session", "list").text
    ctl.ok(*CAT, "cat")
    text = re.sub(r"\x1b\[[0-9;]*m", "", ctl.on_terminal("session", "list").text)
    assert re.search(r"ID +NAME +STATUS +TYPE +LIVE +SIZE +CLIENTS +IDLE +SAVED? *COMMAND|LIVE +SIZE +CLIENTS", text)
    assert re.search(r"web +detached +local +live +80x24 +0", text) or re.search(r"web .*live +200x\d+ +0", text)


def test_show_tells_of_the_program(ctl: Orbitctl) -> None:
    """`show` has pid, size and folder of what runs, and the exit of what has ended."""
    ctl.ok(*CAT, "sh", "-c", "read x; exit 2")
    assert re.search(r"program: +runs, pid \d+", ctl.ok("session", "show", "web").text)
    ctl.ok("session", "send", "web", "--enter")
    ctl.ok("session", "wait", "web")
    assert re.search(r"ended: +exit 2", ctl.ok("session", "show", "web").text)


@pytest.mark.parametrize("name", ["two words", "$(touch made)", "a'b", "-x", "--help", "`id`;"])
def test_hints_can_be_typed_whatever_a_session_is_called(ctl: Orbitctl, name: str) -> None:
    """The command in a hint, given to a shell as it stands there, is about that session, and nothing more happens."""
    found = ctl.id("session", "create", "--name", name, "--", "true")
    shown = ctl.on_terminal("session", "attach", "--", name, NO_COLOR="1").text
    (command,) = re.findall(r"hint: `orbitctl (.*)` runs its program here", shown)
    assert ctl.shell(f"{shlex.join(ctl.command)} -q {command}").lines == [found]
    assert not (ctl.home / "made").exists()


@pytest.mark.parametrize("limit", ["0.1", "0.2", "0.3000000000000001"])
def test_a_wait_that_ends_says_how_long_it_was(ctl: Orbitctl, limit: str) -> None:
    """The time is rounded: what is left of a timeout has a tail of digits."""
    ctl.ok(*CAT, "cat")
    ended = ctl("session", "wait", "web", "--timeout", limit)
    assert ended.code == 6
    assert re.search(r" after 0\.\d{1,3} s\n", ended.err)


def test_watch_shows_changes_and_gives_the_terminal_back(ctl: Orbitctl) -> None:
    """--watch draws the table in place, anew when something changes, and leaves with q."""
    ctl.ok("session", "create", "--name", "first")
    with Window(ctl, "session", "list", "--watch", size=(120, 20)) as window:
        window.screen_until("first")
        assert window.emulator.alternate
        ctl.ok("session", "create", "--name", "second")
        window.screen_until("second")
        window.type("q")
        assert window.end() == 0
        assert not window.emulator.alternate
        assert window.settings() == window.before
    assert ctl("session", "list", "--watch").code == 2


@pytest.mark.parametrize("typed", ["q", "xq", "\x1b[Aq", "Q", "\x04", "jjjjq\r"])
def test_watch_ends_with_a_key_among_others(ctl: Orbitctl, typed: str) -> None:
    """Keys that come in one piece all count: the last of two is not kept for the shell."""
    with Window(ctl, "session", "list", "--watch") as window:
        window.screen_until("q ends")
        window.type(typed)
        assert window.end() == 0
        assert is_given_back(window)
        assert window.unread() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
def test_watch_gives_the_terminal_back_for_a_signal(ctl: Orbitctl, number: signal.Signals) -> None:
    """A signal that ends it is no reason to leave the alternate screen, a hidden cursor and no echo behind."""
    with Window(ctl, "session", "list", "--watch") as window:
        window.screen_until("q ends")
        window.process.send_signal(number)
        assert window.end() == (0 if number == signal.SIGINT else 128 + number)
        assert is_given_back(window)
        assert b"Traceback" not in window.output


def test_watch_gives_the_terminal_back_while_the_daemon_does_not_answer(
    own_ctl: Orbitctl, daemon: DaemonProcess
) -> None:
    """A signal is carried out in the middle of a call."""
    with Window(own_ctl, "session", "list", "--watch") as window:
        window.screen_until("q ends")
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            window.process.send_signal(signal.SIGTERM)
            assert window.end() == 128 + signal.SIGTERM
            assert is_given_back(window)
        finally:
            daemon.process.send_signal(signal.SIGCONT)


def test_watch_gives_a_stopped_terminal_back(ctl: Orbitctl) -> None:
    """After Ctrl-S nothing is drawn, and a signal ends it all the same."""
    with Window(ctl, "session", "list", "--watch") as window:
        window.screen_until("q ends")
        window.type(b"\x13")
        window.process.send_signal(signal.SIGTERM)
        assert window.end() == 128 + signal.SIGTERM
        assert is_given_back(window)


@pytest.fixture
def shell(ctl: Orbitctl) -> Iterator[Window]:
    """A window with a shell that has just started to watch the list."""
    bash = Orbitctl(ctl.home, {**ctl.environment, "PS1": "prompt$ "})
    bash.command = ["/bin/bash", "--norc", "--noprofile", "-i"]
    with Window(bash) as window:
        window.screen_until("prompt$")
        window.type(shlex.join([*ctl.command, "session", "list", "--watch"]) + "\r")
        window.screen_until("q ends")
        yield window


def test_watch_that_is_stopped_can_be_ended(shell: Window) -> None:
    """A stopped job that gets SIGTERM ends, and touches the terminal no more: it is the shell's."""
    shell.type(b"\x1a")
    shell.screen_until("Stopped")
    shell.type("kill %1; wait -f %1; echo it was $?\r")
    shell.screen_until("it was 143")
    assert shell.output.count(b"\x1b[?1049l") == 1
    shell.type("exit\r")
    assert shell.end() == 0


def test_watch_is_stopped_and_continued_by_a_shell(ctl: Orbitctl, shell: Window) -> None:
    """Ctrl-Z gives the terminal back to the shell; `fg` draws the table again."""
    for _ in range(2):
        shell.screen_until("q ends")
        assert shell.emulator.alternate
        shell.type(b"\x1a")
        shell.screen_until("Stopped")
        assert not shell.emulator.alternate
        assert shell.emulator.dump().cursor.visible
        shell.type("stty -a | tr ' ' '\\n' | grep -x -- '-\\?icanon'; clear\r")
        shell.until(rb"[\r\n]icanon\r\n")
        shell.until("prompt$")
        shell.type("fg\r")
    shell.screen_until("q ends")
    ctl.ok("session", "create", "--name", "later")
    shell.screen_until("later")
    shell.type("q")
    shell.screen_until("prompt$")
    assert not shell.emulator.alternate
    shell.type("exit\r")
    assert shell.end() == 0


def test_watch_that_no_shell_can_continue_ends_with_ctrl_z(ctl: Orbitctl) -> None:
    """The kernel stops no process of an orphaned process group: Ctrl-Z is a way out then."""
    with Window(ctl, "session", "list", "--watch") as window:
        window.screen_until("q ends")
        window.type(b"\x1a")
        assert window.end() == 0
        assert is_given_back(window)


def test_watch_leaves_an_ignored_signal_ignored(ctl: Orbitctl) -> None:
    """What nohup(1) has turned off stays off."""
    started = Orbitctl(ctl.home, ctl.environment)
    started.command = ["/bin/bash", "-c", "trap '' HUP TSTP; exec \"$@\"", "bash", *ctl.command]
    with Window(started, "session", "list", "--watch") as window:
        window.screen_until("q ends")
        window.process.send_signal(signal.SIGHUP)
        window.process.send_signal(signal.SIGTSTP)
        ctl.ok("session", "create", "--name", "later")
        window.screen_until("later")
        window.type("q")
        assert window.end() == 0


def test_watch_is_laid_out_again_for_another_size(ctl: Orbitctl) -> None:
    """A window of a few lines shows how many it leaves out, and the whole list when it is enlarged."""
    for number in range(6):
        ctl.ok("session", "create", "--name", f"number{number}")
    with Window(ctl, "session", "list", "--watch", size=(100, 4)) as window:
        window.screen_until("... and 5 more")
        window.resize(100, 1)
        window.screen_until("q ends")
        window.resize(100, 20)
        window.screen_until("number5")
        assert "more" not in window.screen()
        window.type("q")
        assert window.end() == 0


def is_given_back(window: Window) -> bool:
    """Return whether a terminal is as it was: its screen, its cursor, its modes and its settings."""
    shown = window.emulator.dump()
    is_usual_screen = not window.emulator.alternate and shown.cursor.visible and "?7" in shown.modes
    return is_usual_screen and window.settings() == window.before


@pytest.mark.slow
def test_watch_ends_with_ctrl_c_and_outlives_the_daemon(own_ctl: Orbitctl) -> None:
    """A daemon that has gone is told in the table's place; Ctrl-C is a way out like q."""
    with Window(own_ctl, "session", "list", "--watch", size=(120, 20)) as window:
        window.screen_until("no sessions")
        own_ctl.ok("daemon", "stop")
        window.screen_until("no daemon is running")
        own_ctl.ok("session", "create", "--name", "again")
        window.screen_until("again")
        window.type(b"\x03")
        assert window.end() == 0
        assert window.settings() == window.before


def test_stop_all_ends_no_daemon_that_does_not_know_what_runs(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """With a keeper that does not answer, `daemon stop --all` fails and says so, instead of leaving programs unseen."""
    pid = own_ctl.ok("--json", "session", "run", "-d", "cat").json["pid"]
    keeper = keeper_of(pid)
    daemon.kill()
    os.kill(keeper, signal.SIGSTOP)
    try:
        daemon.start()
        refused = own_ctl("daemon", "stop", "--all")
        assert (refused.code, "does not answer" in refused.err) == (1, True)
        told = f"the keeper (pid {keeper}) does not answer"
        assert told in " ".join(own_ctl.ok("status").err.split())
        assert told in " ".join(own_ctl("doctor").text.split())
    finally:
        os.kill(keeper, signal.SIGCONT)
    stopped = own_ctl.ok("daemon", "stop", "--all", "--json").json
    assert stopped["ended"] == 1


def test_stop_all_ends_the_programs_too(own_ctl: Orbitctl) -> None:
    """`daemon stop` leaves programs running, and with --all none is left, also where no daemon runs any more."""
    pids = [own_ctl.ok("--json", "session", "run", "-d", "cat").json["pid"] for _ in range(3)]
    own_ctl.ok("daemon", "stop")
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    stopped = own_ctl.ok("daemon", "stop", "--all", "--json").json
    assert stopped["ended"] == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert own_ctl.ok("daemon", "stop", "--all").err == "orbitd is not running\n"
    assert {one["status"] for one in own_ctl.ok("session", "list", "--status", "all", "--json").json["sessions"]} == {
        "terminated"
    }


def test_doctor_looks_at_live_sessions(ctl: Orbitctl) -> None:
    """Doctor says whether programs can be run; lingering matters under systemd only."""
    checks = {one["check"]: one["state"] for one in ctl.ok("doctor", "--json").json["checks"]}
    assert checks["live sessions"] == "ok"
    assert "lingering" not in checks


def test_lingering_is_a_file_of_logind(home: Path) -> None:
    """Without lingering the remedy is named; with it all is well."""
    assert lingering("ada", str(home)).remedy == "loginctl enable-linger"
    (home / "ada").touch()
    assert lingering("ada", str(home)).state == "ok"


@pytest.mark.parametrize("goodbye", [None, ShuttingDown("The daemon is shutting down")])
def test_wait_outlives_the_daemon(ctl: Orbitctl, home: Path, goodbye: OrbitError | None) -> None:
    """A wait goes on with the next daemon when the one that it asked goes away, with a word or without."""
    session = ctl.ok("--json", "session", "create", "--name", "web").json
    asked: list[str] = []

    def talk(connection: socket.socket) -> None:
        while line := read_line(connection):
            request = json.loads(line)
            asked.append(request["method"])
            results = {"session.find": session, "session.wait": {"exit_code": 5, "exit_signal": None}}
            if asked.count("session.wait") == 1 and request["method"] == "session.wait":
                if goodbye is not None:
                    connection.sendall(encode_error(request["id"], goodbye) + b"\n")
                return
            connection.sendall(encode_result(request["id"], results[request["method"]]) + b"\n")

    peer = Peer(home / "peer", talk)
    assert ctl.ok("--socket", str(home / "peer"), "session", "wait", "web").text == "exit 5\n"
    assert asked == ["session.find", "session.wait", "session.wait"]
    peer.close()


SCREEN = {"cols": 80, "rows": 2, "cursor": {"col": 0, "row": 0, "visible": True}, "title": ""}
MAKE = {"command": "make", "exit_code": 2, "duration_secs": 1.0, "cwd": "/"}


@pytest.mark.parametrize(
    ("words", "before", "now", "printed"),
    [
        (["text", "ready"], [], ["old ready", "was ready", "on the screen", "is ready"], "is ready"),
        (["text", "ready"], [], ["old ready", "was ready", "nothing"], "found later"),
        (["output"], {}, {"last_output_at": "2026-01-01T00:00:00Z"}, "output"),
        (["command"], {}, {"last_command": MAKE}, "exit 2: make"),
        (["command"], {"last_command": MAKE}, {"last_command": MAKE}, "exit 0: found later"),
    ],
)
def test_wait_sees_what_came_while_there_was_no_daemon(
    ctl: Orbitctl, home: Path, words: list[str], before: dict[str, Any], now: Any, printed: str
) -> None:
    """Lines behind those that were there before, output of the next daemon, another last command."""
    session = ctl.ok("--json", "session", "create", "--name", "web").json
    later = {"exit_code": None, "exit_signal": None, "line": "found later"}
    if words == ["command"]:
        later = {**later, "exit_code": 0, "command": {"command": "found later"}}
    asked: list[str] = []

    def talk(connection: socket.socket) -> None:
        while line := read_line(connection):
            request = json.loads(line)
            method, params = request["method"], request["params"]
            asked.append(method)
            if asked.count("session.wait") == 1 and method == "session.wait":
                return
            results = {"session.wait": later, "session.find": {**session, **dict(before)}}
            if method == "session.get":
                results[method] = {**session, **now}
            if method == "session.screen":
                part = {"first_line": params["first_line"], "total_lines": 4}
                results[method] = {**SCREEN, **part, "data": "" if params.get("lines") == 0 else "\n".join(now)}
            connection.sendall(encode_result(request["id"], results[method]) + b"\n")

    peer = Peer(home / "peer", talk)
    assert ctl.ok("--socket", str(home / "peer"), "session", "wait", "web", "--for", *words).text == printed + "\n"
    assert asked.count("session.wait") == (2 if "found later" in printed else 1)
    peer.close()


def late_reader(ctl: Orbitctl) -> LateReader:
    program = LateReader(ctl)
    shown(ctl, "web", "ready")
    return program


def test_input_that_is_not_taken_in_time_is_counted(ctl: Orbitctl) -> None:
    """The error says how much was typed; the rest is not typed later, so that it can be sent again."""
    program = late_reader(ctl)
    data = b"".join(b"%07d\n" % number for number in range(12_500))
    failed = ctl("--timeout", "1", "session", "send", "web", "-", stdin=data)
    said = re.search(r"(\d+) of 100000 bytes were typed", failed.err)
    assert failed.code == 6
    assert said, failed.err
    program.let_read()
    assert program.end() == data[: int(said[1])]


class SlowProgram(Peer):
    """A daemon whose program reads 1,000 bytes of the first part that is sent, and all of every later one.

    Args:
        ctl: Where the session is created.
        answer: What the first part is answered with; by default it waits until it is cancelled.
        on_wait: Called while the client waits for the answer to the first part.
    """

    def __init__(
        self, ctl: Orbitctl, answer: OrbitError | None = None, on_wait: Callable[[], None] = lambda: None
    ) -> None:
        self.typed = b""
        self._first_answer, self._on_wait, self._waiting = answer, on_wait, 0
        self._session = ctl.ok("--json", "session", "create", "--name", "slow").json
        super().__init__(ctl.home / "slow", self._talk)

    def _talk(self, connection: socket.socket) -> None:
        while line := read_line(connection):
            request = json.loads(line)
            if request["method"] == "session.find":
                reply = encode_result(request["id"], self._session)
            elif request["method"] == "$/cancelRequest":
                reply = encode_error(self._waiting, Cancelled("Cancelled", data={"written": 1_000}))
            elif not self.typed:
                self._waiting = request["id"]
                self.typed = base64.b64decode(request["params"]["data"])[:1_000]
                self._on_wait()
                if self._first_answer is None:
                    continue
                reply = encode_error(request["id"], self._first_answer)
            else:
                self.typed += base64.b64decode(request["params"]["data"])
                reply = encode_result(request["id"], {})
            connection.sendall(reply + b"\n")


@pytest.mark.parametrize("busy", [None, Busy("The program does not read its input", data={"written": 1_000})])
def test_the_timeout_of_a_send_counts_from_the_last_progress(ctl: Orbitctl, busy: OrbitError | None) -> None:
    """Where a program has read a part of it within the timeout, the rest of it is sent, and nothing is typed twice."""
    data = b"".join(b"%07d\n" % number for number in range(12_500))
    slow = SlowProgram(ctl, busy)
    ctl.ok("--socket", str(ctl.home / "slow"), "--timeout", "0.3", "session", "send", "slow", "-", stdin=data)
    assert slow.typed == data
    slow.close()


def test_a_send_that_the_daemon_does_not_finish_says_how_much_was_typed(ctl: Orbitctl) -> None:
    """When the daemon stops, nothing more is sent to it or to the next one: the user knows how much is left."""
    slow = SlowProgram(ctl, ShuttingDown("The daemon is shutting down", data={"written": 1_000}))
    failed = ctl("--socket", str(ctl.home / "slow"), "session", "send", "slow", "x" * 9_000)
    assert (failed.code, "1000 of 9000 bytes were typed" in failed.err) == (1, True)
    assert slow.typed == b"x" * 1_000
    slow.close()


def test_ctrl_c_says_how_much_was_sent(process_ctl: Orbitctl) -> None:
    """What the program has not read is withdrawn, the count is exact, and the exit code is 130."""
    waiting = threading.Event()
    slow = SlowProgram(process_ctl, on_wait=waiting.set)
    command = [*process_ctl.command, "--socket", str(process_ctl.home / "slow"), "session", "send", "slow", "x" * 9_000]
    with subprocess.Popen(command, env=process_ctl.environment, stderr=subprocess.PIPE, text=True) as sending:
        assert waiting.wait(WAIT_SECS)
        sending.send_signal(signal.SIGINT)
        _, said = sending.communicate(timeout=WAIT_SECS)
    assert (sending.returncode, said) == (130, "error: interrupted\n  1000 of 9000 bytes were typed\n")
    slow.close()


def test_several_senders_share_what_a_program_reads(ctl: Orbitctl, shared_daemon: DaemonProcess) -> None:
    """Where others have filled the session's queue, a sender waits for room, or says that it typed nothing."""
    program = late_reader(ctl)
    with shared_daemon.client() as other:
        session_id = other.call("session.find", ref="web")["id"]
        data = base64.b64encode(b"x" * (1 << 20)).decode()
        other.notify("session.send", id=session_id, data=data)
        other.call("daemon.ping")
        failed = ctl("--timeout", "0.2", "session", "send", "web", "-", stdin=b"y" * 100_000)
        assert (failed.code, "0 of 100000 bytes were typed" in failed.err) == (1, True)
        program.let_read()
        ctl.ok("session", "send", "web", "-", stdin=b"z" * 100_000)
    assert program.end() == b"x" * (1 << 20) + b"z" * 100_000
