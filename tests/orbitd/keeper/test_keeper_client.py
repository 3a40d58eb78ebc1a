"""orbitd's client against a real keeper: what survives what."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

import orbitd.keeper.client as client_module
from keeper_support import (
    SECONDS,
    KeeperProcess,
    Orbitd,
    ProcessWatch,
    open_files,
    read_to_end,
    read_until,
    request,
    status_of,
)
from orbit_protocol.errors import (
    AlreadyRunning,
    InternalError,
    LiveUnavailable,
    NotRunning,
    RequestTimeout,
    SpawnFailed,
)
from orbitd.keeper.client import KeeperClient, KeeperGone, SignalTarget, SpawnRequest

ROOT = str(Path(__file__).parents[3])
ECHO = ("sh", "-c", 'while read -r line; do echo "got $line"; done')


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_both_loops(stopped: KeeperProcess, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Start, use, exit, acknowledge, forget and leave work the same under both event loops."""

    async def scenario() -> None:
        orbitd = await stopped.orbitd()
        pid, master = await orbitd.spawn("sh", "-c", "read line; exit 3")
        [running] = await orbitd.client.programs()
        assert (running.id, running.pid, running.ended_at) == ("one", pid, None)
        os.write(master, b"\n")
        ended = await orbitd.exit()
        assert (ended.exit_code, ended.exit_signal, ended.acknowledged) == (3, None, False)
        assert ended.ended_at is not None
        assert ended.ended_at >= ended.started_at
        await orbitd.client.acknowledge_exit("one")
        assert [program.acknowledged for program in await orbitd.client.programs()] == [True]
        await orbitd.client.forget("one")
        assert await orbitd.client.programs() == []
        watch = ProcessWatch(orbitd.client.keeper_pid)
        orbitd.close()
        watch.wait()

    run(scenario())


async def test_exit_by_signal(orbitd: Orbitd) -> None:
    """A program that a signal ends has that signal and no exit code."""
    await orbitd.spawn("sleep", "1000")

    await orbitd.client.signal("one", signal.SIGKILL)

    ended = await orbitd.exit()
    assert (ended.exit_code, ended.exit_signal) == (None, signal.SIGKILL)
    with pytest.raises(NotRunning):
        await orbitd.client.signal("one", signal.SIGKILL)


WHO_HEARS = """
trap 'echo shell heard' USR1; set -m
sh -c 'trap "echo job heard" USR1; echo ready; while read -r line; do echo "job read $line"; done'
"""


@pytest.mark.parametrize(("target", "hears"), [("program", b"shell"), ("group", b"shell"), ("foreground", b"job")])
async def test_whom_a_signal_reaches(orbitd: Orbitd, target: SignalTarget, hears: bytes) -> None:
    """A signal reaches the program, its group, or the job at the terminal's foreground, as asked."""
    _, master = await orbitd.spawn("bash", "-c", WHO_HEARS)
    read_until(master, b"ready")

    await orbitd.client.signal("one", signal.SIGUSR1, target)
    os.write(master, b"on\n\x04")  # the job ends; a shell runs its traps when its foreground job has ended

    heard = read_to_end(master)
    assert hears + b" heard" in heard
    assert heard.count(b" heard") == 1


async def test_signal_that_is_none(orbitd: Orbitd) -> None:
    """A signal or target that does not exist is refused, and the program runs on."""
    await orbitd.spawn("sleep", "1000")

    with pytest.raises(InternalError):
        await orbitd.client.signal("one", 9999)
    with pytest.raises(InternalError):
        await orbitd.client.signal("one", signal.SIGTERM, "everybody")  # type: ignore[arg-type]

    assert (await orbitd.client.programs())[0].ended_at is None


async def test_unknown_program(orbitd: Orbitd) -> None:
    """What the keeper does not know is not running."""
    for call in (orbitd.client.take, orbitd.client.acknowledge_exit, orbitd.client.forget):
        with pytest.raises(NotRunning):
            await call("nobody")


async def test_forgetting_needs_an_end(orbitd: Orbitd) -> None:
    """A program that runs can neither be acknowledged nor forgotten: its terminal would be hung up."""
    await orbitd.spawn("sleep", "1000")

    for call in (orbitd.client.acknowledge_exit, orbitd.client.forget):
        with pytest.raises(AlreadyRunning):
            await call("one")


