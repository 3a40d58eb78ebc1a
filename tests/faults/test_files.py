"""Files deleted, replaced, damaged or cut while the daemon has them, or between two starts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ctl_support import InProcess, Orbitctl
from faults.asking import CORRUPT, LOCAL, READ_ONLY, SNAPSHOT_CORRUPT, doctor, look_again, names, snapshot
from faults.contents import read
from faults.interrupting import is_whole
from faults.ledger import Author
from faults.shim import Shim
from support import WAIT_SECS, DaemonProcess, RawClient
from upgrades.old_stores import load

pytestmark = pytest.mark.slow


def lose(daemon: DaemonProcess, how: str) -> Path:
    """Take the database away from under the daemon; return where its file is now, if anywhere."""
    path, elsewhere = daemon.database_path, daemon.home / "elsewhere.db"
    if how == "deleted":
        path.unlink()
    elif how == "moved":
        path.rename(elsewhere)
    elif how == "replaced":
        shutil.copyfile(path, elsewhere)
        elsewhere.rename(path)
    elif how == "folder deleted":
        shutil.rmtree(path.parent)
    else:
        Path(f"{path}-wal").unlink()
    return elsewhere


WAYS = ["deleted", "moved", "replaced", "folder deleted", "log deleted"]


@pytest.mark.parametrize("how", WAYS)
def test_a_database_that_is_lost_is_not_written_to(daemon: DaemonProcess, client: RawClient, how: str) -> None:
    """No write is answered that no later start could find: 1901, with what to do; what is in memory goes on."""
    client.call("session.create", config=LOCAL, name="kept")
    lose(daemon, how)
    for _ in range(2):
        error = client.error("session.create", config=LOCAL, name="never")
        assert (error["code"], error["data"]["kind"]) == (CORRUPT, "storage_corrupt")
        assert "Move the file back" in error["data"]["hint"]
    assert names(client) == ["kept"]


def test_a_database_that_comes_back(daemon: DaemonProcess, client: RawClient) -> None:
    """A file that was moved away and back is served on without a restart."""
    client.call("session.create", config=LOCAL, name="kept")
    elsewhere = lose(daemon, "moved")
    assert client.error("session.create", config=LOCAL)["code"] == CORRUPT
    elsewhere.rename(daemon.database_path)
    client.call("session.create", config=LOCAL, name="more")
    daemon.restart()
    with daemon.client() as again:
        assert names(again) == ["kept", "more"]


@pytest.mark.parametrize("how", ["deleted", "replaced", "folder deleted", "log deleted"])
def test_what_a_lost_database_held_is_rescued(daemon: DaemonProcess, client: RawClient, hand: Shim, how: str) -> None:
    """The daemon notices unasked, copies what it still has open, and doctor names it; it comes back whole."""
    session = client.call("session.create", config=LOCAL, name="kept")["id"]
    saved = snapshot(client, session, 100_000)["result"]
    lose(daemon, how)
    look_again(client, hand)
    daemon.wait_for_log("maintenance task failed")
    (rescued,) = daemon.database_path.parent.glob("*.rescued-*")
    assert is_whole(rescued)
    assert f"orbitctl maintenance restore {rescued}" in doctor(daemon)
    look_again(client, hand)
    look_again(client, hand)
    assert list(daemon.database_path.parent.glob("*.rescued-*")) == [rescued]
    client.close()
    Orbitctl(daemon.home).ok("maintenance", "restore", "--yes", str(rescued))
    with daemon.client() as again:
        assert names(again) == ["kept"]
        assert again.call("snapshot.get", id=saved["id"])["buffer_bytes"] == 100_000
        assert "deleted" not in doctor(daemon)
        again.call("daemon.shutdown")


def test_a_restart_without_the_database_says_what_there_was(daemon: DaemonProcess, client: RawClient) -> None:
    """A new store is begun where the old file is gone, and doctor names the newest backup."""
    client.call("session.create", config=LOCAL, name="kept")
    backup = daemon.database_path.parent / "copy.db"
    client.call("maintenance.backup", path=str(backup))
    daemon.stop()
    daemon.database_path.unlink()
    daemon.start()
    assert f"orbitctl maintenance restore {backup}" in doctor(daemon)
    with daemon.client() as again:
        assert names(again) == []


def test_another_database_that_was_put_there_is_not_harmed(daemon: DaemonProcess, client: RawClient) -> None:
    """A daemon whose database was replaced writes nothing into the new one, neither then nor when it stops."""
    client.call("session.create", config=LOCAL, name="old")
    other = daemon.home / "other.db"
    client.call("maintenance.backup", path=str(other))
    before = other.read_bytes()
    client.call("session.create", config=LOCAL, name="newer")
    other.rename(daemon.database_path)
    assert client.error("session.create", config=LOCAL)["code"] == CORRUPT
    assert client.error("maintenance.backup", path=str(other))["code"] == CORRUPT
    assert daemon.stop() == 0
    assert daemon.database_path.read_bytes() == before


def test_a_flipped_byte_in_a_snapshot(daemon: DaemonProcess, client: RawClient) -> None:
    """Loading it is 1101 and offers the newest older good one; others load, and doctor and check name it."""
    session = client.call("session.create", config=LOCAL, name="a")["id"]
    ids = [snapshot(client, session, 50_000, seed)["result"]["id"] for seed in range(3)]
    daemon.stop()
    with contextlib.closing(sqlite3.connect(daemon.database_path, isolation_level=None)) as database:
        (packed,) = database.execute("SELECT terminal_buffer FROM session_snapshots WHERE id = ?", ids[2:]).fetchone()
    content = daemon.database_path.read_bytes()
    place = next(found for start in range(0, 20_000, 50) if (found := content.find(packed[start : start + 50])) > 0)
    daemon.database_path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    daemon.start()
    with daemon.client() as again:
        error = again.error("snapshot.latest", session_id=session)
        assert (error["code"], error["data"]["kind"]) == (SNAPSHOT_CORRUPT, "snapshot_corrupt")
        good = error["data"]["good_snapshot_id"]
        assert good in (ids[1], ids[0], None)
        if good is not None:
            assert again.call("snapshot.get", id=good)["buffer_bytes"] == 50_000
        assert names(again) == ["a"]
        assert ids[2] in doctor(daemon)
        assert ids[2] in again.call("maintenance.check")["snapshots"]


@pytest.mark.parametrize("byte", [b"y", b"\xe4"], ids=["not JSON", "not UTF-8"])
def test_a_changed_byte_in_a_session(daemon: DaemonProcess, client: RawClient, byte: bytes) -> None:
    """The others are listed, it is 1901 with its row and the next step, everything names it, and it can be deleted."""
    ids = [
        client.call("session.create", config={**LOCAL, "command": f"cmd{number}"}, name=f"n{number}")["id"]
        for number in range(5)
    ]
    daemon.stop()
    content = daemon.database_path.read_bytes()
    place = content.index(b'"command":"cmd2"') + (9 if byte == b"y" else 12)
    daemon.database_path.write_bytes(content[:place] + byte + content[place + 1 :])
    daemon.start()
    with daemon.client() as again:
        assert names(again) == ["n0", "n1", "n3", "n4"]
        for method, params in (("session.get", {"id": ids[2]}), ("session.find", {"ref": "n2"})):
            error = again.error(method, **params)
            assert (error["code"], error["data"]["id"]) == (CORRUPT, ids[2])
            assert "orbitctl maintenance restore BACKUP" in error["data"]["hint"]
        (warning,) = again.call("daemon.info")["warnings"]
        assert ids[2] in warning
        (sentence,) = again.call("maintenance.check")["rows"]
        assert ids[2] in sentence
        assert ids[2] in doctor(daemon)
        assert again.call("stats.get")["total_sessions"] == 4
        ctl = Orbitctl(daemon.home)
        assert ctl("session", "delete", "--yes", "n2").code == 0
        assert again.call("maintenance.check")["ok"]
        assert again.call("daemon.info")["warnings"] == []


def change(daemon: DaemonProcess, offset: int, value: bytes) -> bytes:
    """Put bytes into the database of a daemon that has stopped, and return the file as it is then."""
    with daemon.database_path.open("r+b") as file:
        file.seek(offset)
        file.write(value)
    return daemon.database_path.read_bytes()


def set_aside(daemon: DaemonProcess) -> list[Path]:
    found = daemon.database_path.parent.glob("*.corrupt-*")
    return [path for path in found if not path.name.endswith(("-wal", "-shm"))]


@pytest.fixture
def kept(daemon: DaemonProcess, client: RawClient) -> DaemonProcess:
    """A daemon that has stopped, with two sessions and a snapshot in its store."""
    first = client.call("session.create", config={**LOCAL, "command": "cmd0"}, name="first")["id"]
    client.call("session.create", config={**LOCAL, "command": "cmd1"}, name="second")
    snapshot(client, first, 30_000)
    client.close()
    assert daemon.stop() == 0
    return daemon


def assert_whole(client: RawClient) -> None:
    """Check that everything is there, and that writing goes on."""
    assert names(client) == ["first", "second"]
    first = client.call("session.find", ref="first")["id"]
    assert client.call("snapshot.latest", session_id=first)["buffer_bytes"] == 30_000
    assert client.call("maintenance.check")["ok"]
    client.call("session.create", config=LOCAL, name="third")


def test_text_that_is_not_utf8(kept: DaemonProcess) -> None:
    """A byte of a session's row that makes its text no UTF-8 costs that session its place in lists, and is named."""
    change(kept, kept.database_path.read_bytes().index(b"cmd1") + 2, b"\xe4")
    with kept.start().client() as client:
        assert names(client) == ["first"]
        assert any("UTF-8" in each for each in client.call("daemon.info")["warnings"])
    assert "UTF-8" in doctor(kept)


