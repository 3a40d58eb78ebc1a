"""Run a program for an event, in the thread that calls: for a limited time, as a fresh login would start it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from orbit_protocol.visible import visible

_STDERR_BYTES = 4_096
_POLL_SECS = 0.25

_BECOME = """
import json, os, resource, signal, sys
umask, limits = json.loads(sys.argv[1])
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    try:
        signal.signal(number, signal.SIG_DFL)
    except (OSError, ValueError):
        pass
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.umask(umask)
for name, soft in limits.items():
    try:
        number = getattr(resource, "RLIMIT_" + name.upper())
        resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
    except (AttributeError, OSError, ValueError):
        pass
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(error.strerror)
"""
"""Becomes the program, without what orbitd has set for itself, and what a nohup(1) has set for orbitd."""


class Surroundings(Struct, frozen=True, kw_only=True):
    """What programs are started with: the environment, umask and soft limits of a fresh login."""

    env: Mapping[bytes, bytes]
    umask: int
    limits: Mapping[str, int] = {}


def run(
    argv: Sequence[str],
    surroundings: Surroundings,
    variables: Mapping[str, str],
    timeout_secs: float,
    on_start: Callable[[int], None] = lambda _: None,
) -> str:
    """Run a program in a session and process group of its own, in HOME; its output goes nowhere.

    Args:
        argv: The program, looked up on its own PATH, and its arguments.
        surroundings: Environment, umask, limits.
        variables: What is added to the environment.
        timeout_secs: After this long it is killed, with its process group.
        on_start: Called with its pid, which is that of its process group too.

    Returns:
        What went wrong, with the last line that it has written to stderr; "" if it has ended with 0.
    """
    env = {**surroundings.env, **{os.fsencode(name): os.fsencode(value) for name, value in variables.items()}}
    become = json.dumps([surroundings.umask, dict(surroundings.limits)])
    home = os.fsdecode(env.get(b"HOME", b"/"))
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BECOME, become, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=env,
            cwd=home if os.path.isdir(home) else "/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"it cannot be started: {getattr(error, 'strerror', None) or error}"
    assert process.stderr is not None
    with process.stderr as stderr:
        try:
            on_start(process.pid)
            said = _follow(process, stderr.fileno(), time.monotonic() + timeout_secs)
        finally:
            is_late = process.poll() is None
            if is_late:
                kill_group(process.pid)
            code = process.wait()
    if is_late:
        how = f"it was killed after {timeout_secs:.3g} s"
    elif code == 0:
        return ""
    else:
        how = f"exit {code}" if code > 0 else f"signal {_signal_name(-code)}"
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return f"{how}: {visible(lines[-1].strip())[:200]}" if lines else how


def _signal_name(number: int) -> str:
    """Return the name of a signal; real-time signals but the first and the last have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def kill_group(pid: int) -> None:
    """Kill a process group that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _pidfd(pid: int) -> int | None:
    """Return a descriptor that is readable once a process has ended; None where the system has none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # an old kernel, or no descriptor is free
        return None


def _follow(process: subprocess.Popen[bytes], stderr: int, deadline: float) -> bytes:
    """Wait until a process ends, or for the deadline; return the end of what it writes meanwhile.

    A process that it leaves behind may hold stderr open: its end is not waited for.
    """
    watch = _pidfd(process.pid)
    # Not select(2): a daemon with many sessions has descriptors above FD_SETSIZE.
    poll = select.poll()
    poll.register(stderr, select.POLLIN)
    if watch is not None:
        poll.register(watch, select.POLLIN)
    is_open, said = True, b""
    try:
        while True:
            left = deadline - time.monotonic()
            has_ended = process.poll() is not None
            if left <= 0 and not has_ended:
                return said
            wait = 0.0 if has_ended else left if watch is not None else min(left, _POLL_SECS)
            ready = {descriptor for descriptor, _ in poll.poll(math.ceil(wait * 1000))}
            if is_open and stderr in ready:
                data = os.read(stderr, 65_536)
                said = (said + data)[-_STDERR_BYTES:]
                if not data:
                    poll.unregister(stderr)
                    is_open = False
                    if has_ended:
                        return said
                if has_ended and time.monotonic() > deadline:
                    return said
            elif has_ended:
                return said
    finally:
        if watch is not None:
            os.close(watch)
