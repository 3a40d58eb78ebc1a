"""The programs that Orbit is held against, run for real in a home of their own."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.bench import START_SECS, Bench, environment, stop

PROGRAMS: dict[str, Sequence[str]] = {
    "supervisor": ("supervisord", "--version"),
    "tmux": ("tmux", "-V"),
    "screen": ("screen", "--version"),
    "dtach": ("dtach", "--version"),
}
"""Each peer's program, and how it prints its version."""

CMUX_RELEASE = "0.13.4"
INSTALL_SECS = 300.0

_SUPERVISOR = """
[unix_http_server]
file={home}/s
[supervisord]
nodaemon=true
logfile={home}/log
pidfile={home}/pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{home}/s
"""
_PROGRAM = "[program:p{number}]\ncommand=cat\nautostart=false\nstartsecs=0\n"


def find(program: str) -> str | None:
    """Return a program's path: the one beside this interpreter, else the one on PATH."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.exists() else shutil.which(program)


@functools.cache
def cmux(bench: Bench) -> str | None:
    """Return the program of cmux, a rival on the same terminal library, or None where it cannot be had.

    The one that is there is taken; else its release on PyPI is installed into an environment of its own in the
    benchmarks' folder, once a run, but not in a quick one.
    """
    found = find("cmux")
    if found is not None or bench.quick:
        return found
    folder = bench.folder / "cmux"
    try:
        _install(folder, f"cmux=={CMUX_RELEASE}")
    except (OSError, subprocess.SubprocessError) as error:
        print(f"cmux cannot be installed: {error}", file=sys.stderr)
        return None
    return str(folder / "bin" / "cmux")


def _install(folder: Path, requirement: str) -> None:
    """Install a program from PyPI into a new virtual environment. Raises: OSError, SubprocessError."""
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, "--only-binary", ":all:", requirement]):
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=INSTALL_SECS)


@contextlib.contextmanager
def supervised(home: Path, programs: int) -> Iterator[Sequence[str]]:
    """Run supervisord on a Unix socket with so many programs that run: `cat`.

    Yields:
        The command that is `supervisorctl status -c ...` of it.
    """
    daemon, control = find("supervisord"), find("supervisorctl")
    assert daemon is not None
    assert control is not None
    configuration = home / "supervisord.conf"
    parts = [_SUPERVISOR.format(home=home), *(_PROGRAM.format(number=number) for number in range(programs))]
    configuration.write_text("".join(parts))
    with (home / "out").open("wb") as out:
        process = subprocess.Popen(
            [daemon, "-c", str(configuration)], env=environment(home), cwd=home, stdout=out, stderr=out
        )
    try:
        _wait_until_listening(home / "s", process)
        command = [control, "-c", str(configuration)]
        subprocess.run([*command, "start", "all"], env=environment(home), check=True, stdout=subprocess.DEVNULL)
        yield [*command, "status"]
    finally:
        stop(process)


@contextlib.contextmanager
def tmux_server(home: Path, sessions: int) -> Iterator[Sequence[str]]:
    """Run tmux with so many sessions of `cat`.

    Yields:
        The command that is `tmux list-sessions` of it.
    """
    program = find("tmux")
    assert program is not None
    command = [program, "-S", str(home / "t"), "-f", os.devnull]
    variables = environment(home)
    try:
        for number in range(sessions):
            subprocess.run([*command, "new-session", "-d", "-s", f"s{number}", "cat"], env=variables, check=True)
        yield [*command, "list-sessions"]
    finally:
        subprocess.run([*command, "kill-server"], env=variables, check=False)


def _wait_until_listening(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Connect until it answers: supervisord has no event for when it is ready."""
    deadline = time.monotonic() + START_SECS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} did not start")
