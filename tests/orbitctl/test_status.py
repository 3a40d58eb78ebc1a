"""`status`, `stats`, `version`, `doctor`, `config` and `maintenance`."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import sqlite3
import stat
import sys
import threading
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ctl_support import Orbitctl, Peer, read_line
from needs import needs
from orbit_protocol import PROTOCOL_VERSION, VERSION
from orbit_protocol.errors import Busy, InvalidParams, StorageCorrupt
from orbit_protocol.methods import MAINTENANCE_CHECK, Method
from orbit_protocol.params import Params
from orbit_protocol.results import CheckReport, Limits
from orbit_protocol.settings import NotificationSettings
from orbitctl.client.client import Answer, Client
from orbitctl.commands import doctor, doctor_checks
from orbitctl.commands.doctor_checks import desktop_notifications
from orbitctl.errors import from_daemon
from support import WAIT_SECS, DaemonProcess


def test_status_tells_how_the_daemon_is(ctl: Orbitctl, shared_daemon: DaemonProcess) -> None:
    """Version, process, paths and counts are there at a glance."""
    ctl.ok("session", "create")
    shown = dict(line.split(":", 1) for line in ctl.ok("status").lines)
    assert shown["orbitd"].split() == ["running,", "version", f"{VERSION},", "pid", str(shared_daemon.pid)]
    assert shown["socket"].strip() == str(shared_daemon.socket_path)
    assert shown["database"].strip().startswith(str(shared_daemon.database_path))
    assert shown["sessions"].strip() == "1 active, 0 detached, 0 terminated, 0 archived"


def test_status_of_no_daemon_exits_with_3(offline: Orbitctl) -> None:
    """Status says that none runs, where it would be, and starts none."""
    for _ in range(2):
        ended = offline("status")
        assert ended.code == 3
        assert ended.lines[0].split() == ["orbitd:", "not", "running"]
    assert offline("status", "--json").json["running"] is False


def test_status_as_json(ctl: Orbitctl, shared_daemon: DaemonProcess) -> None:
    """--json has both results as the daemon gave them."""
    found = ctl.ok("status", "--json").json
    assert found["running"] is True
    assert found["info"]["pid"] == shared_daemon.pid
    assert found["stats"]["total_sessions"] == 0
    assert found["warnings"] == []


def test_stats_are_counted(ctl: Orbitctl) -> None:
    """Stats shows every count; --json is the daemon's result."""
    ctl.ok("workspace", "create", "w")
    assert ["total workspaces", "1"] in [re.split(r":\s+", line) for line in ctl.ok("stats").lines]
    assert ctl.ok("stats", "--json").json["total_workspaces"] == 1


def test_version_tells_both(own_ctl: Orbitctl, lonely: Orbitctl) -> None:
    """The daemon's version is told if one runs; none is started for it."""
    ours = f"orbitctl {VERSION} (protocol {PROTOCOL_VERSION})"
    assert own_ctl.ok("version").lines == [ours, f"orbitd {VERSION} (protocol {PROTOCOL_VERSION})"]
    own_ctl.ok("daemon", "stop")
    assert lonely.ok("version").lines == [ours, "orbitd is not running"]
    assert lonely.ok("version", "--json").json["orbitd"] is None


def test_doctor_is_content_with_a_healthy_daemon(ctl: Orbitctl) -> None:
    """Every check is ok, and the exit code is 0."""
    report = ctl.ok("doctor", "--json").json
    assert report["ok"] is True
    states = {check["check"]: check["state"] for check in report["checks"]}
    assert {"configuration", "database folder", "disk room", "file system", "daemon", "protocol", "database"} <= set(
        states
    )
    assert [check for check in report["checks"] if check["state"] == "fail"] == []
    assert ctl.ok("doctor").lines[-1].startswith(f"{len(states)} checks: 0 failed")


def test_doctor_warns_where_no_daemon_runs(offline: Orbitctl) -> None:
    """A daemon that is not running is a warning with the next step, and none is started."""
    ended = offline.ok("doctor")
    assert "warn  daemon: no daemon is running" in ended.text
    assert "-> `orbitctl daemon start`" in ended.text