@pytest.mark.parametrize("offset", [63, 71])
def test_a_flipped_mark(kept: DaemonProcess, offset: int) -> None:
    """A bit of user_version or application_id is put right by the schema, everything is there, and doctor names it."""
    before = kept.database_path.read_bytes()
    change(kept, offset, bytes([before[offset] ^ 0x10]))
    with kept.start().client() as client:
        assert_whole(client)
    assert "header" in doctor(kept)
    assert set_aside(kept) == []
    kept.stop()
    assert kept.database_path.read_bytes()[60:72] == before[60:72]


@pytest.mark.parametrize("text", [b"CREATE TABLE sessions", b"last_active TEXT", b"idx_sessions_status"])
@pytest.mark.parametrize("byte", [b"\xe4", b"z"])
def test_a_damaged_schema(kept: DaemonProcess, text: bytes, byte: bytes) -> None:
    """A schema that cannot be read, or is another one, costs nothing: the file is kept, all rows are brought over."""
    damaged = change(kept, kept.database_path.read_bytes().index(text) + 3, byte)
    with kept.start().client() as client:
        assert_whole(client)
    (aside,) = set_aside(kept)
    assert aside.read_bytes() == damaged
    report = doctor(kept)
    assert str(aside) in report
    assert "sessions 2, snapshots 1" in report
    kept.wait_for_log("rows of the damaged database brought over")


