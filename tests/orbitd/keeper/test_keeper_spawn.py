"""What a program finds when the keeper has started it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keeper_support import (
    SECONDS,
    KeeperProcess,
    Orbitd,
    open_files,
    proc_file,
    read_to_end,
    read_until,
    request,
    status_of,
)
from orbit_protocol.errors import AlreadyRunning, OrbitError, SpawnFailed, TooManySessions
from orbitd.keeper.client import NO_TERMINAL, parse_error
from orbitd.keeper.messages import Framer, encode
from orbitd.keeper.program import Program, start_program

PROBE = """
import fcntl, json, os, resource, stat, sys, termios
def open_files():
    found = []
    for name in os.listdir('/proc/self/fd'):
        try:
            found.append([int(name), os.readlink('/proc/self/fd/' + name)])
        except FileNotFoundError:
            pass
    return sorted(found)
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print('<' + json.dumps({
    'files': open_files(),
    'tty': os.ttyname(0),
    'session': os.getsid(0) == os.getpid(),
    'leads_group': os.getpgrp() == os.getpid(),
    'foreground': os.tcgetpgrp(os.open('/dev/tty', os.O_RDWR)) == os.getpid(),
    'size': list(os.get_terminal_size(0)),
    'utf8': bool(termios.tcgetattr(0)[0] & 0x4000),
    'cwd': os.getcwd(),
    'umask': os.umask(0),
    'env': {name: value for name, value in os.environ.items() if name != 'LC_CTYPE'},
    'ignored': int(status['SigIgn'], 16), 'blocked': int(status['SigBlk'], 16),
    'files_limit': resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    'limits': [resource.getrlimit(getattr(resource, 'RLIMIT_' + each))[0] for each in ('NOFILE', 'CORE', 'FSIZE')],
    'hard': resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    'nice': os.getpriority(os.PRIO_PROCESS, 0),
    'cpus': sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None,
    'policy': os.sched_getscheduler(0) if hasattr(os, 'sched_getscheduler') else None,
}) + '>')
"""


async def probe(orbitd: Orbitd, **changes: object) -> dict[str, Any]:
    """Run the probe and return what it found."""
    _, master = await orbitd.spawn(sys.executable, "-I", "-S", "-c", PROBE, **changes)
    seen = read_to_end(master).decode()
    found: dict[str, Any] = json.loads(seen[seen.index("<") + 1 : seen.rindex(">")])
    return found


async def test_controlling_terminal(orbitd: Orbitd) -> None:
    """A program leads its session, owns its terminal and stands at its foreground."""
    found = await probe(orbitd)

    assert found["session"]
    assert found["leads_group"]
    assert found["foreground"]
    assert found["tty"].startswith("/dev/pts/")
    assert found["utf8"]


async def test_no_descriptors_leak(orbitd: Orbitd) -> None:
    """A program has its terminal as 0, 1 and 2 and nothing else, however many others are kept."""
    for number in range(3):
        await orbitd.spawn("sleep", "1000", id=f"other-{number}")

    found = await probe(orbitd)

    assert found["files"] == [[number, found["tty"]] for number in range(3)] + found["files"][3:]
    assert [path for _, path in found["files"][3:] if not path.startswith("/proc/")] == []


async def test_window_size_at_exec(orbitd: Orbitd) -> None:
    """The size is set before the program starts."""
    assert (await probe(orbitd, cols=133, rows=41))["size"] == [133, 41]


async def test_environment(orbitd: Orbitd) -> None:
    """A program gets the environment of its request, to the byte, and nothing of the keeper's or the daemon's."""
    env = {"PATH": "/bin", "EMPTY": "", "LINES_TOO": "a\nb=c", "BYTES": b"\xff\xfe".decode(errors="surrogateescape")}

    assert (await probe(orbitd, env=env))["env"] == env


async def test_nameless_variable(orbitd: Orbitd) -> None:
    """An entry that execve does not take is left out and does not keep the program from starting."""
    assert (await probe(orbitd, env={"": "nameless", "A": "1"}))["env"] == {"A": "1"}


async def test_folder(orbitd: Orbitd, folder: Path) -> None:
    """A program starts in the folder that was asked for."""
    assert (await probe(orbitd, folders=(str(folder),)))["cwd"] == str(folder)


async def test_folder_gone(orbitd: Orbitd, folder: Path) -> None:
    """Where a folder cannot be entered, the program starts in the next one, and the answer says so."""
    (folder / "file").touch()
    spawned = await orbitd.client.spawn(request("pwd", folders=("/gone/away", f"{folder}/file", "/usr", "/")))
    orbitd.masters.append(spawned.master_fd)

    assert read_to_end(spawned.master_fd).decode().strip() == "/usr"
    assert spawned.cwd == b"/usr"


@pytest.mark.parametrize(("name", "words"), [("none", "No such file or directory"), ("file", "Not a directory")])
async def test_no_folder(orbitd: Orbitd, folder: Path, name: str, words: str) -> None:
    """Where none can be entered, nothing is started: the error names the first and why, and no HOME takes its place."""
    (folder / "file").touch()
    env = {"HOME": "/usr", "PATH": "/bin:/usr/bin"}
    with pytest.raises(SpawnFailed, match=f"The program cannot start in {folder}/{name}: {words}") as refused:
        await orbitd.client.spawn(request("touch", "ran", folders=(f"{folder}/{name}", "/gone/away"), env=env))

    assert refused.value.hint.startswith("Make the folder")
    assert await orbitd.client.programs() == []


async def test_umask(orbitd: Orbitd, stopped: KeeperProcess) -> None:
    """A program has the user's umask, while the keeper's files are closed to others."""
    assert (await probe(orbitd, umask=0o027))["umask"] == 0o027
    assert stat.S_IMODE(os.stat(stopped.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(stopped.path + ".lock").st_mode) == 0o600


async def test_login_shell_name(orbitd: Orbitd) -> None:
    """The file that is executed and the name that the program sees are told apart."""
    _, master = await orbitd.spawn("-sh", "-c", "echo name=$0", file="/bin/sh")

    assert b"name=-sh" in read_to_end(master)


ODD_STARTER = """
import os, resource, signal, sys
sys.path[:0] = [sys.argv[2]]
resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from orbitd.descriptors import raise_limit
from orbitd.keeper.client import start_keeper
raise_limit()
os.nice(5)
if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR2, signal.SIGCHLD):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD, signal.SIGHUP})
os.dup2(os.open('/etc/passwd', os.O_RDONLY), 50, inheritable=True)
os.environ['NOTIFY_SOCKET'] = '/secret'
start_keeper(sys.argv[1])
"""


# 32 and 33: glibc ignores them in what posix_spawn(3) starts, keeps them from everybody, and they are inherited.
GLIBC_OWN = 1 << 31 | 1 << 32


def start_oddly(path: str) -> None:
    """Start a keeper from a process with signals ignored and blocked, an open file, and few files allowed."""
    root = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, "-c", ODD_STARTER, path, root], check=True, timeout=SECONDS)


async def test_signals(stopped: KeeperProcess) -> None:
    """A program has no signal ignored and none blocked, whatever the keeper's starter had."""
    start_oddly(stopped.path)
    orbitd = await stopped.orbitd()

    pid, master = await orbitd.spawn("cat")

    status = status_of(pid)
    assert int(status["SigIgn"], 16) & ~GLIBC_OWN == 0
    assert int(status["SigBlk"], 16) == 0
    os.write(master, b"\x04")
    assert (await orbitd.exit()).exit_code == 0


