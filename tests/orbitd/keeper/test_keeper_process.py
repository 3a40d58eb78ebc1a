"""The keeper as any orbitd meets it, of this version or another: a socket and the bytes on it."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import orbit_os
import orbitd.keeper.server
from keeper_support import SECONDS, KeeperProcess, Peer, ProcessWatch, read_until, status_of
from live.screens_processes import descriptors
from needs import needs
from orbit_protocol.errors import SpawnFailed
from orbitd.keeper.client import start_keeper
from orbitd.keeper.messages import LANDING_BYTES

ROOT = Path(orbitd.keeper.server.__file__).parents[2]
FOREIGN_UID = 65534
SPAWN = (("file", "/bin/cat"), ("argv", "cat"), ("cwd", "/"), ("cols", 80), ("rows", 24), ("umask", 0o22))
TIME = rb"\d+\.\d+"


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def test_version_1_to_the_letter(keeper: KeeperProcess) -> None:
    """An orbitd that speaks version 1 is served by every later keeper; these bytes never change."""
    sock = keeper.peer().sock
    descriptors: list[int] = []

    def exchange(request: bytes, *answers: bytes) -> None:
        sock.sendall(frame(request))
        for answer in answers:
            header = sock.recv(4, socket.MSG_WAITALL)
            payload, received, _, _ = socket.recv_fds(sock, int.from_bytes(header, "big"), 1, socket.MSG_WAITALL)
            descriptors.extend(received)
            assert re.fullmatch(answer, payload), (request, payload)

    def exchange_with_descriptor(request: bytes, answer: bytes) -> None:
        sock.sendall(frame(request))
        data, received, _, _ = socket.recv_fds(sock, 65536, 1)
        descriptors.extend(received)
        assert re.fullmatch(answer, data[4:]), (request, data)
        assert len(received) == 1

    program = rb"id=A\0pid=\d+\0started_at=" + TIME + rb"\0"
    ended = program + rb"ended_at=" + TIME + rb"\0exit_signal=9\0acknowledged="
    exchange(b"hello\0seq=1\0version=1\0", rb"ok\0seq=1\0version=1\0pid=\d+\0started_at=" + TIME + rb"\0folders=1\0")
    exchange_with_descriptor(
        b"spawn\0seq=2\0id=A\0file=/bin/cat\0argv=cat\0env=A=b\0cwd=/\0cols=80\0rows=24\0umask=18\0",
        rb"ok\0seq=2\0pid=\d+\0cwd=/\0fds=1\0",
    )
    exchange(b"list\0seq=3\0", rb"program\0seq=3\0" + program, rb"ok\0seq=3\0")
    exchange_with_descriptor(b"take\0seq=4\0id=A\0", rb"ok\0seq=4\0fds=1\0")
    exchange(b"forget\0seq=5\0id=A\0", rb"error\0seq=5\0reason=running\0words=program A is running\0")
    exchange(b"signal\0seq=6\0id=A\0signal=9\0target=group\0", rb"ok\0seq=6\0", rb"exited\0" + ended + rb"0\0")
    exchange(b"ack_exit\0seq=7\0id=A\0", rb"ok\0seq=7\0")
    exchange(b"list\0seq=8\0", rb"program\0seq=8\0" + ended + rb"1\0", rb"ok\0seq=8\0")
    exchange(b"forget\0seq=9\0id=A\0", rb"ok\0seq=9\0")
    exchange(b"take\0seq=10\0id=A\0", rb"error\0seq=10\0reason=unknown_id\0words=no program A\0")
    exchange(
        b"spawn\0seq=11\0id=A\0file=/none\0argv=none\0cwd=/\0cols=80\0rows=24\0umask=18\0",
        rb"error\0seq=11\0reason=spawn_failed\0words=/none: No such file or directory\0errno=2\0path=/none\0",
    )
    for descriptor in descriptors:
        os.close(descriptor)


def test_answer_before_exit(keeper: KeeperProcess) -> None:
    """However soon a program ends, the answer to its spawn comes before its exit."""
    peer = keeper.peer().hello()
    names = [str(number) for number in range(50)]
    for name in names:
        peer.send("spawn", ("seq", name), ("id", name), ("file", "/bin/true"), ("argv", "true"), *SPAWN[2:])

    told = [peer.receive() for _ in range(2 * len(names))]

    answered = [message.text("seq") for message in told if message.kind == "ok"]
    exited = [message.text("id") for message in told if message.kind == "exited"]
    assert sorted(answered) == sorted(exited) == sorted(names)
    order = [message.text("seq", "") or message.text("id") for message in told]
    assert [name for name in names if told[order.index(name)].kind != "ok"] == []


def test_unknown_things_are_additive(keeper: KeeperProcess) -> None:
    """A newer orbitd's fields are skipped and its requests refused by name, and the keeper serves on."""
    peer = keeper.peer()

    assert peer.ask("hello", ("seq", 1), ("version", 99), ("flavour", "new")).number("version") == 1
    assert peer.ask("hibernate", ("seq", 2), ("id", "A")).text("reason") == "unknown_request"
    assert peer.ask("list", ("seq", 3)).kind == "ok"