def test_doctor_finds_an_open_folder(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """A folder that others can enter fails, with the command that closes it."""
    folder = daemon.database_path.parent
    folder.chmod(0o755)
    ended = own_ctl("doctor")
    assert ended.code == 1
    assert f"fail  database folder: {folder} is open to others (mode 0755)" in ended.text
    assert f"-> chmod 700 {folder}" in ended.text


def test_no_remedy_harms_the_machine(offline: Orbitctl) -> None:
    """Where a path is configured into a folder for everybody, nobody is told to close it, or to own all of it."""
    ended = offline("doctor", ORBITD_DATABASE="/tmp/orbit-nowhere.db")
    place = ended.lines.index(next(line for line in ended.lines if line.startswith("fail  database folder: /tmp ")))
    assert ended.lines[place + 1].strip() == "-> Name one of your own."
    started = offline("daemon", "start", ORBITD_DATABASE="/tmp/orbit-nowhere.db")
    assert (started.code, "configure a folder of your own" in started.err) == (3, True), started


@needs(root=True)
@pytest.mark.parametrize("where", ["at home", "elsewhere"])
def test_only_at_home_a_folder_is_given_back(home: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A folder that another user owns, as after sudo, has the command that takes it back only where it is in HOME."""
    monkeypatch.setenv("HOME", str(home if where == "at home" else home / "other"))
    folder = home / "orbit"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    assert ("sudo chown -R 0" in doctor_checks.folder("folder", str(folder)).remedy) == (where == "at home")


def test_doctor_finds_a_damaged_snapshot(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """A snapshot whose bytes were changed behind the daemon's back fails the database's check."""
    own_ctl.ok("session", "create", "--name", "web")
    found = own_ctl.id("snapshot", "save", "web", stdin=b"screen" * 1000)
    daemon.stop()
    with sqlite3.connect(daemon.database_path) as database:
        database.execute("UPDATE session_snapshots SET terminal_buffer = zeroblob(length(terminal_buffer))")
    database.close()
    daemon.start()
    ended = own_ctl("doctor")
    assert ended.code == 1
    assert found in ended.text
    assert own_ctl("maintenance", "check").code == 1
    assert own_ctl("snapshot", "show", found).code == 1


def test_doctor_does_not_wait_for_a_huge_database(ctl: Orbitctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is not enough time for a single snapshot, doctor warns, and says how to check everything."""
    monkeypatch.setattr(doctor, "_CHECK_SECS", 1e-9)
    lines = ctl.ok("doctor").lines
    (place,) = [place for place, line in enumerate(lines) if line.startswith("warn  database: not checked")]
    assert lines[place + 1] == "      -> `orbitctl maintenance check` checks everything."


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (Busy("4 checks read the database already"), "warn", "4 checks"),
        (StorageCorrupt("The disk cannot be read"), "fail", "The disk"),
        ((0, 0), "warn", "not checked"),
        ((0, 9), "ok", "0 of 9 snapshots"),
        ((8, 9), "ok", "8 of 9 snapshots"),
    ],
)
def test_doctor_says_no_more_than_was_checked(
    ctl: Orbitctl, monkeypatch: pytest.MonkeyPatch, answer: Any, state: str, words: str
) -> None:
    """A check that could not begin, or has come to no snapshot, is a warning; one that fails is a failure."""

    def instead(client: Client, method: Method[Any, Any], params: Any, *more: Any) -> Any:
        if method is not MAINTENANCE_CHECK:
            return ask(client, method, params, *more)
        if isinstance(answer, Exception):
            raise from_daemon(answer) from answer
        checked, total = answer
        report = CheckReport(
            ok=True,
            integrity=[],
            foreign_keys=[],
            snapshots=[],
            complete=False,
            checked_snapshots=checked,
            total_snapshots=total,
        )
        return Answer(client, method, msgspec.json.encode(report))

    ask = Client.ask
    monkeypatch.setattr(Client, "ask", instead)
    (line,) = [line for line in ctl("doctor").lines if "  database: " in line]
    assert line.startswith(state)
    assert words in line