async def test_files_limit(stopped: KeeperProcess) -> None:
    """The keeper may open all files that are allowed; programs have the soft limit that the daemon was started with."""
    start_oddly(stopped.path)
    orbitd = await stopped.orbitd()

    assert (await probe(orbitd))["files_limit"] == 200
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = proc_file(orbitd.client.keeper_pid, "limits").splitlines()
    assert [int(line.split()[3]) for line in limits if line.startswith("Max open files")] == [hard]


async def test_limits(stopped: KeeperProcess) -> None:
    """A program has the soft limits of its request, as far as the hard ones allow; a limit of no system is skipped."""
    start_oddly(stopped.path)
    orbitd = await stopped.orbitd()

    found = await probe(orbitd, limits={"nofile": 64, "core": 0, "fsize": 1 << 30, "of_no_system": 1})
    assert found["limits"] == [64, 0, 1 << 30]
    found = await probe(orbitd, id="two", limits={"nofile": -1})
    assert found["files_limit"] == found["hard"]


async def test_scheduling(stopped: KeeperProcess) -> None:
    """Neither `nice` nor `taskset` nor `chrt` of who started the daemon reaches a program, where the system allows."""
    start_oddly(stopped.path)
    orbitd = await stopped.orbitd()

    found = await probe(orbitd)
    may_lower = os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20
    assert found["nice"] == (0 if may_lower else 5)
    assert found["cpus"] == sorted(os.sched_getaffinity(0))
    assert found["policy"] == os.SCHED_OTHER