def test_one_damaged_page(kept: DaemonProcess) -> None:
    """A page that is torn costs what is in it, told by number and id; everything else is brought over."""
    with contextlib.closing(sqlite3.connect(kept.database_path)) as database:
        ((root,),) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'session_snapshots'")
        ((lost,),) = database.execute("SELECT id FROM session_snapshots")
    change(kept, (root - 1) * 4096, b"\xff" * 200)
    with kept.start().client() as client:
        assert names(client) == ["first", "second"]
    report = doctor(kept)
    assert "snapshots 1" in report.partition("not brought over")[2]
    assert lost in report


def test_a_log_with_a_flipped_bit(daemon: DaemonProcess, client: RawClient) -> None:
    """A bit of the WAL that changes after a kill costs no commit behind it: the frame is corrected, and it is told."""
    for number in range(8):
        client.call("session.create", config=LOCAL, name=f"s{number}")
    daemon.kill()
    log = Path(f"{daemon.database_path}-wal")
    content = bytearray(log.read_bytes())
    content[32 + 3 * (24 + 4096) + 24 + 2000] ^= 0x01
    log.write_bytes(content)
    with daemon.start().client() as again:
        assert names(again) == [f"s{number}" for number in range(8)]
    (aside,) = set_aside(daemon)
    assert Path(f"{aside}-wal").read_bytes() == content
    daemon.wait_for_log("log is damaged")