@pytest.mark.parametrize("request_kind", ["spawn", "take", "signal", "ack_exit", "forget"])
def test_lacking_fields(keeper: KeeperProcess, request_kind: str) -> None:
    """A request without its fields is refused, and the keeper serves on."""
    peer = keeper.peer().hello()

    assert peer.ask(request_kind, ("seq", 2)).kind == "error"
    assert peer.ask("list", ("seq", 3)).kind == "ok"


def test_hello_comes_first(keeper: KeeperProcess) -> None:
    """Nothing is told or done before hello."""
    peer = keeper.peer()

    assert peer.ask("list", ("seq", 1)).text("reason") == "not_active"
    assert peer.ask("spawn", ("seq", 2), ("id", "A"), *SPAWN).text("reason") == "not_active"
    assert peer.hello().ask("list", ("seq", 3)).kind == "ok"


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\0\0\0\0", frame(b"hello"), frame(b"list\0seq=1\0x\0")],
    ids=["http", "too long", "empty", "no end", "no equals sign"],
)
def test_garbage(keeper: KeeperProcess, garbage: bytes) -> None:
    """A peer that speaks something else is put out, and disturbs nobody."""
    active = keeper.peer().hello()
    other = keeper.peer()

    other.sock.sendall(garbage)

    assert other.at_end()
    assert active.ask("list").kind == "ok"


def test_half_a_request(keeper: KeeperProcess) -> None:
    """An orbitd that dies in the middle of a request leaves the keeper to the next one."""
    peer = keeper.peer().hello()
    assert peer.ask("spawn", ("id", "A"), *SPAWN).kind == "ok"
    peer.sock.sendall(frame(b"spawn\0id=B\0")[:9])
    peer.close()

    after = keeper.peer().hello()

    assert after.ask("list").text("id") == "A"


def ask_without_end(peer: Peer) -> None:
    while True:
        peer.send("take", ("id", "A"))


def test_peer_that_does_not_read(keeper: KeeperProcess) -> None:
    """An orbitd that asks and never reads is put out once a bounded amount waits for it; its programs stay."""
    peer = keeper.peer().hello()
    assert peer.ask("spawn", ("id", "A"), *SPAWN).kind == "ok"
    pid = peer.ask("hello").number("pid")

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        ask_without_end(peer)

    after = keeper.peer().hello()
    assert after.ask("list").text("id") == "A"
    assert len(os.listdir(f"/proc/{pid}/fd")) < 16, "the descriptors that were not sent are closed"
    assert int(status_of(pid)["VmRSS"].split()[0]) < 12 * 1024


def test_newer_orbitd_takes_over(keeper: KeeperProcess) -> None:
    """One orbitd is served: a newer one takes over, and the elder is told so before it is put out."""
    elder = keeper.peer().hello()

    newer = keeper.peer().hello()

    assert elder.receive().kind == "superseded"
    assert elder.at_end()
    assert newer.ask("list").kind == "ok"


def test_idle_connections(keeper: KeeperProcess) -> None:
    """Connections that say nothing are bounded, and do not push out the active one."""
    active = keeper.peer().hello()
    idle = [keeper.peer() for _ in range(12)]

    assert idle[0].at_end()
    assert active.ask("list").kind == "ok"