def test_keeper_is_clean(stopped: KeeperProcess) -> None:
    """The keeper inherits no file, variable, folder, session or terminal of its starter's."""
    start_oddly(stopped.path)
    pid = stopped.greet()

    files = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    assert {path.partition(":")[0] for path in files} <= {"/dev/null", "socket", "pipe", f"{stopped.path}.pid"}
    assert "NOTIFY_SOCKET" not in proc_file(pid, "environ")
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    words = proc_file(pid, "stat").rpartition(")")[2].split()
    parent, terminal = int(words[1]), int(words[4])
    assert terminal == 0
    assert parent != os.getpid()


UNEXECUTABLE = {
    "nothing there": ("ENOENT", "{folder}/none"),
    "not on PATH": ("ENOENT", "no-such-program"),
    "below a file": ("ENOTDIR", "{folder}/plain/below"),
    "not executable": ("EACCES", "{folder}/plain"),
    "a folder": ("EACCES", "{folder}"),
    "no program": ("ENOEXEC", "{folder}/garbage"),
    "too long": ("ENAMETOOLONG", "/" + "n" * 5000),
}


@pytest.mark.parametrize(("error", "template"), UNEXECUTABLE.values(), ids=UNEXECUTABLE.keys())
async def test_exec_failure(orbitd: Orbitd, folder: Path, error: str, template: str) -> None:
    """A program that cannot be executed is refused with errno's words and the path, and leaves nothing behind."""
    (folder / "plain").write_text("#!/bin/sh\n")
    (folder / "garbage").write_bytes(b"\0\1\2\3")
    (folder / "garbage").chmod(0o755)
    path = template.format(folder=folder)

    with pytest.raises(SpawnFailed) as caught:
        await orbitd.spawn(path)

    assert os.strerror(getattr(errno, error)) in caught.value.message
    assert path[:1000] in caught.value.message
    assert await orbitd.client.programs() == []
    assert (await orbitd.spawn("true"))[0] > 0, "the id is free again"


async def test_too_long_an_argument(orbitd: Orbitd) -> None:
    """What execve finds too long is refused in its words."""
    with pytest.raises(SpawnFailed, match="Argument list too long"):
        await orbitd.spawn("true", "x" * 200_000)


async def test_nul_in_argument(orbitd: Orbitd) -> None:
    """What no argument can hold is refused before it is sent."""
    with pytest.raises(SpawnFailed, match="NUL"):
        await orbitd.spawn("true", "a\0b")


@pytest.mark.parametrize("changes", [{"argv": ()}, {"cols": 70_000}, {"rows": -1}, {"id": ""}, {"id": "x" * 101}])
async def test_wrong_request(orbitd: Orbitd, changes: dict[str, object]) -> None:
    """A request that makes no sense is refused, and the keeper serves on."""
    with pytest.raises(OrbitError):
        await orbitd.spawn("true", **changes)

    assert await orbitd.client.programs() == []


async def test_path_of_the_program(orbitd: Orbitd, folder: Path) -> None:
    """A name is looked up on the PATH of the program's own environment; what cannot be executed is passed over."""
    for name, mode, text in (("first", 0o644, "echo no"), ("second", 0o755, "#!/bin/sh\necho found")):
        (folder / name).mkdir()
        (folder / name / "tool").write_text(text)
        (folder / name / "tool").chmod(mode)

    _, master = await orbitd.spawn("tool", env={"PATH": f"{folder}/none:{folder}/first:{folder}/second"})

    assert b"found" in read_to_end(master)


async def test_only_unexecutable_on_path(orbitd: Orbitd, folder: Path) -> None:
    """Where PATH has a file of that name that may not be executed, that is what the error says."""
    (folder / "tool").write_text("")

    with pytest.raises(SpawnFailed, match=f"{folder}/tool: Permission denied"):
        await orbitd.spawn("tool", env={"PATH": f"{folder}:/nowhere"})


