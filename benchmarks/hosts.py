"""What keeps programs on terminals: Orbit, tmux, cmux, dtach and screen, each with the same programs.

A program that is hosted is a shell script. It writes its process id to the file that is its
first argument, so that it can be ended from here and what hosts it be found; nothing is found by its name.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.bench import ORBITD, START_SECS, Bench, configure, environment, served, socket_of
from benchmarks.client import LineClient
from benchmarks.peers import find
from benchmarks.processes import HAS_PROC, end, parent_of, tree
from benchmarks.results import Bar, Number, Outcome, Result, Skipped
from benchmarks.windows import COLS, ROWS, Window

ORBIT = "orbitctl session attach"
TMUX, CMUX, DTACH, SCREEN = "tmux attach", "cmux attach", "dtach -a", "screen -x"
BARE = "bare PTY read loop"
RIVALS = (TMUX, CMUX, DTACH, SCREEN)
KEEP_LINES = 10_000
NOT_INSTALLED = "not installed"
END_SECS = 5.0
_WRITES_PID = 'echo $$ > "$0.part" && mv "$0.part" "$0"\n'
_TMUX_CONF = f"set -g status off\nset -g history-limit {KEEP_LINES}\nset -sg escape-time 0\n"


@dataclass(frozen=True, kw_only=True)
class Script:
    """A program to be hosted.

    Args:
        text: For sh; its arguments are `$1` and so on.
        arguments: Those.
    """

    text: str
    arguments: tuple[str, ...] = ()

    def command(self, pid_file: Path) -> list[str]:
        """Return the command that writes its process id to a file and runs the script."""
        return ["sh", "-c", _WRITES_PID + self.text, str(pid_file), *self.arguments]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A session that runs.

    Args:
        attach: The command that shows it on a terminal.
        home: The home of what hosts it.
        pid: Of its program, which leads a process group.
        server: The process id of what hosts it, where that is one; else 0.
        session_id: The session's, where Orbit hosts it.
    """

    attach: Sequence[str]
    home: Path
    pid: int
    server: int = 0
    session_id: str = ""

    def window(self) -> Window:
        """Open a window and attach to the session in it."""
        return Window(self.attach, _variables(self.home), self.home)


Host = Callable[[Bench, Sequence[Script]], AbstractContextManager[list[Place]]]


@contextlib.contextmanager
def orbit(
    bench: Bench, scripts: Sequence[Script], *, settings: str = "", ends_programs: bool = True
) -> Iterator[list[Place]]:
    """Run one daemon with a live session for each script.

    Args:
        bench: The run.
        scripts: The programs.
        settings: What its configuration has.
        ends_programs: Whether they are ended at the end; else they go on and whoever asks so has to end them.
    """
    home = bench.new_home()
    configure(home, settings)
    with served(home, ORBITD) as daemon, LineClient(socket_of(home)) as client:
        ends = ends_programs
        try:
            yield [_orbit_place(client, home, daemon.pid, script) for script in scripts]
        except BaseException:
            ends = True
            raise
        finally:
            if ends:
                end_programs(home)


def hosting(places: Sequence[Place]) -> set[int]:
    """Return the processes that host these sessions, without their programs.

    They are the servers and what descends from them, and the parents of the programs: orbitd, its template and its
    screens processes, and the keeper; one server of tmux; one process a session of dtach, screen and cmux.
    """
    programs = tree(place.pid for place in places)
    above = {parent for place in places if (parent := parent_of(place.pid))}
    return (tree(place.server for place in places) | above) - programs


def everything(places: Sequence[Place], *windows: Window) -> set[int]:
    """Return the processes that host these sessions, their programs, and the clients in windows."""
    return hosting(places) | tree([*(place.pid for place in places), *(window.pid for window in windows)])


def _orbit_place(client: LineClient, home: Path, server: int, script: Script) -> Place:
    session_id, pid = start_session(client, script.command(_pid_file(home)), cwd=str(home))
    attach = [*orbitctl(), "attach", session_id]
    return Place(attach=attach, home=home, pid=pid, server=server, session_id=session_id)


