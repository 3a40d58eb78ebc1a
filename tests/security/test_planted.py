"""Links, devices and odd names where Orbit expects files and ids: named, refused, left alone."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from ctl_support import InProcess, Orbitctl
from support import DaemonProcess, RawClient, clean_environment

ODD_NAMES = [
    "../../escaped",
    "/etc/passwd",
    "..",
    "a/b",
    "$(touch pwned)",
    "; touch pwned",
    "`touch pwned`",
    "%s%n%x",
    "--help",
    "'; DROP TABLE sessions; --",
    "%",
    "_",
    "\u202egnihtemos",
    "con\\..\\x",
]


@pytest.fixture
def victim(home: Path) -> Path:
    """A file of the user's that has nothing to do with Orbit."""
    path = home / "precious"
    path.write_text("precious")
    path.chmod(0o644)
    return path


DATABASE = ".local/share/orbit/sessions.db"
STATE = ".local/state/orbit"
PLANTED = [DATABASE, f"{DATABASE}.lock", "run/orbit/orbitd.sock"]


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("dangling", [False, True], ids=["to a file", "to nothing"])
def test_a_link_in_a_files_place_is_refused(
    stopped_daemon: DaemonProcess, home: Path, victim: Path, name: str, dangling: bool
) -> None:
    """Database, lock and socket are reached through no link: it is named, and what it leads to stays untouched."""
    link, target = home / name, home / "nothing" if dangling else victim
    link.parent.mkdir(mode=0o700, parents=True)
    link.symlink_to(target)
    assert str(link) in stopped_daemon.refused()
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("precious", 0o644)
    assert not (home / "nothing").exists()
    assert link.is_symlink()


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_is_refused(stopped_daemon: DaemonProcess, home: Path, name: str, kind: str) -> None:
    """A FIFO or a folder in a file's place is named at once; nothing waits for its other end."""
    path = home / name
    path.parent.mkdir(mode=0o700, parents=True)
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    assert str(path) in stopped_daemon.refused()


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder"])
def test_what_stands_in_the_place_of_sqlites_files(
    stopped_daemon: DaemonProcess, home: Path, victim: Path, suffix: str, kind: str
) -> None:
    """It is moved aside and named, a link is not followed, and the store is served."""
    with stopped_daemon.start().client() as client:
        made = client.call("session.create", config={"session_type": "local"})["id"]
    assert stopped_daemon.stop() == 0
    path = home / (DATABASE + suffix)
    put(path, kind, victim)
    with stopped_daemon.start().client() as client:
        assert client.call("session.get", id=made)["id"] == made
        (warning,) = client.call("daemon.info")["warnings"]
    (aside,) = path.parent.glob(f"{path.name}.aside-*")
    assert str(path) in warning
    assert str(aside) in warning
    assert victim.read_text() == "precious"
    assert not (home / "nothing").exists()


@pytest.mark.parametrize(
    "name", ["backups", ".orbit-backup-0", "sessions.db.restoring", "sessions.db.keeper", "sessions.db.keeper.pid"]
)
@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder", "file"])
def test_odd_things_beside_the_database(
    stopped_daemon: DaemonProcess, home: Path, victim: Path, name: str, kind: str
) -> None:
    """Whatever lies where backups, a restore or the keeper would be, the store is served, and no link is followed."""
    path = home / DATABASE
    path.parent.mkdir(mode=0o700, parents=True)
    put(path.with_name(name), kind, victim)
    with stopped_daemon.start().client() as client:
        made = client.call("session.create", config={"session_type": "local"})["id"]
    stopped_daemon.kill()
    with stopped_daemon.start().client() as client:
        assert client.call("session.get", id=made)["id"] == made
    assert victim.read_text() == "precious"
    assert not (home / "nothing").exists()