async def test_id_in_use(orbitd: Orbitd) -> None:
    """An id has one program at a time, and one that has ended counts until it is forgotten."""
    pid, _ = await orbitd.spawn("sleep", "1000")
    with pytest.raises(AlreadyRunning):
        await orbitd.spawn("true")

    os.kill(pid, signal.SIGKILL)
    assert (await orbitd.exit()).id == "one"
    with pytest.raises(AlreadyRunning):
        await orbitd.spawn("true")

    await orbitd.client.forget("one")
    assert (await orbitd.spawn("true"))[0] != pid


async def test_a_keeper_without_descriptors_has_too_many_sessions(orbitd: Orbitd) -> None:
    """The error says what there is too little of; the keeper goes on, and starts programs again when there is room."""
    await orbitd.spawn("cat")
    hard = resource.prlimit(orbitd.client.keeper_pid, resource.RLIMIT_NOFILE)
    resource.prlimit(orbitd.client.keeper_pid, resource.RLIMIT_NOFILE, (4, hard[1]))
    with pytest.raises(TooManySessions) as refused:
        await orbitd.spawn("cat", id="two")
    assert refused.value.extra["resource"] == "descriptors"
    resource.prlimit(orbitd.client.keeper_pid, resource.RLIMIT_NOFILE, hard)
    await orbitd.spawn("cat", id="two")


@pytest.mark.parametrize(
    ("number", "path", "resource_name"),
    [
        (errno.EMFILE, NO_TERMINAL, "descriptors"),
        (errno.ENOSPC, NO_TERMINAL, "terminals"),
        (errno.EAGAIN, NO_TERMINAL, "processes"),
        (errno.ENOMEM, b"/bin/cat", "memory"),
        (errno.ENOENT, b"/bin/cat", None),
        (errno.ENOSPC, b"/bin/cat", None),
    ],
)
def test_what_a_failed_spawn_means(number: int, path: bytes, resource_name: str | None) -> None:
    """What the system has too little of is an error of its own; a program that cannot be executed is another."""
    [message] = Framer().receive(
        encode("error", ("reason", "spawn_failed"), ("words", "no"), ("errno", number), ("path", path))
    )
    error = parse_error(message)
    assert isinstance(error, SpawnFailed if resource_name is None else TooManySessions)
    assert error.extra.get("resource") == resource_name


def test_no_descriptor_for_the_status_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that cannot be started leaves no terminal open."""

    def refuse() -> None:
        raise OSError(errno.EMFILE, "too many open files")

    [message] = Framer().receive(encode("spawn", ("cols", 80), ("rows", 24)))
    before = open_files()
    with monkeypatch.context() as patched:
        patched.setattr(os, "pipe", refuse)
        with pytest.raises(OSError, match="too many"):
            start_program(message)
    assert open_files() == before


@contextlib.contextmanager
def running() -> Iterator[Program]:
    """Run a program that says when it hears a signal of a terminal, on a terminal of its own; end it."""
    prologue = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp('sh', sys.argv[1:])"
    words = ("sh", "-c", "trap 'echo heard' INT QUIT; echo ready; while read -r x; do :; done")
    master, slave = os.openpty()
    command = [sys.executable, "-c", prologue, *words]
    with subprocess.Popen(command, stdin=slave, stdout=slave, start_new_session=True) as process:
        os.close(slave)
        try:
            read_until(master, b"ready")
            yield Program("one", (process.pid, master, -1))
        finally:
            process.kill()
            os.close(master)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_for_another_users_job(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """What a terminal sends by itself at a key reaches a job under sudo too; anything else is refused with a reason."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with running() as program:
        monkeypatch.setattr("os.killpg", refuse)
        if number is signal.SIGTERM:
            with pytest.raises(PermissionError, match="as under sudo"):
                program.send_signal("foreground", number)
        else:
            program.send_signal("foreground", number)
            read_until(program.master, b"heard")


def test_a_signal_for_a_group_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another terminal that has its number by now gets nothing."""
    with running() as program:
        monkeypatch.setattr("os.getsid", lambda _: program.pid + 1)
        with pytest.raises(ProcessLookupError):
            program.send_signal("foreground", signal.SIGKILL)
        assert os.waitpid(program.pid, os.WNOHANG) == (0, 0)  # it runs
