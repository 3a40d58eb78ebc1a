"""Which sessions a client sits in, and whether what it asks for would make a session show itself.

A session that shows itself, at one remove or at three, prints its own output for ever. So a client may not attach to a
session that it sits in, nor to one that shows that one.

**Where a client sits** is asked of the kernel. The process at the other end of the connection is looked at, then its
parent, and so on upwards until one belongs to a session, which means that one of these holds:

1. It is in the POSIX session of the program (setsid(2)), whose leader the program is. Process groups, `nohup` and a
   shell in a shell do not leave that.
2. It has the program's terminal open. A client that `setsid` or a double fork took out of 1 still writes there. And so
   do the servers of tmux and screen, which are the parents of what runs in their panes: they have those terminals
   open that show them at the moment, and no others. From a tmux that was started in a session and is shown elsewhere
   now, that session can be attached.

The variable ORBIT_SESSION counts where nothing better is there: for a process that has a terminal open as /dev/tty and
has left that terminal's POSIX session, the kernel does not say which terminal it is. Otherwise it counts for nothing:
those servers keep it as it was when they started, and anybody can unset it.

Not seen: a circle through another machine, another orbitd or a relay of the socket, whose processes are not known here
(`--host`: the peer is `dial-stdio` under sshd); and one that a terminal multiplexer closes later, when somebody
attaches the multiplexer and not a session. Without /proc, 1 alone counts, of the client's own process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

from orbit_protocol.errors import WouldLoop
from orbit_protocol.text import to_text
from orbitd.rpc.connection import Connection, PeerProcess
from orbitd.sessions.session import LiveSession

MAX_PARENTS = 256
MAX_OPEN_FILES = 4096
"""How many processes are looked at for one client, and how many of the files that each has open."""

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PTS_FOLDER, _CONTROLLING_TERMINAL = "/dev/pts/", "/dev/tty"
_UNKNOWN = -1


class Process(Struct, frozen=True, kw_only=True):
    """What tells where a process sits.

    Attributes:
        parent: Its parent's pid; 0 where it has none, or that is not known.
        leader: The pid of its POSIX session's leader.
        started_at: When it was started, in seconds of the clock of `PeerProcess.connected_at`.
        terminals: The numbers N of each /dev/pts/N that it has open.
        variable: ORBIT_SESSION in its environment, where it has a terminal open of which nothing else is known.
    """

    parent: int = 0
    leader: int = 0
    started_at: float = 0.0
    terminals: frozenset[int] = frozenset()
    variable: str = ""


class Programs(Struct, frozen=True, kw_only=True):
    """The programs of all sessions: the session's id by the program's pid, and by the number of its terminal."""

    by_pid: Mapping[int, str]
    by_terminal: Mapping[int, str]


def sessions_of(peer: PeerProcess, programs: Programs, read: Callable[[int], Process | None]) -> frozenset[str]:
    """Return the sessions that a client sits in: mostly none or one, more in a tmux that several show.

    Args:
        peer: The client's process.
        programs: What runs.
        read: Returns a process by its pid, None where it has ended.
    """
    pid = peer.pid
    for _ in range(MAX_PARENTS):
        process = read(pid) if pid > 0 else None
        # The kernel has kept the pid from connect(2). One that was started later is another process with the same pid.
        if process is None or process.started_at > peer.connected_at:
            break
        found = {programs.by_terminal[number] for number in process.terminals & programs.by_terminal.keys()}
        if process.leader in programs.by_pid:
            found.add(programs.by_pid[process.leader])
        if process.variable and process.variable in programs.by_pid.values():
            found.add(process.variable)
        if found:
            return frozenset(found)
        pid = process.parent
    return frozenset()


def find_circle(session: str, sits_in: Iterable[str], shows: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the circle that an attach would close: from the session to one that the client sits in; [] for none.

    Args:
        session: What the client asks for.
        sits_in: The sessions that the client sits in.
        shows: What each session shows, by the clients that sit in it.
    """
    goals = frozenset(sits_in)
    ways, seen = [[session]], {session}
    for way in ways:  # it grows meanwhile: a breadth-first search
        if way[-1] in goals:
            return way
        for shown in shows.get(way[-1], ()):
            if shown not in seen:
                seen.add(shown)
                ways.append([*way, shown])
    return []