@contextlib.contextmanager
def tmux(bench: Bench, scripts: Sequence[Script]) -> Iterator[list[Place]]:
    """Run one tmux server with a session for each script."""
    home = bench.new_home()
    (home / "tmux.conf").write_text(_TMUX_CONF)
    control = [_program("tmux"), "-S", str(home / "t"), "-f", str(home / "tmux.conf")]
    places: list[Place] = []
    try:
        for number, script in enumerate(scripts):
            pid_file = _pid_file(home)
            new = ["new-session", "-d", "-x", str(COLS), "-y", str(ROWS), "-s", f"s{number}", "--"]
            _run([*control, *new, *script.command(pid_file)], home)
            server = int(_run([*control, "display-message", "-p", "#{pid}"], home))
            attach = [*control, "attach", "-t", f"s{number}"]
            places.append(Place(attach=attach, home=home, pid=_written(pid_file), server=server))
        yield places
    finally:
        subprocess.run([*control, "kill-server"], env=_variables(home), check=False, capture_output=True)
        end({place.server for place in places}, END_SECS)  # it may take minutes to close a thousand sessions
        for place in places:
            _end_group(place.pid)


@contextlib.contextmanager
def cmux(bench: Bench, scripts: Sequence[Script]) -> Iterator[list[Place]]:
    """Run one cmux server, which keeps its state on disk as it does by itself, with a workspace for each script."""
    home = bench.new_home()
    program = peers.cmux(bench)
    assert program is not None
    control = [program, "--socket", str(home / "c")]
    with contextlib.ExitStack() as stack:
        started = _run([program, "server", "ensure", "--session", "bench", *control[1:], "--json"], home)
        server = int(json.loads(started)["pid"])
        places: list[Place] = []
        stack.callback(_end_cmux, server, places)
        for number, script in enumerate(scripts):
            pid_file = _pid_file(home)
            made = _run([*control, "--json", "workspace", "create", "--name", f"w{number}", "--empty"], home)
            workspace = json.loads(made)["value"]["workspace_id"]
            run = ["--json", "workspace", workspace, "run", "--", *script.command(pid_file)]
            terminal = json.loads(_run([*control, *run], home))["value"]["terminal_id"]
            pid = _written(pid_file)
            attach = [program, "attach", *control[1:], "--terminal", terminal]
            places.append(Place(attach=attach, home=home, pid=pid, server=server))
        yield places


@contextlib.contextmanager
def dtach(bench: Bench, scripts: Sequence[Script]) -> Iterator[list[Place]]:
    """Run each script under a dtach of its own."""
    home = bench.new_home()
    with contextlib.ExitStack() as stack:
        places = []
        for number, script in enumerate(scripts):
            pid_file = _pid_file(home)
            _run([_program("dtach"), "-n", str(home / f"d{number}"), "-E", *script.command(pid_file)], home)
            pid = _written(pid_file)
            stack.callback(_end_group, pid)
            attach = [_program("dtach"), "-a", str(home / f"d{number}"), "-E", "-r", "none"]
            places.append(Place(attach=attach, home=home, pid=pid))
        yield places


@contextlib.contextmanager
def screen(bench: Bench, scripts: Sequence[Script]) -> Iterator[list[Place]]:
    """Run each script under a screen of its own."""
    home = bench.new_home()
    (home / "screens").mkdir(mode=0o700)
    control = [_program("screen"), "-c", os.devnull, "-h", str(KEEP_LINES)]
    with contextlib.ExitStack() as stack:
        places = []
        for number, script in enumerate(scripts):
            pid_file = _pid_file(home)
            _run([*control, "-dmS", f"s{number}", *script.command(pid_file)], home)
            pid = _written(pid_file)
            stack.callback(_end_group, pid)
            # Not -r: a client that was killed counts as attached for a second, and -r waits for it.
            places.append(Place(attach=[*control, "-x", f"s{number}"], home=home, pid=pid))
        yield places


@contextlib.contextmanager
def bare(bench: Bench, scripts: Sequence[Script]) -> Iterator[list[Place]]:
    """Run a script on the window's own terminal, once it is opened: nothing in between."""
    home = bench.new_home()
    yield [Place(attach=script.command(_pid_file(home)), home=home, pid=0) for script in scripts]


