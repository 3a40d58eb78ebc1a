"""`orbitctl logs` of what the daemon has kept: beyond the picture's history, of ended sessions, with times."""

from __future__ import annotations

import shlex
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from ctl_support import Orbitctl
from support import WAIT_SECS

# More than the 10,000 rows that a picture keeps, some of them wider than it.
LONG = "stty -echo; seq -f 'line %.0f' 1 25000; printf '%0200d\\n' 7; echo end"
LINES = [*(f"line {number}" for number in range(1, 25_001)), "7".zfill(200), "end"]


def test_json_has_the_lines_that_are_asked_for(ctl: Orbitctl) -> None:
    """-n chooses the lines in JSON, too."""
    ctl.ok("new", "-d", "work", "--", "seq", "50")
    ctl.ok("session", "wait", "work")
    assert [line["text"] for line in ctl.ok("--json", "logs", "work", "-n", "2").json["lines"]] == ["49", "50"]


def test_the_whole_history_is_printed(ctl: Orbitctl) -> None:
    """All lines come, far beyond what the picture holds, of a session that has ended or is archived."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", LONG)
    ctl.ok("session", "wait", "work")
    assert ctl.ok("logs", "work").lines == LINES
    assert ctl.ok("logs", "work", "-n", "15000").lines == LINES[-15_000:]
    assert ctl.ok("logs", "work", "-f", "-n", "12000").lines == LINES[-12_000:]
    assert ctl.ok("logs", "work", "-n", "0").lines == []
    for follow in ([], ["-f"]):
        assert ctl.ok("logs", "work", "--since", "1h", "-n", "3", *follow).lines == LINES[-3:]
        assert ctl.ok("logs", "work", "--since", "1h", "-n", str(2**70), *follow).lines == LINES
        assert ctl.ok("logs", "work", "--since", "now", "-n", "3", *follow).lines == []
    for options, expected in ((["-n", "0"], []), (["-n", "2"], LINES[-2:]), (["--since", "1h", "-n", "2"], LINES[-2:])):
        page = ctl.ok("--json", "logs", "work", *options).json
        assert [line["text"] for line in page["lines"]] == expected
    assert ctl.ok("--json", "logs", "work", "--timestamps").json["lines"][0]["line"] == 0
    session = ctl.id("session", "show", "work")
    ctl.ok("maintenance", "archive", "--before", "0s")
    assert ctl.ok("logs", session, "-n", "3").lines == LINES[-3:]
    ctl.ok("session", "delete", session, "--yes")
    assert ctl("logs", session).code == 4


@pytest.mark.parametrize("last", [None, 20_000, 5_000])
def test_following_begins_in_the_history(ctl: Orbitctl, last: int | None) -> None:
    """Lines before the picture's, the picture's, and those that come afterwards each come once, in order."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", f"{LONG}; read x; seq 1 3000")
    ctl.ok("session", "wait", "work", "--for", "text", "end")
    options = [] if last is None else ["-n", str(last)]
    command = [*ctl.command, "logs", "-f", "work", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ctl.environment, cwd=ctl.home, text=True) as process:
        assert process.stdout is not None
        found = []
        while not found or found[-1] != "end":
            found.append(process.stdout.readline().rstrip("\n"))
        ctl.ok("session", "send", "work", "--enter", "")
        found += process.stdout.read().splitlines()
        assert process.wait(WAIT_SECS) == 0
    assert found == [*LINES[-(last or len(LINES)) :], *(str(number) for number in range(1, 3_001))]


def test_following_ends_with_its_reader(ctl: Orbitctl) -> None:
    """Where the reader of a pipe ends, as `grep -m 1` does, the command ends without waiting for a next line."""
    ctl.ok("new", "-d", "work", "--", "sh", "-c", "echo one; exec cat")
    ctl.ok("session", "wait", "work", "--for", "text", "one")
    command = shlex.join([*ctl.command, "logs", "-f", "work"])
    assert ctl.shell(f"{command} | grep -m 1 one").lines == ["one"]


def test_lines_since_a_moment(process_ctl: Orbitctl) -> None:
    """--since begins with what was printed then, and --timestamps has the local time of each line."""
    ctl, before = process_ctl, datetime.now(UTC)
    ctl.ok("new", "-d", "work", "--", "sh", "-c", "stty -echo; echo one; read x; printf '\\ntwo\\nthree\\n'; read x")
    ctl.ok("session", "wait", "work", "--for", "text", "one")
    ctl.ok("session", "wait", "work", "--for", "silence", "--silence", "0.3")
    between = datetime.now(UTC)
    ctl.ok("session", "send", "work", "--enter", "")
    ctl.ok("session", "wait", "work", "--for", "text", "three")
    since = ["--since", between.isoformat()]
    assert [line for line in ctl.ok("logs", "work", *since).lines if line] == ["two", "three"]
    assert ctl.ok("logs", "work", *since, "-n", "1").lines == ["three"]
    assert [line for line in ctl.ok("logs", "work", *since, "-n", "9").lines if line] == ["two", "three"]
    moments = []
    for options in ([], ["-n", "4"]):
        lines = ctl.ok("logs", "work", "--timestamps", *options, TZ="Asia/Tokyo").lines
        del lines[1]  # an empty one
        moments = [datetime.fromisoformat(line.split(" ")[0]) for line in lines]
        assert [line.split(" ")[1] for line in lines] == ["one", "two", "three"]
        assert before - timedelta(seconds=0.2) < moments[0] < between
        assert between - timedelta(seconds=0.2) < moments[1] <= moments[2] <= datetime.now(UTC)
        assert {moment.utcoffset() for moment in moments} == {timedelta(hours=9)}
    command = [*ctl.command, "logs", "-f", "work", *since, "--timestamps"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ctl.environment, cwd=ctl.home, text=True) as process:
        assert process.stdout is not None
        followed = [process.stdout.readline().split() for _ in range(2)]
        if len(followed[0]) == 1:  # the empty one
            followed = [followed[1], process.stdout.readline().split()]
        assert [line for _, line in followed] == ["two", "three"]
        assert [datetime.fromisoformat(at) for at, _ in followed] == moments[1:]
        ctl.ok("session", "send", "work", "--enter", "")
        assert process.wait(WAIT_SECS) == 0
    assert ctl.ok("logs", "work", "--since", "now").lines == []


def test_since_and_times_want_a_history(ctl: Orbitctl) -> None:
    """Where nothing is kept with its times, --since and --timestamps say so."""
    ctl.ok("session", "create", "--name", "never")
    ended = ctl("logs", "never", "--since", "1h")
    assert (ended.code, "kept" in ended.err) == (4, True)
    assert ctl("logs", "never", "--timestamps").code == 4
    assert ctl("logs", "never", "--since", "1h", "-n", "3").code == 4
