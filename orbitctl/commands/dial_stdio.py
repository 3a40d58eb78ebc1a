"""`orbitctl dial-stdio`: the far end of `--host`, which ssh runs. Joins stdin and stdout to the daemon's socket.

Rules: bytes pass as they are, at most one piece a direction is on its way, and each direction
ends by itself (half-close). It is over when both have ended, when the daemon has closed, or
when nobody is left to read what it says.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import sys

import click

from orbitctl.app import App
from orbitctl.errors import CommandError, ExitCode

PIECE_BYTES = 1 << 16
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


@click.command("dial-stdio", hidden=True)
@click.pass_obj
def dial_stdio(app: App) -> None:
    """Join stdin and stdout to the daemon's socket, for `--host` of another machine."""
    try:
        stream = app.open_stream()
    except CommandError as failure:  # a usage error, say of the far configuration, would look like an old orbitctl
        message = f"on {os.uname().nodename}: {failure.message}"
        raise CommandError(message, ExitCode.UNREACHABLE, hint=failure.hint, details=failure.details) from failure
    with contextlib.closing(stream):
        relay(sys.stdin.fileno(), sys.stdout.fileno(), stream.fileno())


class _Way:
    """One direction: read when there is nothing to write, else write."""

    def __init__(self, source: int, sink: int) -> None:
        self.source, self.sink = source, sink
        self.finished = False
        self._piece = b""

    @property
    def wanted(self) -> tuple[int, int]:
        """The descriptor that is waited for, and the event of poll(2)."""
        return (self.sink, select.POLLOUT) if self._piece else (self.source, select.POLLIN)

    def go_on(self) -> None:
        """Move some bytes. Raises: OSError where the sink takes no more."""
        if self._piece:
            self._piece = self._piece[os.write(self.sink, self._piece) :]
            return
        try:
            self._piece = os.read(self.source, PIECE_BYTES)
        except ConnectionResetError:  # closed with something of ours unread
            self._piece = b""
        if not self._piece:
            self.end()

    def end(self) -> None:
        """Tell the sink that nothing more comes."""
        self.finished = True
        _end_sending(self.sink)


def relay(near_in: int, near_out: int, far: int) -> None:
    """Copy bytes both ways until it is over.

    Args:
        near_in: Where the client's bytes come from.
        near_out: Where the daemon's bytes go.
        far: The daemon's socket. All three are made non-blocking.
    """
    for descriptor in (near_in, near_out, far):
        os.set_blocking(descriptor, False)
    up, down = _Way(near_in, far), _Way(far, near_out)
    while not (up.finished and down.finished):
        watched = far if down.finished else near_out
        events = _wait(up, down, watched)
        if events.get(watched, 0) & _GONE:
            return  # the daemon has closed altogether, not only its own direction; or the client has
        if _is_due(down, events):
            try:
                down.go_on()
            except (BrokenPipeError, ConnectionResetError):
                return
        if _is_due(up, events):
            try:
                up.go_on()
            except (BrokenPipeError, ConnectionResetError):
                up.end()  # it takes no more, but may have left an answer


def _wait(up: _Way, down: _Way, watched: int) -> dict[int, int]:
    """Wait until a direction can go on, or `watched` has lost its other end; return poll's events by descriptor."""
    wanted = {watched: 0}
    for way in (up, down):
        if not way.finished:
            descriptor, event = way.wanted
            wanted[descriptor] = wanted.get(descriptor, 0) | event
    poller = select.poll()
    for descriptor, mask in wanted.items():
        poller.register(descriptor, mask)
    return dict(poller.poll())


def _is_due(way: _Way, events: dict[int, int]) -> bool:
    if way.finished:
        return False
    descriptor, event = way.wanted
    return bool(events.get(descriptor, 0) & (event | _GONE))


def _end_sending(descriptor: int) -> None:
    """End one direction of a socket (sshd may give one for both), or close a pipe."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), descriptor)
        return
    with socket.socket(fileno=os.dup(descriptor)) as shared, contextlib.suppress(OSError):  # where its peer has gone
        shared.shutdown(socket.SHUT_WR)