def test_the_last_resort_is_to_read(stopped_daemon: DaemonProcess) -> None:
    """A database that cannot be opened as usual is read and not written: 1902 with the reason, also in doctor."""
    path = stopped_daemon.database_path
    load(2, path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TRIGGER no BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'not on my watch'); END")
    with stopped_daemon.start().client() as client:
        found = names(client)
        assert "web" in found
        web = client.call("session.find", ref="web")["id"]
        assert client.call("snapshot.latest", session_id=web)["buffer_bytes"] > 0
        for method, params in [
            ("session.create", {"config": LOCAL}),
            ("session.touch", {"id": web}),
            ("session.start", {"id": web, "cols": 80, "rows": 24}),
            ("session.delete", {"id": web}),
        ]:
            error = client.error(method, **params)
            assert (error["code"], error["data"]["kind"]) == (READ_ONLY, "storage_read_only")
            assert "not on my watch" in error["message"]
        (warning,) = (each for each in client.call("daemon.info")["warnings"] if "read-only" in each)
        assert "not on my watch" in warning
        assert names(client) == found
    assert "read-only" in doctor(stopped_daemon)
    assert stopped_daemon.stop() == 0
    assert "store is served read-only" in stopped_daemon.log()


GARBAGE = [
    ("a folder", lambda path: path.mkdir()),
    ("a FIFO", os.mkfifo),
    ("bytes", lambda path: path.write_bytes(b"\xff\x00" * 40_000)),
    ("a link to nothing", lambda path: path.symlink_to("/nowhere")),
]


@pytest.mark.parametrize("make", [make for _, make in GARBAGE], ids=[name for name, _ in GARBAGE])
def test_garbage_among_its_files(kept: DaemonProcess, make: Callable[[Path], object]) -> None:
    """Whatever stands where files of Orbit's have been, the start goes on with what is stored."""
    folder = kept.database_path.parent
    (folder / "backups").mkdir(mode=0o700)
    for name in ("-wal", "-shm", "-journal", ".corrupt-20200101T000000Z", ".before-restore-20200101T000000Z"):
        make(Path(f"{kept.database_path}{name}"))
    for name in ("auto-20200101T000000Z.db", "auto-99999999T999999Z.db", "other"):
        make(folder / "backups" / name)
    with kept.start().client() as client:
        assert_whole(client)