class Circles:
    """Refuses the attach that would close a circle.

    Args:
        sessions: All sessions of the daemon.
    """

    def __init__(self, sessions: Iterable[LiveSession]) -> None:
        self._sessions = sessions

    async def find_sessions_of(self, connection: Connection) -> frozenset[str]:
        """Return the sessions that a client sits in now. What is known of the attached ones is brought up to date.

        A client that sits in none closes no circle, and is most of them: only for the others all are looked at.
        """
        programs = self._programs()
        (found,) = await asyncio.to_thread(_find_all, [connection.peer], programs)
        if found:
            attached = [each for live in self._sessions for each in live.attachments]
            places = await asyncio.to_thread(_find_all, [each.connection.peer for each in attached], programs)
            for attachment, sits_in in zip(attached, places, strict=True):
                attachment.sits_in = sits_in
        return found

    def refuse(self, session_id: str, sits_in: frozenset[str]) -> None:
        """Refuse a circle. The attachment has to follow in the same turn of the loop, or two could close one together.

        Raises:
            WouldLoop: The session would show itself; `data.sessions` is the circle.
        """
        if not sits_in:
            return
        shows: dict[str, set[str]] = {}
        for live in self._sessions:
            for attachment in live.attachments:
                for place in attachment.sits_in:
                    shows.setdefault(place, set()).add(live.id)
        if circle := find_circle(session_id, sits_in, shows):
            how = ", which shows ".join(circle[1:])
            where = f"it shows {how}, which this client sits in" if how else "this client sits in it"
            raise WouldLoop(f"Session {session_id} would show itself: {where}", data={"sessions": circle})

    def _programs(self) -> Programs:
        running = [live for live in self._sessions if live.has_program]
        numbers = ((live.terminal_number, live.id) for live in running)
        return Programs(
            by_pid={live.pid: live.id for live in running if live.pid},
            by_terminal={number: session_id for number, session_id in numbers if number is not None},
        )


def _find_all(peers: Iterable[PeerProcess | None], programs: Programs) -> list[frozenset[str]]:
    return [frozenset() if peer is None else sessions_of(peer, programs, read_process) for peer in peers]


# The kernel's side


def read_process(pid: int) -> Process | None:
    """Return what the kernel knows of a process; without /proc, only its POSIX session."""
    if sys.platform != "linux":
        try:
            return Process(leader=os.getsid(pid))
        except OSError:
            return None
    try:
        _, fields = _read_stat(pid)
    except OSError:
        return None
    parent, leader, controlling_terminal, started_at = (int(fields[number]) for number in (1, 3, 4, 19))
    terminals = frozenset(_open_terminals(f"/proc/{pid}/fd"))
    return Process(
        parent=parent,
        leader=leader,
        started_at=started_at / _CLOCK_TICKS,
        terminals=terminals - {_UNKNOWN},
        variable=_session_variable(pid) if _UNKNOWN in terminals and not controlling_terminal else "",
    )


def program_name(peer: PeerProcess) -> str | None:
    """Return the name of the program that a client is; None where it has ended, or that is not known."""
    if sys.platform != "linux" or peer.pid <= 0:
        return None
    try:
        name, fields = _read_stat(peer.pid)
    except OSError:
        return None
    return to_text(name) if int(fields[19]) / _CLOCK_TICKS <= peer.connected_at else None


def _read_stat(pid: int) -> tuple[bytes, list[bytes]]:
    """Return a process's name, and the fields of proc(5) from the state on. Raises: OSError."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        head, _, fields = file.read().rpartition(b")")  # the name may hold anything
    return head.partition(b"(")[2], fields.split()


def _open_terminals(folder: str) -> Iterator[int]:
    """Yield the numbers of the terminals that a process has open, and `_UNKNOWN` for one that it has as /dev/tty."""
    try:
        with os.scandir(folder) as entries:
            # In the order of their numbers: stdin, stdout and stderr are among the first.
            paths = [entry.path for entry in itertools.islice(entries, MAX_OPEN_FILES)]
    except OSError:  # it has ended, or belongs to another user
        return
    for path in paths:
        try:
            # The link is read first, and stat(2) is not called for what else is open: a dead NFS server holds it up.
            name = os.readlink(path)
            if name == _CONTROLLING_TERMINAL:
                yield _UNKNOWN
            number = name.removeprefix(_PTS_FOLDER)
            # A container has terminals of its own with the same names.
            if name.startswith(_PTS_FOLDER) and number.isdecimal() and os.path.samefile(path, name):
                yield int(number)
        except OSError:
            continue


def _session_variable(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return ""
    name = b"ORBIT_SESSION="
    return next((each.removeprefix(name).decode(errors="replace") for each in variables if each.startswith(name)), "")
