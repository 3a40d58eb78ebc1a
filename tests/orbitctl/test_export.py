"""`orbitctl session export`: recordings that asciinema plays, and lines as text, HTML and VT."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from needs import program, require
from orbitd.screens.emulator import Emulator

SHOWN = (
    """stty -echo; printf 'h\\303\\244 <b> & \\377\\n'; echo one; printf '\\033[31mred\\033[m\\n'; read x; echo done"""
)


@pytest.fixture
def recorded(ctl: Orbitctl) -> Orbitctl:
    """A session that was resized, has ended and was started again."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", SHOWN)
    ctl.ok("session", "wait", "work", "--for", "text", "red")
    ctl.ok("session", "wait", "work", "--for", "silence", "--silence", "0.3")
    ctl.ok("session", "send", "work", "--enter", "")
    ctl.ok("session", "wait", "work")
    ctl.ok("session", "start", "work")
    while ctl.ok("session", "screen", "work").text.count("red") < 2:  # a wait finds the one that is there already
        pass
    return ctl


def test_a_recording_is_played_by_asciinema(recorded: Orbitctl) -> None:
    """What `asciinema cat` and `play` show is the session's screen; the file has header, times and nothing else."""
    require("asciinema")
    file = recorded.home / "work.cast"
    recorded.ok("session", "export", "work", "-o", str(file))
    first, *events = [json.loads(line) for line in file.read_text().splitlines()]
    assert (first["version"], first["width"], first["height"], first["title"]) == (2, 80, 24, "work")
    times = [time for time, _, _ in events]
    assert times == sorted(times)
    assert times[-1] >= 0.3
    assert "ä <b> & \ufffd" in "".join(data for _, kind, data in events if kind == "o")
    environment = {name: value for name, value in recorded.environment.items() if name != "PYTHONPATH"}
    player = Orbitctl(recorded.home, {**environment, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"})
    player.command = [program("asciinema")]
    expected = recorded.ok("session", "screen", "work").text
    for arguments in (["cat", str(file)], ["play", "-s", "100", "-i", "0.1", str(file)]):
        shown = player.on_terminal(*arguments)
        assert shown.code == 0, shown
        terminal = Emulator(80, 24)
        terminal.feed(shown.out.replace(b"\n", b"\r\n"))
        assert terminal.screen("text").decode() == expected


def test_lines_are_exported_in_each_format(recorded: Orbitctl) -> None:
    """Text goes to stdout in a pipe; HTML is one document with its text escaped."""
    text = recorded.ok("session", "export", "work", "--format", "text").text
    assert text.splitlines()[:5] == ["hä <b> & \ufffd", "one", "red", "done", ""]
    assert text.splitlines()[5].startswith("-- started again ")
    page = recorded.ok("session", "export", "work", "--format", "html", "-o", "-").text
    assert page.startswith("<!DOCTYPE html>")
    assert page.count("<html") == page.count("</html>") == 1
    assert "hä &lt;b&gt; &amp; \ufffd" in page
    assert "<title>work</title>" in page
    drawn = recorded.ok("session", "export", "work", "--format", "vt").out
    terminal = Emulator(80, 24)
    terminal.feed(drawn)
    assert terminal.screen("text").decode() == text


COLOURS = (
    "for i in $(seq 1 200); do printf '\\033[1;3%dm<%d>\\033[m & plain\\n' $((i % 8)) $i; done; printf '%0100d\\n' 5"
)


def test_lines_have_their_colours(ctl: Orbitctl) -> None:
    """As HTML and VT each line has the styles that it had, wherever it is now; a wrapped one is one."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", COLOURS)
    ctl.ok("session", "wait", "work")
    session = ctl.id("session", "show", "work")

    def lines(how: str, first: int) -> list[str]:
        params = json.dumps({"session_id": session, "format": how, "first": first, "limit": 3})
        return [line["text"] for line in ctl.ok("rpc", "call", "history.lines", params).json["lines"]]

    for first in (0, 100, 196):
        for number, line in enumerate(lines("html", first), first + 1):
            assert re.fullmatch(rf'<span style="font-weight:bold[^"]*">&lt;{number}&gt;</span> &amp; plain', line), line
        for number, line in enumerate(lines("vt", first), first + 1):
            terminal = Emulator(80, 2)
            terminal.feed(line.encode())
            expected = Emulator(80, 2)
            expected.feed(b"\x1b[1;3%dm<%d>\x1b[m & plain" % (number % 8, number))
            assert terminal.screen("html") == expected.screen("html")
    assert lines("vt", -1)[-1].rstrip() == "5".zfill(100)
    page = ctl.ok("session", "export", "work", "--format", "html").text
    assert page.count('<span style="font-weight:bold') == 200
    assert ctl.ok("session", "export", "work", "--format", "vt").out.count(b"\x1b[1m") >= 200


def test_lines_without_a_film_are_exported(ctl: Orbitctl) -> None:
    """Where text is kept and no film, as where the limits have dropped it, HTML and VT have lines without colours."""
    ctl.ok("new", "-d", "--record", "screen", "work", "--", "sh", "-c", "printf '\\033[31m<red>\\033[m\\n'")
    ctl.ok("session", "wait", "work")
    assert "\n&lt;red&gt;\n" in ctl.ok("session", "export", "work", "--format", "html").text
    assert ctl.ok("session", "export", "work", "--format", "vt").out == b"<red>\r\n"
    ended = ctl("session", "export", "work")
    assert ended.code == 4
    assert "recorded without one" in ended.err


def test_a_path_that_no_file_can_have_is_refused(recorded: Orbitctl) -> None:
    """With `path` the daemon refuses one with a NUL or a relative one, as text and as bytes."""
    session = recorded.id("session", "show", "work")
    for path in (b"work.cast", b"/tmp/a\0b"):
        for given in ({"path": path.decode()}, {"path_bytes": base64.b64encode(path).decode()}):
            ended = recorded("rpc", "call", "history.export", json.dumps({"session_id": session, **given}))
            assert ended.code != 0
            assert "'path' must be an absolute path" in ended.err
    ended = recorded("rpc", "call", "history.export", json.dumps({"session_id": session, "path": "/proc/work.cast"}))
    assert "hint: Name a file in a folder" in ended.err


def test_an_output_or_a_time_that_cannot_be_is_a_usage_error(recorded: Orbitctl) -> None:
    """An empty --output, and an --until that is not after --since, are named as such."""
    ended = recorded("session", "export", "work", "-o", "")
    assert (ended.code, "--output is empty" in ended.err) == (2, True)
    for how in ("asciicast", "text"):
        ended = recorded("session", "export", "work", "--format", how, "--since", "1h", "--until", "2h")
        assert (ended.code, "--until is not after --since" in ended.err) == (2, True)


def test_a_part_is_exported(recorded: Orbitctl) -> None:
    """--since and --until cut a recording out of the film; its first event draws the screen of that moment."""
    session = recorded.id("session", "show", "work")
    timeline = recorded.ok("rpc", "call", "history.timeline", json.dumps({"session_id": session})).json
    kinds = [mark["kind"] for mark in timeline["marks"]]
    assert kinds == ["started", "exited", "started"]
    moment = datetime.fromisoformat(timeline["marks"][1]["at"]) - timedelta(seconds=0.1)
    since, until = ["--since", moment.isoformat()], ["--until", moment.isoformat()]
    first, drawn, *rest = [json.loads(line) for line in recorded.ok("session", "export", "work", *since).lines]
    assert first["timestamp"] == int(moment.timestamp())
    terminal = Emulator(80, 24)
    terminal.feed(drawn[2].encode())
    assert drawn[0] == 0
    assert terminal.screen("text").decode().split("\n")[-2] == "red"
    for _, kind, data in rest:
        if kind == "o":
            terminal.feed(data.encode())
    assert terminal.screen("text").decode() == recorded.ok("session", "screen", "work").text
    before = [json.loads(line) for line in recorded.ok("session", "export", "work", *until).lines[1:]]
    shown = "".join(data for _, _, data in before)
    assert "red" in shown
    assert "done" not in shown
    nothing = recorded("session", "export", "work", "--until", "1 hour ago")
    assert (nothing.code, nothing.out) == (4, b"")


def test_many_pages_are_one_export(ctl: Orbitctl) -> None:
    """A history of several pages is exported whole, as lines and as a recording, by the daemon's own file too."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", "seq -f 'this is line %.0f of them' 1 80000")
    ctl.ok("session", "wait", "work")
    lines = [f"this is line {number} of them" for number in range(1, 80_001)]
    assert ctl.ok("session", "export", "work", "--format", "text").lines == lines
    cast = ctl.ok("session", "export", "work").out
    events = [json.loads(line) for line in cast.splitlines()[1:]]
    assert "".join(data for _, _, data in events).split("\r\n")[:-1] == lines
    path = ctl.home / "daemon.cast"
    session = ctl.id("session", "show", "work")
    ctl.ok("rpc", "call", "history.export", json.dumps({"session_id": session, "path": str(path)}))
    assert path.read_bytes() == cast
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    refused = ctl("rpc", "call", "history.export", json.dumps({"session_id": session, "path": str(path)}))
    assert refused.code != 0
    assert path.read_bytes() == cast


def test_files_are_not_overwritten(recorded: Orbitctl) -> None:
    """A file that is there stays, unless --force is given, and keeps its mode; a new one has the umask's."""
    folder = recorded.home / "exports"
    folder.mkdir()
    file = folder / "work.txt"
    command = ("session", "export", "work", "--format", "text", "-o", str(file))
    recorded.ok(*command)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    first = file.read_text()
    file.write_text("mine")
    assert recorded(*command).code == 5
    assert file.read_text() == "mine"
    file.chmod(0o600)
    recorded.ok(*command, "--force")
    assert file.read_text() == first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert recorded(*command[:-1], str(folder)).code == 2
    assert recorded(*command[:-1], str(folder / "no" / "file")).code == 2
    assert [each.name for each in folder.iterdir()] == ["work.txt"]
    answer = recorded.ok("--json", *command, "-f").json
    assert answer == {"format": "text", "path": str(file), "bytes": len(first.encode())}


def test_no_recording_is_written_to_a_terminal(recorded: Orbitctl) -> None:
    """On a terminal an asciicast is a usage error, and so is --json without a file; text is shown."""
    ended = recorded.on_terminal("session", "export", "work")
    assert ended.code == 2
    assert b"--output" in ended.out
    assert recorded("--json", "session", "export", "work").code == 2
    assert b"one" in recorded.on_terminal("session", "export", "work", "--format", "text").out


def test_a_session_without_a_film_has_no_recording(ctl: Orbitctl) -> None:
    """A session that has never run has no film: the command fails, and leaves no file."""
    ctl.ok("session", "create", "--name", "never")
    file = ctl.home / "never.cast"
    ended = ctl("session", "export", "never", "-o", str(file))
    assert ended.code == 4, ended
    assert not list(ctl.home.glob("*never*"))


def test_what_is_not_there_is_said_as_screen_at_says_it(ctl: Orbitctl) -> None:
    """A film that begins later is named with its beginning, and a private session fails in every format."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", "echo one; exec cat")
    ctl.ok("session", "wait", "work", "--for", "text", "one")
    ended = ctl("session", "export", "work", "--since", "2h", "--until", "1h")
    assert ended.code == 4
    assert re.match(r"error: no film of work is kept of \S+ \S+: it begins at \S+ \S+\n", ended.err)
    assert "snapshot list" not in ended.err
    ctl.ok("new", "-d", "--private", "secret", "--", "cat")
    for how in ("asciicast", "text", "html", "vt"):
        ended = ctl("session", "export", "secret", "--format", how)
        assert (ended.code, ended.out) == (4, b"")
        assert ended.err.startswith("error: no film of secret is kept\n")


def test_the_daemon_replaces_no_file_of_its_own(
    ctl: Orbitctl, recorded: Orbitctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `path` the daemon writes no file of Orbit's own, no special file, and none in a folder that is not there."""
    session = ctl.id("session", "show", "work")
    info = ctl.ok("rpc", "call", "daemon.info").json
    database = Path(info["database_path"])
    own = [database, database.with_name("history.db-wal"), database.with_name(f"{database.name}.lock")]
    fifo = ctl.home / "fifo.sock"
    with socket.socket(socket.AF_UNIX) as special:
        monkeypatch.chdir(ctl.home)  # a socket's path is short
        special.bind("fifo.sock")
        for path in [*own, fifo, ctl.home / "missing" / "file", ctl.home]:
            ended = ctl("rpc", "call", "history.export", json.dumps({"session_id": session, "path": str(path)}))
            assert ended.code != 0, path