def leave_socket(path: Path) -> None:
    """Leave a socket that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


CONFIGURATIONS = [
    ("not UTF-8", lambda path: path.write_bytes(b"# caf\xe9\n")),
    ("a NUL", lambda path: path.write_bytes(b"[session]\0\n")),
    ("a folder", lambda path: path.mkdir()),
    ("a FIFO", os.mkfifo),
    ("a socket", leave_socket),
    ("a link to itself", lambda path: path.symlink_to(path.name)),
    ("a device", lambda path: path.symlink_to("/dev/zero")),
    ("a gigabyte", lambda path: (path.touch(), os.truncate(path, 1 << 30))),
    ("nested", lambda path: path.write_bytes(b"a = " + b"[" * 100_000)),
]


@pytest.mark.parametrize("make", [make for _, make in CONFIGURATIONS], ids=[name for name, _ in CONFIGURATIONS])
def test_a_configuration_that_is_none(stopped_daemon: DaemonProcess, make: Callable[[Path], object]) -> None:
    """What cannot be a configuration is refused by both programs with exit 2 and its path, at once."""
    path = stopped_daemon.home / ".config" / "orbit" / "config.toml"
    path.parent.mkdir(parents=True)
    make(path)
    stopped_daemon.start(check=False)
    assert stopped_daemon.process is not None
    assert stopped_daemon.process.wait(20) == 2
    said = stopped_daemon.log()
    assert str(path) in said
    assert "Traceback" not in said
    ctl = InProcess(stopped_daemon.home)
    for words in (("config", "check"), ("config", "show"), ("session", "list"), ("status",), ("service", "print")):
        ended = ctl(*words)
        assert (ended.code, str(path) in ended.err) == (2, True), ended
    moved = path.rename(path.with_name("named.toml")) if not path.is_symlink() else path
    named = ctl("session", "list", ORBITD_CONFIG=str(moved))
    assert (named.code, str(moved) in named.err) == (2, True), named


def damage_pages(path: Path) -> bytes:
    """Flip a byte in the head of each page of a table or an index but the first, and return what was there."""
    before = path.read_bytes()
    content = bytearray(before)
    for page in range(4096, len(content), 4096):
        if content[page] in (2, 5, 10, 13):
            content[page] ^= 0xFF
    path.write_bytes(content)
    return bytes(content)


def test_damaged_pages_after_a_kill(daemon: DaemonProcess, client: RawClient) -> None:
    """The damaged file is set aside unchanged, a new store serves, and doctor says how to go back."""
    client.call("session.create", config=LOCAL, name="kept")
    backup = daemon.database_path.parent / "copy.db"
    client.call("maintenance.backup", path=str(backup))
    daemon.stop()
    daemon.start()
    with daemon.client() as again:
        again.call("session.create", config=LOCAL, name="newer")
    daemon.kill()
    damaged = damage_pages(daemon.database_path)
    daemon.start()
    (aside,) = (
        path for path in daemon.database_path.parent.glob("*.corrupt-*") if not path.name.endswith(("-wal", "-shm"))
    )
    assert aside.read_bytes() == damaged
    for _ in range(2):
        report = doctor(daemon)
        assert str(aside) in report
        assert f"orbitctl maintenance restore {backup}" in report
        daemon.restart()
    Orbitctl(daemon.home).ok("maintenance", "restore", "--yes", str(backup))
    with daemon.client() as again:
        assert names(again) == ["kept"]
        assert str(aside) in doctor(daemon)
        aside.unlink()
        assert str(aside) not in doctor(daemon)
        again.call("daemon.shutdown")


def test_damaged_pages_while_it_runs(daemon: DaemonProcess, client: RawClient) -> None:
    """What must be read from a damaged page is 1901, what is in memory goes on, and doctor names damage and remedy."""
    session = client.call("session.create", config=LOCAL, name="a")["id"]
    for seed in range(20):
        saved = snapshot(client, session, 3_000, seed)["result"]["id"]
    daemon.restart()
    damage_pages(daemon.database_path)
    with daemon.client() as again:
        assert again.error("snapshot.get", id=saved)["code"] == CORRUPT
        assert names(again) == ["a"]
        assert again.call("daemon.ping") == {"pong": True}
    assert "orbitctl maintenance restore" in (told := doctor(daemon))
    assert "orbitctl doctor" not in told


@pytest.mark.parametrize("left", [0, 32, 1000, 0.3, 0.7, -1])
def test_a_truncated_log(daemon: DaemonProcess, left: float) -> None:
    """Of a WAL that was cut, whole transactions up to the cut are there and nothing half."""
    author = Author("a", seed=4)
    with daemon.client() as client:
        for _ in range(60):
            author.step(client.call)
    daemon.kill()
    log = Path(f"{daemon.database_path}-wal")
    size = log.stat().st_size
    os.truncate(log, size - 1 if left == -1 else int(left * size) if isinstance(left, float) else left)
    daemon.start()
    with daemon.client() as client:
        assert client.call("maintenance.check")["ok"]
        found = read(client.call).world
    assert found in [step.world for step in author.steps]


def test_a_log_that_is_cut_while_it_runs(daemon: DaemonProcess, client: RawClient) -> None:
    """A WAL that somebody empties under the daemon never makes it answer what is not so, nor end."""
    client.call("session.create", config=LOCAL, name="a")
    os.truncate(f"{daemon.database_path}-wal", 0)
    answer = client.request("session.create", config=LOCAL, name="b")
    assert "result" in answer or answer["error"]["code"] in (CORRUPT, READ_ONLY), answer
    assert client.call("daemon.ping") == {"pong": True}


def test_a_stale_lock_and_socket(daemon: DaemonProcess) -> None:
    """A lock file that names a process of somebody else's and a socket that nobody serves are no hindrance."""
    daemon.kill()
    Path(f"{daemon.database_path}.lock").write_text("pid 1\nsocket /nowhere\n")
    assert daemon.socket_path.exists()
    listed = Orbitctl(daemon.home).ok("session", "list")
    assert listed.code == 0
    Orbitctl(daemon.home).ok("daemon", "stop")