def put(path: Path, kind: str, victim: Path) -> None:
    """Put a link to a file, a link to nothing, a FIFO, a folder that is not empty, or a text in a path's place."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir(0o700)
        (path / "inside").touch()
    elif kind == "file":
        path.write_text("text")
    else:
        path.symlink_to(victim if kind == "link" else victim.with_name("nothing"))


@pytest.mark.parametrize("kind", ["link", "dangling link", "fifo", "folder", "file"])
def test_something_else_in_a_journals_place(daemon: DaemonProcess, home: Path, victim: Path, kind: str) -> None:
    """It is moved aside and named for as long as it lies there; the session goes on, and nothing else is touched."""
    with daemon.client() as client:
        session = client.call("session.create", config={"session_type": "local", "command": "cat"})["id"]
        other = client.call("session.create", config={"session_type": "local", "command": "cat"})["id"]
        for each in (session, other):
            client.call("session.start", id=each)
    daemon.kill()
    journal = home / STATE / "journal" / session
    journal.unlink()
    put(journal, kind, victim)
    for _ in range(2):
        with daemon.start().client() as client:
            assert [client.call("session.get", id=each)["live"] for each in (session, other)] == [True, True]
            client.call("session.screen", id=session)  # no journal is opened before somebody needs it
            [warning] = client.call("daemon.info")["warnings"]
            assert session in warning
        daemon.kill()
    [aside] = journal.parent.glob(f"{session}.damaged-*")
    assert str(aside) in warning
    assert journal.is_file()
    assert not journal.is_symlink()
    assert victim.read_text() == "precious"
    assert not (home / "nothing").exists()
    aside.rename(home / "away")
    with daemon.start().client() as client:
        assert client.call("daemon.info")["warnings"] == []


@pytest.mark.parametrize("name", ["orbitd.log", "start.lock"])
def test_orbitctl_waits_for_no_fifo(home: Path, name: str) -> None:
    """A FIFO where orbitctl opens a file is named, and nothing waits for its other end."""
    path = home / STATE / name
    path.parent.mkdir(mode=0o700, parents=True)
    os.mkfifo(path)
    ended = Orbitctl(home)("session", "list")
    assert (ended.code, ended.out, str(path) in ended.err) == (3, b"", True), ended


def test_a_link_to_a_live_socket_is_refused(daemon: DaemonProcess, home: Path) -> None:
    """A second daemon does not take a link to the first one's socket for a leftover."""
    other = home / "other"
    other.mkdir(mode=0o700)
    link = other / "s"
    link.symlink_to(daemon.socket_path)
    second = DaemonProcess(home, "--socket", str(link), "--database", str(other / "x.db"))
    assert str(link) in second.refused()
    with daemon.client() as client:
        assert client.call("daemon.info")["pid"] == daemon.pid


@pytest.mark.parametrize("name", ["orbitd.log", "start.lock"])
def test_orbitctl_writes_through_no_link(home: Path, victim: Path, name: str) -> None:
    """Log and lock of a start by orbitctl are no links; it names the one that is and exits with 3."""
    link = home / ".local" / "state" / "orbit" / name
    link.parent.mkdir(mode=0o700, parents=True)
    link.symlink_to(victim)
    ended = Orbitctl(home)("session", "list")
    assert (ended.code, ended.out, str(link) in ended.err) == (3, b"", True), ended
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("kind", ["fifo", "socket", "link to a device", "folder"])
def test_a_backup_replaces_files_only(client: RawClient, home: Path, kind: str) -> None:
    """A path where something else is than a file is -32602, and stays what it was."""
    path = home / "target"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(os.devnull)
    before = path.stat().st_mode
    error = client.error("maintenance.backup", path=str(path))
    assert (error["code"], str(path) in error["message"]) == (-32602, True), error
    assert path.stat().st_mode == before


@pytest.mark.parametrize("path", ["copy.db", "../copy.db", "", "~/copy.db", "/nonexistent/copy.db", "/", "/tmp/a\0b"])
def test_a_backup_needs_a_whole_path(shared_client: RawClient, path: str) -> None:
    """A path that would depend on the daemon's folder, or is no file's, is -32602."""
    assert shared_client.error("maintenance.backup", path=path)["code"] == -32602


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", ".lock"])
def test_a_backup_never_replaces_the_store(daemon: DaemonProcess, client: RawClient, home: Path, suffix: str) -> None:
    """The database and what lies beside it are refused, by their own name and by a link."""
    live = f"{daemon.database_path}{suffix}"
    (home / "link").symlink_to(live)
    errors = [client.error("maintenance.backup", path=path) for path in (live, str(home / "link"))]
    assert [error["code"] for error in errors] == [-32602, -32602]
    assert client.call("maintenance.check")["ok"]