def test_doctor_checks_with_a_daemon_that_knows_no_limit(ctl: Orbitctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon of an earlier version, which refuses the limit, is asked for the whole check."""
    asked: list[Params] = []
    whole = CheckReport(ok=True, integrity=[], foreign_keys=[], snapshots=[])

    def refuse_limit(client: Client, method: Method[Any, Any], params: Any, *more: Any) -> Any:
        if method is not MAINTENANCE_CHECK:
            return ask(client, method, params, *more)
        asked.append(params)
        if params.limit_secs is not None:
            error = InvalidParams("Object contains unknown field `limit_secs`")
            raise from_daemon(error) from error
        return Answer(client, method, msgspec.json.encode(whole))

    ask = Client.ask
    monkeypatch.setattr(Client, "ask", refuse_limit)
    assert "ok    database: no damage, in no snapshot either" in ctl.ok("doctor").lines
    assert [getattr(params, "limit_secs", None) for params in asked] == [doctor._CHECK_SECS, None]


def test_doctor_names_no_backup_that_is_being_written(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """A copy that is not complete is nothing to restore."""
    folder = daemon.database_path.parent / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / ".orbit-backup-0123456789abcdef").write_bytes(b"half")
    assert not any("0123456789abcdef" in line for line in own_ctl("doctor").lines)


def test_doctor_does_not_wait_for_a_database_that_hangs(offline: Orbitctl, home: Path) -> None:
    """A daemon that answers while its disk does not: the check is not begun."""
    info = {"version": VERSION, "protocol_version": PROTOCOL_VERSION, "pid": 1, "started_at": "2030-01-01T00:00:00Z"}
    info |= {"features": [], "supervisor": "none", "chores": [], "warnings": []}
    info["limits"] = dict.fromkeys(Limits.__struct_fields__, 1)
    over = threading.Event()
    asked = []

    def talk(connection: socket.socket) -> None:
        request = json.loads(read_line(connection))
        paths = {"socket_path": str(home / "s"), "database_path": str(home / "d")}
        body = {"jsonrpc": "2.0", "id": request["id"], "result": {**info, **paths}}
        connection.sendall(json.dumps(body).encode() + b"\n")
        asked.append(json.loads(read_line(connection))["method"])
        over.wait(WAIT_SECS)

    peer = Peer(home / "s", talk)
    ended = offline("doctor", "--socket", str(home / "s"), "--timeout", "0.3")
    over.set()
    peer.close()
    assert (ended.code, asked) == (1, ["stats.get"])
    assert "fail  database: orbitd answers, but no read of the database within 0.3 s" in ended.text


def test_doctor_names_a_bad_configuration(offline: Orbitctl) -> None:
    """A configuration that cannot be used fails, and what depends on it is not guessed."""
    folder = offline.home / ".config" / "orbit"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[nope]\n")
    ended = offline("doctor")
    assert ended.code == 1
    assert "fail  configuration: " in ended.text


@pytest.mark.parametrize("name", ["share/orbit/sessions.db", "share/orbit/sessions.db.lock", "state/orbit/start.lock"])
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_doctor_names_what_stands_in_the_place_of_a_file(offline: Orbitctl, name: str, kind: str) -> None:
    """No daemon starts there, and each command that needs one says so: doctor says it, too."""
    path = offline.home / ".local" / name
    path.parent.mkdir(parents=True, mode=0o700)
    make = {"link": lambda: path.symlink_to("away"), "fifo": lambda: os.mkfifo(path, 0o600), "folder": path.mkdir}
    make[kind]()
    ended = offline("doctor")
    assert ended.code == 1
    what, remedy = ("is a symbolic link", "Name the file itself.") if kind == "link" else ("is no regular", "Move it ")
    assert f"{path} {what}" in ended.text
    assert remedy in ended.text


def test_a_network_file_system_is_refused(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A database on NFS fails, whatever lies above it is fine."""
    monkeypatch.setattr(doctor_checks, "_linux_mounts", lambda: {"/": "ext4", str(home): "nfs4"})
    monkeypatch.setattr("sys.platform", "linux")
    found = doctor_checks.local_disk(str(home / "not" / "there.db"))
    assert (found.state, "nfs4" in found.message) == ("fail", True)
    assert doctor_checks.local_disk("/").state == "ok"


def test_a_file_system_without_modes(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """A folder on FAT stays open whatever chmod is told; only there does the remedy say so."""
    folder = home / "orbit"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    assert doctor_checks.folder("database folder", str(folder)).remedy == f"chmod 700 {folder}"
    monkeypatch.setattr(doctor_checks, "_linux_mounts", lambda: {"/": "ext4", str(home): "vfat"})
    monkeypatch.setattr("sys.platform", "linux")
    assert "vfat keeps no modes here" in doctor_checks.folder("database folder", str(folder)).remedy


def test_a_disk_that_is_mounted_read_only(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """It fails by its own name: to free space would not help."""
    real = os.statvfs(home)
    fields = {name: getattr(real, name) for name in ("f_bavail", "f_frsize")}
    monkeypatch.setattr(os, "statvfs", lambda _path: types.SimpleNamespace(**fields, f_flag=os.ST_RDONLY))
    found = doctor_checks.disk_room(str(home))
    assert (found.state, "read-only" in found.message, "Remount" in found.remedy) == ("fail", True, True)


@pytest.mark.parametrize(
    ("files", "left", "state"),
    [(1000, 0, "fail"), (1000, 15, "fail"), (1000, 16, "warn"), (1000, 255, "warn"), (1000, 256, "ok"), (0, 0, "ok")],
)
def test_a_disk_without_inodes(monkeypatch: pytest.MonkeyPatch, home: Path, files: int, left: int, state: str) -> None:
    """A disk where no file can be made is full, whatever room there is; one without a limit of files is not."""
    room = {"f_bavail": 1 << 30, "f_frsize": 4096, "f_flag": 0}
    monkeypatch.setattr(os, "statvfs", lambda _path: types.SimpleNamespace(**room, f_files=files, f_favail=left))
    found = doctor_checks.disk_room(str(home))
    assert found.state == state
    assert ("inode" in found.message) == (state != "ok")


@pytest.mark.parametrize("path", ["/etc", "/usr", "/dev"])
def test_a_folder_of_the_system_is_not_to_be_closed(path: str) -> None:
    """Where a path is configured into /etc, the remedy is another path: root would ruin the machine with chmod."""
    remedy = doctor_checks.folder("database folder", path).remedy
    assert remedy == "Name one of your own."


@needs(linux=True)
def test_whether_the_desktop_can_show_notifications(tmp_path: Path) -> None:
    """Doctor says by what they are shown, that there is no desktop, which is well, or that its program is missing."""
    on, bus = NotificationSettings(), {"PATH": str(tmp_path), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/x"}
    assert desktop_notifications(NotificationSettings(desktop=False), bus).message.startswith("off")
    assert desktop_notifications(on, {"PATH": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}).state == "ok"
    found = desktop_notifications(on, bus)
    assert (found.state, "libnotify-bin" in found.remedy) == ("warn", True)
    (tmp_path / "notify-send").write_text("")
    (tmp_path / "notify-send").chmod(0o755)
    assert desktop_notifications(on, bus).message == f"shown by {tmp_path}/notify-send"


def test_config_path_show_and_check(offline: Orbitctl) -> None:
    """The file's path, the settings that hold, and whether a file can be used."""
    path = offline.home / ".config" / "orbit" / "config.toml"
    assert offline.ok("config", "path").text == f"{path}\n"
    assert offline.ok("config", "check").text == f"{path}: not there; the defaults hold\n"
    path.parent.mkdir(parents=True)
    path.write_text('[session]\nsnapshot_retention_count = 3\n[hooks]\n"command.*" = ["~/a b", \'"\']\n')
    assert offline.ok("config", "check").text == f"{path}: ok\n"
    shown = offline.ok("config", "show")
    assert "snapshot_retention_count = 3" in shown.lines
    assert '"command.*" = ["~/a b", "\\""]' in shown.lines
    assert "restore_sessions_on_startup = true" in shown.lines
    again = offline.home / "again.toml"
    again.write_bytes(shown.out)
    assert offline.ok("config", "show", ORBITD_CONFIG=str(again)).out == shown.out
    assert offline("config", "check", "nowhere.toml").code == 2
    assert not (offline.home / "run" / "orbit").exists()


@pytest.mark.parametrize("key", ["session.database_path", "daemon.socket_path"])
@pytest.mark.parametrize("path", ["o/x", "$HOME/x", "~root/x", ":memory:", "~", "~/", ""])
def test_a_path_that_each_program_would_read_otherwise(offline: Orbitctl, key: str, path: str) -> None:
    """`config check` refuses it by file and key, and so does every command; nothing is made."""
    config = offline.home / ".config" / "orbit" / "config.toml"
    config.parent.mkdir(parents=True)
    table, name = key.split(".")
    config.write_text(f'[{table}]\n{name} = "{path}"\n')
    before = sorted(offline.home.rglob("*"))
    for words in (("config", "check"), ("config", "check", str(config)), ("session", "list"), ("daemon", "start")):
        ended = offline(*words)
        assert (ended.code, ended.out, f"{config}: `{key}` m" in ended.err) == (2, b"", True), ended
    assert sorted(offline.home.rglob("*")) == before


def test_a_socket_path_of_the_configuration_that_is_too_long(offline: Orbitctl) -> None:
    """`config check` names it with its length and the limit, as the daemon would."""
    config = offline.home / "config.toml"
    config.write_text(f'[daemon]\nsocket_path = "~/{"s" * 120}"\n')
    ended = offline("config", "check", str(config))
    length = len(str(offline.home)) + 121
    assert (
        ended.code,
        f"`daemon.socket_path`: socket path is too long ({length} bytes, at most 107)" in ended.err,
    ) == (
        2,
        True,
    ), ended


def test_a_configuration_that_a_variable_names_has_to_be_there(offline: Orbitctl) -> None:
    """The daemon refuses it, and a client that went on would ask another daemon."""
    named = {"ORBITD_CONFIG": str(offline.home / "none.toml")}
    for words in (("config", "check"), ("session", "list"), ("daemon", "stop")):
        ended = offline(*words, **named)
        assert (ended.code, "none.toml: no such file" in ended.err) == (2, True), ended
    assert offline.ok("config", "path", **named).text == f"{offline.home}/none.toml\n"


def test_what_needs_no_home_works_without_one(offline: Orbitctl) -> None:
    """Help, version, completion and a configuration that is named; all else says what is wrong with HOME."""
    for words in (("--help",), ("--version",), ("completion", "bash"), ("session", "list", "--help")):
        assert offline.ok(*words, HOME="relative").text
    assert offline.ok("config", "path", HOME="relative", ORBITD_CONFIG="/x/y.toml").text == "/x/y.toml\n"
    for words in (("config", "path"), ("config", "show"), ("session", "list"), ("service", "print")):
        ended = offline(*words, HOME="relative")
        assert (ended.code, ended.out) == (2, b""), ended
        assert "HOME is not an absolute path: relative" in ended.err
    assert "fail  configuration: HOME is not an absolute path" in offline("doctor", HOME="relative").text
    assert not (offline.home / "relative").exists()


def test_a_flag_and_the_current_folder(offline: Orbitctl, home: Path) -> None:
    """A relative path may be typed; it is refused where the current folder has been deleted."""
    assert f"no socket at {home}/r/s" in offline("session", "list", "--socket", "r/s").err
    gone = Orbitctl(home, offline.environment).shell(
        f"mkdir {home}/gone && cd {home}/gone && rmdir {home}/gone && "
        f"{shlex.join([sys.executable, '-m', 'orbitctl'])} --socket r/s session list"
    )
    assert (gone.code, "--socket is relative to the current folder, which has been deleted: r/s" in gone.err) == (
        2,
        True,
    )


def test_maintenance_tells_what_it_did(ctl: Orbitctl) -> None:
    """Each task says its count, and --json is the daemon's result."""
    ctl.ok("session", "create", "--name", "web")
    for _ in range(3):
        ctl.ok("snapshot", "save", "web", stdin=b"x")
    assert ctl.ok("maintenance", "cleanup", "--keep", "1").text == "deleted 2 snapshots\n"
    assert ctl.ok("maintenance", "auto-save", "--json").json == {"saved": 0}
    assert ctl.ok("maintenance", "vacuum").text.startswith("freed ")
    assert ctl.ok("maintenance", "check").text == "ok\n"


@pytest.mark.parametrize(
    ("before", "archived"), [("30d", 0), ("2000-01-01", 0), ("2999-01-01T00:00:00Z", 1), ("0s", 1)]
)
def test_archive_takes_times_and_spans(ctl: Orbitctl, before: str, archived: int) -> None:
    """--before is a date, a time or how long ago."""
    ctl.ok("session", "create", "--name", "web")
    ctl.ok("session", "terminate", "web")
    assert ctl.ok("maintenance", "archive", "--before", before, "--json").json == {"archived": archived}
    assert len(ctl.ok("session", "list", "-q", "--status", "archived").lines) == archived


def test_a_backup_goes_beside_the_database_or_where_it_is_told(own_ctl: Orbitctl, daemon: DaemonProcess) -> None:
    """Without a path the backup has the time in its name; a relative path is the caller's."""
    own_ctl.ok("session", "create", "--name", "web")
    usual = Path(own_ctl.ok("maintenance", "backup", "-q").text.strip())
    assert usual.parent == daemon.database_path.parent / "backups"
    told = Path(own_ctl.ok("maintenance", "backup", "mine.db", "-q").text.strip())
    assert told == own_ctl.home / "mine.db"
    for path in (usual, told):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with sqlite3.connect(path) as database:
            assert database.execute("SELECT name FROM sessions").fetchall() == [("web",)]
        database.close()
    assert f"ok    backup: {usual}" in own_ctl.ok("doctor").text


def test_doctor_looks_at_home_beside_a_named_socket(home: Path) -> None:
    """A socket that is named needs no HOME; what a start would make does, and doctor says that first."""
    ctl = Orbitctl(home)
    found = ctl("doctor", ORBITD_SOCKET=str(home / "s"), HOME=str(home / "missing"), ORBITCTL_NO_AUTOSTART="1")
    assert found.code == 1
    assert f"HOME is {home}/missing, which does not exist" in found.text