def from_cron(daemon: DaemonProcess) -> dict[str, str]:
    return {name: value for name, value in daemon.environment.items() if name != "XDG_RUNTIME_DIR"}


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_lock_file_that_vanishes(daemon: DaemonProcess, client: RawClient, hand: Shim, is_replaced: bool) -> None:
    """It is locked again within seconds: who has no runtime folder finds the daemon that runs, and starts no other."""
    lock = Path(f"{daemon.database_path}.lock")
    lock.unlink()
    if is_replaced:
        lock.touch()
    look_again(client, hand)
    daemon.wait_for_log("locked again")
    assert InProcess(daemon.home, from_cron(daemon)).ok("status", "-q").text == f"{daemon.pid}\n"


def test_a_daemon_whose_lock_another_one_has(daemon: DaemonProcess, client: RawClient, hand: Shim) -> None:
    """It stops when it sees that: one database has one daemon, and clients find the other by its note."""
    kept = client.call("session.create", config=LOCAL)["id"]
    Path(f"{daemon.database_path}.lock").unlink()
    second = DaemonProcess(daemon.home)
    second.environment = from_cron(daemon)
    second.socket_path = daemon.home / ".local" / "state" / "orbit" / "orbitd.sock"
    os.kill(daemon.pid, signal.SIGSTOP)  # it looks every five seconds, and is to be too late
    try:
        try:
            second.start()
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        hand.pass_time(10)
        assert daemon.process is not None
        assert daemon.process.wait(WAIT_SECS) == 0
        daemon.wait_for_log("the lock was lost, stopping")
        assert Orbitctl(daemon.home).ok("session", "list", "-q").lines == [kept]
    finally:
        second.stop()


def test_a_socket_folder_that_vanishes(daemon: DaemonProcess, client: RawClient, hand: Shim) -> None:
    """Clients that are connected go on; folder and socket are made anew, and the next client finds the daemon."""
    shutil.rmtree(daemon.socket_path.parent)
    with pytest.raises(OSError):
        daemon.client()
    look_again(client, hand)
    daemon.wait_for_log("listening again")
    with daemon.client() as again:
        assert again.call("daemon.info")["pid"] == daemon.pid
    assert daemon.socket_path.parent.stat().st_mode & 0o777 == 0o700


def test_a_socket_of_somebody_else_in_its_place(daemon: DaemonProcess, client: RawClient, hand: Shim) -> None:
    """A socket that another program serves where ours was is left alone; we listen elsewhere, and doctor says so."""
    daemon.socket_path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(daemon.socket_path))
        other.listen()
        look_again(client, hand)
        daemon.wait_for_log("listening again")
        told = client.call("daemon.info")
        assert any("somebody serves" in warning for warning in told["warnings"])
        with RawClient(Path(told["socket_path"])) as elsewhere:
            assert elsewhere.call("daemon.info")["pid"] == daemon.pid


def test_no_configuration_by_its_usual_name(stopped_daemon: DaemonProcess) -> None:
    """/dev/null is a configuration without keys, behind a link and by its name."""
    path = stopped_daemon.home / ".config" / "orbit" / "config.toml"
    path.parent.mkdir(parents=True)
    path.symlink_to(os.devnull)
    with stopped_daemon.start().client() as client:
        assert client.call("daemon.ping") == {"pong": True}
    Orbitctl(stopped_daemon.home).ok("config", "check", os.devnull)