@needs(root=True)
def test_foreign_uid(keeper: KeeperProcess, folder: Path) -> None:
    """Somebody else is put out without a word, even where the file's mode lets them in."""
    active = keeper.peer().hello()
    folder.chmod(0o711)
    os.chmod(keeper.path, 0o666)
    foreign = (
        "import os, socket, sys; os.setuid(int(sys.argv[2])); s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1]); s.settimeout(20)\n"
        "try:\n"
        "    s.sendall(b'\\0\\0\\0\\x16hello\\0seq=1\\0version=1\\0')\n"
        "    print(len(s.recv(100)))\n"
        "except (BrokenPipeError, ConnectionResetError):\n"
        "    print(0)\n"
    )

    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", foreign, keeper.path, str(FOREIGN_UID)],
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )

    assert ran.stdout.strip() == b"0"
    assert active.ask("list").kind == "ok"


def keepers_of(path: str) -> list[int]:
    """Return the processes that were started for a socket path."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if path.encode() in words:
            found.append(int(name))
    return found


def test_exactly_one(stopped: KeeperProcess) -> None:
    """However many are started at once, one keeper serves and no other stays."""
    with ThreadPoolExecutor(8) as starters:
        list(starters.map(start_keeper, [stopped.path] * 8))

    assert keepers_of(stopped.path) == [stopped.greet()]


def test_starting_again(keeper: KeeperProcess) -> None:
    """Starting a keeper where one serves changes nothing."""
    pid = keeper.greet()

    keeper.start()

    assert keeper.greet() == pid
    assert keepers_of(keeper.path) == [pid]


def test_socket_left_by_a_crash(keeper: KeeperProcess) -> None:
    """A socket that nobody serves any more makes way for the next keeper."""
    pid = keeper.greet()
    watch = ProcessWatch(pid)
    os.kill(pid, signal.SIGKILL)
    watch.wait()
    assert stat.S_ISSOCK(os.stat(keeper.path).st_mode)

    keeper.start()

    assert keeper.greet() != pid


def test_something_else_in_place(stopped: KeeperProcess) -> None:
    """A file that is no socket is left alone, and the start says what is wrong."""
    Path(stopped.path).write_text("precious")

    with pytest.raises(SpawnFailed, match=r"could not be started: [^:]* is no socket; move it away$"):
        stopped.start()

    assert Path(stopped.path).read_text() == "precious"


@pytest.mark.parametrize(("place", "words"), [("none/keeper.sock", "No such file"), ("n" * 260, "too long")])
def test_impossible_place(folder: Path, place: str, words: str) -> None:
    """A path that no file can have is told as such."""
    with pytest.raises(SpawnFailed, match=words):
        start_keeper(str(folder / place))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGPIPE])
def test_signals_that_do_not_end_it(keeper: KeeperProcess, number: int) -> None:
    """The end of a terminal, Ctrl-C and a vanished peer do not end the keeper."""
    peer = keeper.peer()
    pid = peer.ask("hello").number("pid")

    os.kill(pid, number)

    assert peer.ask("list").kind == "ok"


def test_ends_unmet(folder: Path) -> None:
    """A keeper whose starter died before it said hello does not stay for ever."""
    path = str(folder / "keeper.sock")
    impatient = (
        "import sys; sys.path.append(sys.argv[2])\n"
        "from orbitd.keeper import daemonize, server\n"
        "server.HELLO_TIMEOUT_MS = 1\n"
        "daemonize.main(sys.argv[1])"
    )
    alive, held = os.pipe()  # ends with the last process that has it

    subprocess.run([sys.executable, "-c", impatient, path, str(ROOT)], pass_fds=[held], check=True, timeout=SECONDS)

    os.close(held)
    assert select.select([alive], [], [], SECONDS)[0]
    assert os.read(alive, 1) == b""
    os.close(alive)
    assert not os.path.exists(path)


def test_ends_with_its_work(keeper: KeeperProcess) -> None:
    """With nothing to keep and nobody connected the keeper ends and takes its socket with it."""
    peer = keeper.peer()
    watch = ProcessWatch(peer.ask("hello").number("pid"))

    peer.close()

    watch.wait()
    assert os.listdir(Path(keeper.path).parent) == ["keeper.sock.lock"]


def test_stays_for_an_exit(keeper: KeeperProcess) -> None:
    """A keeper whose programs have all ended stays until an orbitd has acknowledged each exit."""
    peer = keeper.peer()
    watch = ProcessWatch(peer.ask("hello").number("pid"))
    for name in ("A", "B"):
        assert peer.ask("spawn", ("id", name), *SPAWN).kind == "ok"
        assert peer.ask("signal", ("id", name), ("signal", 9), ("target", "program")).kind == "ok"
        assert peer.receive().kind == "exited"
    assert peer.ask("ack_exit", ("id", "A")).kind == "ok"
    peer.close()

    after = keeper.peer()
    assert after.ask("hello").kind == "ok"
    assert after.ask("ack_exit", ("id", "B")).kind == "ok"
    assert after.ask("ack_exit", ("id", "B")).kind == "ok", "twice is fine"
    after.close()

    watch.wait()


def test_leaves_another_keepers_socket(keeper: KeeperProcess) -> None:
    """A keeper whose socket was removed and replaced does not remove its successor's."""
    peer = keeper.peer()
    first = peer.ask("hello").number("pid")
    for name in (keeper.path, f"{keeper.path}.pid"):
        Path(name).unlink()
    keeper.start()
    second = keeper.greet()
    watch = ProcessWatch(first)

    peer.close()

    watch.wait()
    assert keeper.greet() == second != first


