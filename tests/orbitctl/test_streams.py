"""Standard streams that are closed, full, or have lost their reader: the exit code, and no traceback."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ctl_support import Orbitctl
from needs import needs
from orbitctl.client.paths import ClientPaths
from support import WAIT_SECS


@pytest.fixture
def web(ctl: Orbitctl) -> str:
    """A session named web with a snapshot."""
    found = ctl.id("session", "create", "--name", "web")
    ctl.ok("snapshot", "save", "web", stdin=b"screen")
    return found


def closed(ctl: Orbitctl, redirections: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run orbitctl with streams redirected by a shell; return its exit code and what is left of its output."""
    command = f"{shlex.join([*ctl.command, *words])} {redirections}"
    return subprocess.run(
        ["bash", "-c", command], env=ctl.environment, cwd=ctl.home, capture_output=True, timeout=WAIT_SECS, check=False
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["session", "list"], 0),
        (["session", "list", "--json"], 0),
        (["snapshot", "show", "--latest", "web"], 0),
        (["session", "show", "nosuch"], 4),
        (["session", "list", "--nosuch"], 2),
        (["session", "delete", "web"], 2),
        (["--help"], 0),
        ([], 2),
    ],
)
@pytest.mark.usefixtures("web")
def test_closed_streams_change_no_exit_code(process_ctl: Orbitctl, words: list[str], code: int) -> None:
    """Each of the three closed, and all of them: the usual exit code, and nothing but the usual words."""
    usual = closed(process_ctl, "< /dev/null", *words)
    assert usual.returncode == code
    for streams in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        ended = closed(process_ctl, streams, *words)
        assert ended.returncode == code, (streams, ended)
        assert without_idle(ended.stdout) in (b"", without_idle(usual.stdout))
        assert ended.stderr in (b"", usual.stderr)


def without_idle(output: bytes) -> bytes:
    """Return output without the seconds that pass between two runs."""
    return re.sub(rb"\b\d+s\b", b"0s", output)


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize(
    "words",
    [["snapshot", "save", "web", "-"], ["session", "send", "web", "-"], ["rpc", "call", "daemon.ping", "-"]],
    ids=" ".join,
)
def test_reading_a_closed_stdin_is_an_error(process_ctl: Orbitctl, words: list[str]) -> None:
    """What is to come from stdin cannot come from one that is closed, nor from whatever has got its number."""
    ended = closed(process_ctl, "<&-", *words)
    assert (ended.returncode, ended.stderr) == (2, b"error: cannot read stdin: it is closed\n")


def test_closed_streams_are_open_for_what_comes_next(tmp_path: Path) -> None:
    """The numbers 0, 1 and 2 go to no other file, and the programs that are executed have them too."""
    program = (
        "from orbit_os.python import open_closed_streams; import os, sys; open_closed_streams(); "
        "print('lost'); print('lost', file=sys.stderr); file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); "
        "os.write(file, b'%d ' % file); "
        "os.set_inheritable(file, True); os.execvp('sh', ['sh', '-c', f'(read x || echo failed; echo y >&2) >&{file}'])"
    )
    written = tmp_path / "written"
    command = f"{shlex.join([sys.executable, '-c', program, str(written)])} <&- >&- 2>&-"
    subprocess.run(["bash", "-c", command], timeout=WAIT_SECS, check=True)
    assert written.read_text() == "3 failed\n"


LEFT = [
    ["session", "list"],
    ["session", "list", "--json"],
    ["session", "list", "-q"],
    ["session", "list", "--help"],
    ["--help"],
    ["--version"],
    ["completion", "bash"],
    ["rpc", "discover"],
    ["snapshot", "show", "--latest", "web"],
    ["session", "show", "web"],
    ["doctor"],
    ["config", "show"],
    ["service", "print"],
]
"""Commands that write by each of our ways to do so: lines, bytes, tables, click's help."""


def ended_with(ctl: Orbitctl, stream: str, descriptor: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run orbitctl with a descriptor as its stdout or stderr, the other one read; close ours of it."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: descriptor}
    try:
        return subprocess.run(
            [*ctl.command, *words],
            stdin=subprocess.DEVNULL,
            **given,
            env=ctl.environment,
            cwd=ctl.home,
            text=True,
            timeout=WAIT_SECS,
            check=False,
        )
    finally:
        os.close(descriptor)


def unread_pipe() -> int:
    """Return the end to write to of a pipe whose reader has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("words", LEFT, ids=" ".join)
def test_a_reader_that_has_left_ends_any_command_with_141(process_ctl: Orbitctl, words: list[str]) -> None:
    """As SIGPIPE ends a program, without a word: whether a line, bytes, a table or help was written."""
    ended = ended_with(process_ctl, "stdout", unread_pipe(), *words)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("words", [["session", "show", "nosuch"], ["session", "list", "--nosuch"], []], ids=" ".join)
def test_a_reader_of_errors_that_has_left_counts_too(process_ctl: Orbitctl, words: list[str]) -> None:
    """An error, a usage error, and the help that stands in for one, on a stderr that nobody reads."""
    assert ended_with(process_ctl, "stderr", unread_pipe(), *words).returncode == 141


def test_the_log_s_program_ends_with_its_reader_too(lonely: Orbitctl) -> None:
    """`daemon logs` becomes tail(1), which is ended by the signal that Python ignores."""
    log = Path(ClientPaths(lonely.environment, None).log_file)
    log.parent.mkdir(parents=True, mode=0o700)
    log.touch(mode=0o600)
    log.write_text("one line\n")
    ended = ended_with(lonely, "stdout", unread_pipe(), "daemon", "logs")
    assert (ended.returncode, ended.stderr) == (-13, "")


@needs(linux=True)  # which has /dev/full
@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("words", LEFT, ids=" ".join)
def test_output_that_cannot_be_written_is_an_error(process_ctl: Orbitctl, words: list[str]) -> None:
    """A full disk under stdout: exit code 1 and a sentence, whoever writes."""
    ended = ended_with(process_ctl, "stdout", os.open("/dev/full", os.O_WRONLY), *words)
    assert (ended.returncode, ended.stderr) == (1, "error: cannot write to stdout: No space left on device\n")


@needs(linux=True)
@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("more", [[], ["--no-autostart"]], ids=["quick", "usual"])
def test_more_output_than_a_buffer_holds_is_the_same_error(process_ctl: Orbitctl, more: list[str]) -> None:
    """What goes past the buffer fails at once, and nothing is left that a second try would fail with."""
    process_ctl.ok("session", "create", "--", "x" * 20_000)
    ended = ended_with(process_ctl, "stdout", os.open("/dev/full", os.O_WRONLY), *more, "session", "list", "--json")
    assert (ended.returncode, ended.stderr) == (1, "error: cannot write to stdout: No space left on device\n")


@needs(linux=True)
@pytest.mark.parametrize(
    ("words", "code"), [(["session", "show", "nosuch"], 4), (["session", "list", "--nosuch"], 2), ([], 2)]
)
def test_errors_that_cannot_be_written_keep_their_exit_code(process_ctl: Orbitctl, words: list[str], code: int) -> None:
    """A full disk under stderr: nobody can be told, and the exit code is the error's."""
    ended = ended_with(process_ctl, "stderr", os.open("/dev/full", os.O_WRONLY), *words)
    assert ended.returncode == code