async def test_masters_are_ours_to_close(orbitd: Orbitd) -> None:
    """Closing a master here leaves the program alone; taking it again gives the same terminal, closed on exec."""
    _, master = await orbitd.spawn(*ECHO)
    os.close(orbitd.masters.pop())

    master = await orbitd.take("one")

    assert not os.get_inheritable(master)
    os.write(master, b"once more\n")
    assert read_until(master, b"got once more")


async def test_landing_buffer(orbitd: Orbitd) -> None:
    """The buffer is ours to close, is closed on exec, and can be asked for again."""
    first, second = await orbitd.client.landing(), await orbitd.client.landing()
    assert first is not None
    assert second is not None
    assert os.fstat(first).st_ino == os.fstat(second).st_ino
    assert not os.get_inheritable(first)
    os.close(first)
    os.close(second)


@pytest.mark.parametrize(
    "change", ["del server.HANDLERS['landing']", "del os.memfd_create", "server.LANDING_BYTES = -1"]
)
async def test_a_keeper_without_a_landing_buffer(folder: Path, stopped: KeeperProcess, change: str) -> None:
    """A keeper that is older than the request, or whose system cannot do it, says so and serves on."""
    program = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from orbitd.keeper import daemonize, server\n"
        f"{change}\n"
        "daemonize.main(sys.argv[1])"
    )
    arguments = [sys.executable, "-c", program, stopped.path, ROOT, os.path.join(ROOT, "protocol")]
    await asyncio.to_thread(subprocess.run, arguments, check=True, timeout=SECONDS)
    orbitd = await stopped.orbitd()

    assert await orbitd.client.landing() is None
    assert await orbitd.client.landing() is None
    assert await orbitd.client.programs() == []