HOSTS: dict[str, tuple[Host, str]] = {
    ORBIT: (orbit, ""),
    TMUX: (tmux, "tmux"),
    CMUX: (cmux, "cmux"),
    DTACH: (dtach, "dtach"),
    SCREEN: (screen, "screen"),
    BARE: (bare, "sh"),
}
"""Each one's way of hosting, and the program that it needs."""


def is_here(bench: Bench, name: str) -> bool:
    """Return whether what a host needs is installed, or can be."""
    needed = HOSTS[name][1]
    return peers.cmux(bench) is not None if name == CMUX else not needed or find(needed) is not None


def here(bench: Bench, names: Sequence[str] = (ORBIT, *RIVALS)) -> list[str]:
    """Return those hosts that can be measured."""
    return [name for name in names if is_here(bench, name)]


def beside(
    figure: str, number: Number, baselines: Mapping[str, Number], bars: Mapping[str, Bar], *, unable: Sequence[str] = ()
) -> list[Outcome]:
    """Return a number beside each rival's, in the order of `RIVALS`.

    Args:
        figure: Its name.
        number: Orbit's.
        baselines: The rivals' by their name; one that is in none of the arguments is not installed.
        bars: The promises beside them.
        unable: Rivals that cannot do this.
    """
    outcomes: list[Outcome] = []
    for name in RIVALS:
        if name in unable:
            outcomes.append(Result(figure=figure, number=number, unable=name))
        elif name in baselines:
            outcomes.append(Result(figure=figure, number=number, baseline=baselines[name], bar=bars.get(name)))
        else:
            outcomes.append(Skipped(figure=figure, what=f"{number.name} / {name}", reason=NOT_INSTALLED))
    return outcomes


def orbitctl() -> list[str]:
    """Return the installed script beside this interpreter, else the module."""
    script = find("orbitctl")
    return [script] if script is not None else [sys.executable, "-m", "orbitctl"]


def start_session(client: LineClient, command: Sequence[str], **config: Any) -> tuple[str, int]:
    """Make a session and start it; return its id and its program's process id."""
    config = {"session_type": "local", "command": shlex.join(command), **config}
    session_id = client.call("session.create", config=config)["id"]
    return session_id, client.call("session.start", id=session_id, cols=COLS, rows=ROWS)["pid"]


def all_sessions(client: LineClient) -> list[dict[str, Any]]:
    """Return all open sessions, page after page."""
    page = client.call("session.list")
    found: list[dict[str, Any]] = page["sessions"]
    while page.get("next_cursor"):
        page = client.call("session.list", cursor=page["next_cursor"])
        found += page["sessions"]
    return found


def end_programs(home: Path) -> None:
    """Kill every program of a daemon; the keeper ends with the daemon then."""
    with LineClient(socket_of(home)) as client:
        live = [one["id"] for one in all_sessions(client) if one.get("live")]
        for session_id in live:
            client.call("session.signal", id=session_id, signal="KILL")
        for session_id in live:
            client.call("session.wait", id=session_id, timeout_secs=START_SECS)


def _variables(home: Path) -> dict[str, str]:
    return {**environment(home), "SCREENDIR": str(home / "screens"), "ORBITCTL_NO_AUTOSTART": "1"}


def _program(name: str) -> str:
    found = find(name)
    assert found is not None
    return found


def _pid_file(home: Path) -> Path:
    number = sum(1 for _ in home.glob("pid*.mark"))
    (home / f"pid{number}.mark").touch()
    return home / f"pid{number}"


def _run(command: Sequence[str], home: Path) -> str:
    ran = subprocess.run(
        command, env=_variables(home), cwd=home, check=True, capture_output=True, text=True, timeout=START_SECS
    )
    return ran.stdout


def _written(path: Path) -> int:
    """Return the process id that a program writes down as the first thing it does."""
    deadline = time.monotonic() + START_SECS
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} is not written")
        time.sleep(0.01)
    return int(path.read_text())


def _end_cmux(server: int, places: Sequence[Place]) -> None:
    """End a cmux server, then the programs; wait for the processes that host them, which write down the end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, signal.SIGKILL)
    hosts = hosting(places) if HAS_PROC else set()
    for place in places:
        _end_group(place.pid)
    end({server, *hosts}, END_SECS)


def _end_group(pid: int) -> None:
    """End a program that was started here, and its children; what hosts it ends with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