def test_a_backup_replaces_nothing_of_ours(daemon: DaemonProcess, client: RawClient, home: Path) -> None:
    """Configuration, logs, locks, sockets, journals and agent links are refused, there or not, by any way to them."""
    session = client.call("session.create", config={"session_type": "local", "command": "cat"})["id"]
    client.call("session.start", id=session, env={"SSH_AUTH_SOCK": str(home / "agent")})
    database, state = home / DATABASE, home / STATE
    (state / "start.lock").touch(mode=0o600)
    (home / "state").symlink_to(state)
    os.link(state / "start.lock", home / "hard")
    ours = [
        home / ".config" / "orbit" / "config.toml",
        daemon.socket_path,
        daemon.socket_path.with_name("anything"),
        daemon.log_path,
        *(
            Path(f"{database}{suffix}")
            for suffix in (".keeper", ".keeper.lock", ".keeper.pid", ".lock", "-wal", "-shm", "-journal")
        ),
        *(state / name for name in ("orbitd.log", "start.lock", f"journal/{session}", f"journal/{session}.new")),
        *(state / name for name in (f"agent/{session}", "anything")),
        home / "state" / "start.lock",
        home / "state" / ".." / "orbit" / "orbitd.log",
        home / "hard",
    ]
    (home / ".config" / "orbit").mkdir(mode=0o700, parents=True)
    for path in ours:
        before = path.lstat() if os.path.lexists(path) else None
        error = client.error("maintenance.backup", path=str(path))
        assert (error["code"], str(path) in error["message"]) == (-32602, True), error
        after = path.lstat() if os.path.lexists(path) else None
        assert (before is None) == (after is None)
        assert before is None or after is None or before.st_ino == after.st_ino
    assert client.call("session.get", id=session)["live"]


def names_below(home: Path) -> set[str]:
    """Return every path below a folder but SQLite's, which come and go."""
    return {str(path) for path in home.rglob("*") if not path.name.endswith(("-wal", "-shm"))}


def test_odd_names_are_names_and_nothing_else(daemon: DaemonProcess, home: Path) -> None:
    """A name that looks like a path, an option, SQL or a command is kept to the letter and makes no file."""
    parent_before = set(os.listdir(home.parent))
    with daemon.client() as client:
        before = names_below(home)
        for name in ODD_NAMES:
            session = client.call("session.create", config={"session_type": "local"}, name=name)
            client.call("workspace.create", name=name, layout={"layout_type": name, "config": name})
            client.call("snapshot.save", session_id=session["id"], terminal_buffer="AAEC")
            assert client.call("session.find", ref=name)["id"] == session["id"]
        listed = client.call("session.list")["sessions"]
        assert [one["name"] for one in listed] == ODD_NAMES
        assert [one["name"] for one in client.call("workspace.list")["workspaces"]] == ODD_NAMES
    assert names_below(home) == before
    assert not {name for name in set(os.listdir(home.parent)) - parent_before if "escaped" in name or "pwned" in name}


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_command_line_takes_odd_names(shared_daemon: DaemonProcess, home: Path, name: str) -> None:
    """What is made under an odd name is found under it again, and runs nothing."""
    ctl = InProcess(home, shared_daemon.environment)
    made = ctl.id("session", "create", "--name", name)
    assert ctl.ok("--json", "session", "show", "--", name).json["id"] == made
    assert not [*home.glob("**/pwned"), *shared_daemon.home.glob("**/pwned")]


def test_ids_that_look_like_paths_are_unknown(shared_client: RawClient) -> None:
    """An id is looked up, never opened."""
    for wrong in ("../../../etc/passwd", "/etc/passwd", ".", "%", "' OR 1=1 --", "\u0000"):
        assert shared_client.error("session.get", id=wrong)["code"] == 1000
        assert shared_client.error("snapshot.get", id=wrong)["code"] == 1100
        assert shared_client.error("workspace.get", id=wrong)["code"] == 1200
        assert shared_client.error("session.delete", id=wrong)["code"] == 1000


@pytest.mark.parametrize("folder", [".local/share/orbit", ".local/state/orbit", "run/orbit"])
def test_a_start_by_orbitctl_refuses_a_linked_folder(home: Path, folder: str) -> None:
    """A folder of Orbit's that is a link is named, and nothing is put where it leads to."""
    clean_environment(home)
    elsewhere = home / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link = home / folder
    link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    ctl = Orbitctl(home)
    ended = ctl("session", "list")
    ctl("daemon", "stop")
    assert (ended.code, str(link) in ended.err) == (3, True), ended
    assert os.listdir(elsewhere) == []