def test_landing_buffer(keeper: KeeperProcess) -> None:
    """Every orbitd gets the same buffer, zeros at first, whose size nobody can change."""
    peer = keeper.peer()
    pid = peer.ask("hello").number("pid")
    assert peer.ask("spawn", ("id", "A"), *SPAWN).kind == "ok"
    os.close(peer.descriptors.pop())
    files = len(descriptors(pid))

    assert peer.ask("landing", ("seq", 3)).fields == [("seq", b"3"), ("fds", b"1")]
    first = peer.descriptors[0]
    assert os.pread(first, LANDING_BYTES + 1, 0) == bytes(LANDING_BYTES)
    os.pwrite(first, b"output", 4096)
    for size in (0, LANDING_BYTES + 1):
        with pytest.raises(PermissionError):
            os.truncate(first, size)
    assert peer.ask("landing").kind == "ok"
    assert os.path.sameopenfile(*peer.descriptors)
    peer.close()

    after = keeper.peer().hello()
    assert after.ask("landing").kind == "ok"
    assert os.pread(after.descriptors[0], 6, 4096) == b"output"
    end = time.monotonic() + SECONDS
    # What was sent, and a connection that has ended, is closed in the keeper's own turn, and so may be among the files
    # that were counted too.
    while len(found := descriptors(pid)) > files + 1 or sum("orbit-landing" in one for one in found.values()) != 1:
        assert time.monotonic() < end
    assert int(status_of(pid)["VmRSS"].split()[0]) < 12 * 1024


def test_upgrade_under_a_running_keeper(folder: Path) -> None:
    """A keeper whose package is removed from the disk still starts, reports, reaps, binds its path and ends."""
    shutil.copytree(ROOT / "orbitd" / "keeper", folder / "orbitd" / "keeper")
    shutil.copy(ROOT / "orbitd" / "__init__.py", folder / "orbitd" / "__init__.py")
    shutil.copytree(Path(orbit_os.__file__).parent, folder / "orbit_os")
    process = KeeperProcess(str(folder / "keeper.sock"))
    program = str(folder / "orbitd" / "keeper" / "__main__.py")
    subprocess.run([sys.executable, "-I", "-S", program, process.path], check=True, timeout=SECONDS)
    shutil.rmtree(folder / "orbitd")
    shutil.rmtree(folder / "orbit_os")

    peer = process.peer()
    watch = ProcessWatch(peer.ask("hello").number("pid"))
    assert peer.ask("spawn", ("id", "A"), *SPAWN).kind == "ok"
    os.write(peer.descriptors[0], b"still here\n")
    assert read_until(peer.descriptors[0], b"still here\r\nstill here")
    assert peer.ask("spawn", ("id", "B"), *SPAWN, ("env", "no equals sign")).text("reason") == "spawn_failed"
    assert peer.ask("landing").kind == "ok"
    os.unlink(process.path)
    assert peer.ask("bind").kind == "ok"
    assert stat.S_ISSOCK(os.stat(process.path).st_mode)
    assert peer.ask("signal", ("id", "A"), ("signal", 9), ("target", "group")).kind == "ok"
    assert peer.receive().number("exit_signal") == 9
    assert peer.ask("ack_exit", ("id", "A")).kind == "ok"
    peer.close()
    watch.wait()
