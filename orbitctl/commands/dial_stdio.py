"""`orbitctl dial-stdio`: the remote end of `--host`, which ssh runs. Copies between stdio and the daemon's socket.

At most one chunk is in flight in each direction, which is the back-pressure. Each direction ends by
itself (half-close): after the client's last request its answers still come. The relay ends when both
directions have, when the daemon has closed, or when the client does not read any more.
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

CHUNK_BYTES = 1 << 16
# Reported whether they were asked for or not (poll(2)).
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


@click.command("dial-stdio", hidden=True)
@click.pass_obj
def dial_stdio(app: App) -> None:
    """Copy between stdio and the daemon's socket, for `--host` of another machine."""
    try:
        stream = app.open_stream()
    except CommandError as error:
        # Always exit code 3: the client takes 2, which a bad configuration would give, for an orbitctl so old that
        # it does not know this command.
        message = f"on {os.uname().nodename}: {error.message}"
        raise CommandError(message, ExitCode.UNREACHABLE, hint=error.hint, details=error.details) from error
    with contextlib.closing(stream):
        relay(sys.stdin.fileno(), sys.stdout.fileno(), stream.fileno())


class _Direction:
    """Copies from one descriptor to another: writes while it holds a chunk, else reads the next."""

    def __init__(self, source: int, sink: int) -> None:
        self.source, self.sink = source, sink
        self.finished = False
        self._chunk = b""

    @property
    def waits_for(self) -> tuple[int, int]:
        """The descriptor and the event of poll(2) that this direction goes on with."""
        return (self.sink, select.POLLOUT) if self._chunk else (self.source, select.POLLIN)

    def step(self) -> None:
        """Write or read once. Raises: OSError if the sink is closed."""
        if self._chunk:
            self._chunk = self._chunk[os.write(self.sink, self._chunk) :]
            return
        try:
            self._chunk = os.read(self.source, CHUNK_BYTES)
        except ConnectionResetError:  # closed by the peer with bytes of ours unread: nothing more comes either
            self._chunk = b""
        if not self._chunk:
            self.end()

    def end(self) -> None:
        """End this direction: the sink's reader sees an end of file."""
        self.finished = True
        _shut_down_writing(self.sink)


def relay(client_in: int, client_out: int, daemon: int) -> None:
    """Copy bytes both ways until both directions have ended or one peer is gone.

    Args:
        client_in: Where the client's bytes come from.
        client_out: Where the daemon's bytes go.
        daemon: The daemon's socket. All three are made non-blocking.
    """
    for descriptor in (client_in, client_out, daemon):
        os.set_blocking(descriptor, False)
    up, down = _Direction(client_in, daemon), _Direction(daemon, client_out)
    while not (up.finished and down.finished):
        # A peer that is gone must be noticed also while no direction waits for it. The end of client_in may be a
        # half-close; only client_out shows that the client is gone. In the same way a half-close by the daemon is no
        # end: a socket reports POLLHUP when both of its directions are shut down.
        watched = daemon if down.finished else client_out
        events = _wait(up, down, watched)
        if events.get(watched, 0) & _GONE:
            return
        if _is_ready(down, events):
            try:
                down.step()
            except (BrokenPipeError, ConnectionResetError):
                return
        if _is_ready(up, events):
            try:
                up.step()
            except (BrokenPipeError, ConnectionResetError):
                up.end()  # the daemon reads no more, but its last answer may still be in the socket


def _wait(up: _Direction, down: _Direction, watched: int) -> dict[int, int]:
    """Wait until a direction can go on, or the peer of `watched` is gone; return poll's events by descriptor."""
    masks = {watched: 0}  # a mask of 0: errors and hangups only
    for direction in (up, down):
        if not direction.finished:
            descriptor, event = direction.waits_for
            masks[descriptor] = masks.get(descriptor, 0) | event  # both may wait for the daemon's socket
    poller = select.poll()
    for descriptor, mask in masks.items():
        poller.register(descriptor, mask)
    return dict(poller.poll())


def _is_ready(direction: _Direction, events: dict[int, int]) -> bool:
    if direction.finished:
        return False
    descriptor, event = direction.waits_for
    return bool(events.get(descriptor, 0) & (event | _GONE))


def _shut_down_writing(descriptor: int) -> None:
    """Make the other end see an end of file: shut down one direction of a socket, or close a pipe.

    sshd may give a command one socket as stdin and stdout: closing it would end both directions. And
    stdout's descriptor cannot just be closed: the next file that is opened would get its number.
    """
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), descriptor)
        return
    with socket.socket(fileno=os.dup(descriptor)) as shared, contextlib.suppress(OSError):  # where its peer has gone
        shared.shutdown(socket.SHUT_WR)