async def test_folders_with_an_older_keeper(orbitd: Orbitd, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes HOME in the place of a folder that is gone is sent the first that is there, or nothing."""
    sent: list[tuple[bytes, ...]] = []
    fields_of = client_module._spawn_fields

    def noted(request: SpawnRequest) -> list[tuple[str, Any]]:
        sent.append(request.folders)
        return fields_of(request)

    monkeypatch.setattr(client_module, "_spawn_fields", noted)
    assert orbitd.client.takes_folders
    orbitd.client.takes_folders = False
    gone, file, here = (os.fsencode(each) for each in (folder / "gone", sys.executable, folder))
    spawned = await orbitd.client.spawn(request("true", folders=(gone, file, here, "/")))
    os.close(spawned.master_fd)
    assert (sent, spawned.cwd) == ([(here,)], here)
    with pytest.raises(SpawnFailed, match=r"cannot start in .*gone: No such file"):
        await orbitd.client.spawn(request("true", id="two", folders=(gone, file)))
    assert len(sent) == 1


async def test_size_follows_the_master(orbitd: Orbitd) -> None:
    """A size set on a master that was handed out reaches the program with SIGWINCH."""
    _, master = await orbitd.spawn("bash", "-c", "trap 'stty size' WINCH; echo ready; while :; do read -r -t 1; done")
    read_until(master, b"ready")

    termios.tcsetwinsize(master, (50, 132))

    assert read_until(master, b"50 132")


async def test_exits_while_away(stopped: KeeperProcess) -> None:
    """Exits and output of programs that end while no orbitd is there are told to the next one, until forgotten."""
    first = await stopped.orbitd()
    watches = []
    for number in range(3):
        pid, master = await first.spawn("sh", "-c", f"read -r line; echo last words; exit {number}", id=f"p{number}")
        watches.append(ProcessWatch(pid))
        os.write(master, b"\n")
    first.close()
    for watch in watches:
        watch.wait()

    for _ in range(2):  # acknowledged or not, until it is forgotten
        later = await stopped.orbitd()
        programs = {program.id: program for program in await later.client.programs()}
        assert {name: program.exit_code for name, program in programs.items()} == {"p0": 0, "p1": 1, "p2": 2}
        await later.client.acknowledge_exit("p1")
        later.close()

    last = await stopped.orbitd()
    for name in ("p0", "p1", "p2"):
        assert b"last words" in read_to_end(await last.take(name))
        await last.client.acknowledge_exit(name)
        await last.client.forget(name)
    assert await last.client.programs() == []


ORBITD = """
import asyncio, json, os, sys
sys.path[:0] = [sys.argv[2]]
import orbitd.keeper.client as client_module
from orbitd.keeper.client import KeeperClient
from orbitd.keeper.client import SpawnRequest
async def main():
    client = await KeeperClient.connect_or_start(sys.argv[1], on_exit=print, on_gone=print)
    spawned = await client.spawn(SpawnRequest(
        id='one', file=b'sh', argv=tuple(map(os.fsencode, sys.argv[3:])), env={b'PATH': b'/usr/bin:/bin'},
        folders=(b'/',), cols=80, rows=24, umask=18))
    print(json.dumps([client.keeper_pid, spawned.pid]), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def killed_orbitd(path: str, *argv: str) -> tuple[int, int]:
    """Run another orbitd that starts the keeper and a program, and kill it; return the pids of both."""
    command = [sys.executable, "-c", ORBITD, path, ROOT, *argv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as orbitd:
        assert orbitd.stdout is not None
        keeper_pid, pid = json.loads(orbitd.stdout.readline())
        os.killpg(orbitd.pid, signal.SIGKILL)
    return keeper_pid, pid


def terminal_of(master: int) -> str:
    tiocgptn = 0x80045430  # ioctl_tty(2); termios does not name it before Python 3.13
    number = int.from_bytes(fcntl.ioctl(master, tiocgptn, b"\0" * 4), sys.byteorder)
    return f"/dev/pts/{number}"


async def test_orbitd_killed(stopped: KeeperProcess) -> None:
    """An orbitd killed with its whole group leaves keeper, program and terminal as they are for the next one."""
    keeper_pid, pid = await asyncio.to_thread(killed_orbitd, stopped.path, *ECHO)

    orbitd = await stopped.orbitd()

    assert orbitd.client.keeper_pid == keeper_pid
    [program] = await orbitd.client.programs()
    assert (program.pid, program.ended_at) == (pid, None)
    master = await orbitd.take("one")
    assert os.readlink(f"/proc/{pid}/fd/0") == terminal_of(master)
    os.write(master, b"anybody there?\n")
    assert read_until(master, b"got anybody there?")


async def test_output_that_nobody_reads(stopped: KeeperProcess) -> None:
    """A program that prints while no orbitd is there waits when the kernel's buffer is full, and no byte is lost."""
    count = 300_000
    await asyncio.to_thread(killed_orbitd, stopped.path, "sh", "-c", f"head -c {count} /dev/zero | tr '\\0' x; exit 7")

    orbitd = await stopped.orbitd()

    [program] = await orbitd.client.programs()
    assert program.ended_at is None, "it cannot have written that much"
    assert read_to_end(await orbitd.take("one")) == b"x" * count
    assert (await orbitd.exit()).exit_code == 7


async def test_keeper_killed(orbitd: Orbitd, folder: Path) -> None:
    """If the keeper is killed, orbitd is told, and programs are hung up once orbitd closes its masters."""
    note = folder / "note"
    script = f'trap "echo hung up > {note}; exit" HUP; echo ready; while :; do read -r line; done'
    pid, master = await orbitd.spawn("sh", "-c", script)
    read_until(master, b"ready")
    watch = ProcessWatch(pid)

    os.kill(orbitd.client.keeper_pid, signal.SIGKILL)

    gone = await asyncio.wait_for(orbitd.gone, SECONDS)
    assert not gone.superseded
    with pytest.raises(KeeperGone):
        await orbitd.client.programs()
    orbitd.close_masters()
    watch.wait()
    assert note.read_bytes() == b"hung up\n"


async def test_call_under_way_when_the_keeper_dies(orbitd: Orbitd) -> None:
    """A call that waits for a keeper that dies is told at once."""
    os.kill(orbitd.client.keeper_pid, signal.SIGSTOP)
    call = asyncio.create_task(orbitd.client.programs())
    await asyncio.sleep(0)

    os.kill(orbitd.client.keeper_pid, signal.SIGKILL)

    with pytest.raises(KeeperGone):
        await asyncio.wait_for(call, SECONDS)


async def test_superseded(stopped: KeeperProcess) -> None:
    """An orbitd that another one replaces is told so: the programs have not ended."""
    elder = await stopped.orbitd()
    await elder.spawn("sleep", "1000")

    newer = await stopped.orbitd()

    assert (await asyncio.wait_for(elder.gone, SECONDS)).superseded
    with pytest.raises(KeeperGone, match="taken over"):
        await elder.client.programs()
    assert len(await newer.client.programs()) == 1


async def test_connect_only(stopped: KeeperProcess) -> None:
    """An orbitd that only looks for a keeper starts none."""

    async def connect() -> KeeperClient | None:
        return await KeeperClient.connect(stopped.path, on_exit=print, on_gone=print)

    assert await connect() is None
    orbitd = await stopped.orbitd()
    await orbitd.spawn("sleep", "1000")
    client = await connect()
    assert client is not None
    assert len(await client.programs()) == 1
    client.close()


async def test_starting_at_once(stopped: KeeperProcess) -> None:
    """Several that connect or start at the same moment all meet the same keeper."""
    orbitds = await asyncio.gather(*(stopped.orbitd() for _ in range(4)))

    assert len({orbitd.client.keeper_pid for orbitd in orbitds}) == 1


async def test_cancelled_before_the_answer(orbitd: Orbitd) -> None:
    """The terminal of a caller that has given up is closed when it arrives."""
    await orbitd.spawn("sleep", "1000")
    before = open_files()

    call = asyncio.create_task(orbitd.client.take("one"))
    await asyncio.sleep(0)  # it has been sent
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert len(await orbitd.client.programs()) == 1
    assert open_files() == before


async def test_cancelled_with_the_answer(orbitd: Orbitd, folder: Path) -> None:
    """The terminal of a caller that gives up in the moment when it arrives is closed."""
    await orbitd.spawn("sleep", "1000")
    before = open_files()
    answered = folder / "answered"
    os.mkfifo(answered)

    async def list_and_cancel() -> None:
        await orbitd.client.programs()
        taken.cancel()  # its answer has been read together with this one

    listed = asyncio.create_task(list_and_cancel())
    taken = asyncio.create_task(orbitd.client.take("one"))
    last = asyncio.create_task(orbitd.spawn("sh", "-c", f"echo > {answered}", id="two"))
    await asyncio.sleep(0)  # all three have been sent
    answered.read_bytes()
    await listed
    with pytest.raises(asyncio.CancelledError):
        await taken
    os.close((await last)[1])
    orbitd.masters.pop()

    assert open_files() == before


async def test_late_answer(orbitd: Orbitd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that the keeper does not answer in time says so; its late answer is dropped with its descriptor."""
    await orbitd.spawn("sleep", "1000")
    before = open_files()
    os.kill(orbitd.client.keeper_pid, signal.SIGSTOP)
    monkeypatch.setattr(client_module, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(client_module, "SPAWN_SECONDS", 0.01)
    with pytest.raises(LiveUnavailable, match=f"pid {orbitd.client.keeper_pid}"):
        await orbitd.client.take("one")
    with pytest.raises(RequestTimeout):
        await orbitd.spawn("cat", id="two")
    monkeypatch.undo()
    os.kill(orbitd.client.keeper_pid, signal.SIGCONT)

    assert [program.id for program in await orbitd.client.programs()] == ["one", "two"]
    assert open_files() == before


async def test_stopped_keeper(stopped: KeeperProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that does not answer is not replaced: its programs live."""
    orbitd = await stopped.orbitd()
    await orbitd.spawn("sleep", "1000")
    os.kill(orbitd.client.keeper_pid, signal.SIGSTOP)
    monkeypatch.setattr(client_module, "ANSWER_SECONDS", 0.01)

    with pytest.raises(KeeperGone, match="does not answer"):
        await stopped.orbitd()

    os.kill(orbitd.client.keeper_pid, signal.SIGCONT)


async def test_two_hundred_programs(stopped: KeeperProcess) -> None:
    """Two hundred programs at once have a terminal each, end each with its status, and leave the keeper small."""
    count = 200
    orbitd = await stopped.orbitd()
    names = [f"p{number}" for number in range(count)]
    env = {"PATH": "/usr/bin:/bin", **{f"VARIABLE_{number}": "x" * 50 for number in range(50)}}

    started = await asyncio.gather(*(orbitd.client.spawn(request("cat", id=name, env=env)) for name in names))
    orbitd.masters += [spawned.master_fd for spawned in started]

    assert len({terminal_of(spawned.master_fd) for spawned in started}) == count
    assert [program.id for program in await orbitd.client.programs()] == names
    for spawned in started:
        os.write(spawned.master_fd, b"\x04")
    exits = [await orbitd.exit() for _ in names]
    assert {(program.id, program.exit_code) for program in exits} == {(name, 0) for name in names}
    status = status_of(orbitd.client.keeper_pid)
    assert int(status["VmHWM"].split()[0]) < 12 * 1024, "kB at its largest"
    watch = ProcessWatch(orbitd.client.keeper_pid)
    await asyncio.gather(*(orbitd.client.acknowledge_exit(name) for name in names))
    orbitd.close()
    watch.wait()
