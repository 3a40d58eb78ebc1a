"""Private sessions: they live on over kill -9 of orbitd, and nothing of what they show is ever on the disk."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import select
import shlex
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orbitd.keeper.server
from ctl_support import Orbitctl
from keeper_support import OLDER
from live.poisons import FATAL
from live.screens_processes import screens_processes, template, wait_for_template
from live.sessions import keeper_of, kill, start
from live_support import Viewer, encoded
from needs import needs
from support import DaemonProcess, RawClient, wait_for_line

pytestmark = needs(linux=True)

ROOT = Path(orbitd.keeper.server.__file__).parents[2]
POISONER = Path(__file__).with_name("poisons.py")
SAYS = r"""
printf '\033]0;title %s\007\033]2;title %s\033\\' "$SECRET" "$SECRET"
printf '\033]9;note %s\007\033]777;notify;note;%s\033\\' "$SECRET" "$SECRET"
printf '\033]7;file://%s/%s\007' "$(hostname)" "$SECRET"
printf '\033]133;A\007$ \033]133;C;cmdline=%s\007' "$SECRET"
printf '\033]633;E;make %s\007\033]633;C\007\033]133;D;3\007\a' "$SECRET"
printf '\033]9;4;1;40\007'
mkdir -p "$HOME/$SECRET"; cd "$HOME/$SECRET"
echo "shown $SECRET"
while read -r line; do echo "read $line"; [ "$line" = leave ] && exit 3; done
"""


class Private:
    """A daemon with a private session whose program shows, says and is given a secret in every way.

    Args:
        daemon: It serves.
        record: Another one makes it a session that is not private.
    """

    def __init__(self, daemon: DaemonProcess, record: str = "none") -> None:
        self.daemon = daemon
        self.secret = secrets.token_hex(12)
        self.typed = 0
        with daemon.client() as client:
            self.neighbour = start(client, "sh -c 'echo neighbour; exec cat'")
            config = {
                "session_type": "local",
                "record": record,
                "command": f"sh -c {shlex.quote(SAYS)} {self.secret}",
                "env": {"SECRET": self.secret},
                "cwd": str(daemon.home),
            }
            self.id = str(client.call("session.create", config=config, name="mine")["id"])
            client.call("session.start", id=self.id)
            self.wait(client, f"shown {self.secret}")

    def wait(self, client: RawClient, text: str) -> None:
        """Wait until it has shown a text."""
        client.call("session.wait", id=self.id, pattern=text, timeout_secs=30, **{"for": "text"})

    def type(self, client: RawClient) -> str:
        """Type the secret once more; return the line that is shown of it."""
        self.typed += 1
        line = f"{self.secret} {self.typed}"
        client.call("session.send", id=self.id, data=encoded(f"{line}\n"))
        self.wait(client, f"read {line}")
        return f"read {line}"

    def screen(self, client: RawClient) -> str:
        return str(client.call("session.screen", id=self.id, scrollback=True)["data"])

    def goes_on(self) -> None:
        """Check that it shows all that it has shown, and takes more."""
        with self.daemon.client() as client:
            shown = self.screen(client)
            assert f"shown {self.secret}" in shown
            for number in range(1, self.typed + 1):
                assert shown.count(f"read {self.secret} {number}\n") == 1
            assert client.call("session.get", id=self.id)["live"]
            self.type(client)

    def files_with_secret(self) -> list[str]:
        """Return the files that have the secret in them, or in their names."""
        found = []
        plain = self.secret.encode()
        wanted = [plain, plain.hex().encode(), plain.decode().encode("utf-16-le")]
        # Base64 of the whole file of a text in which it stands anywhere has one of three.
        wanted += [base64.b64encode(b"x" * shift + plain)[4:28] for shift in range(3)]
        for folder, _, names in os.walk(self.daemon.home):
            for name in names:
                path = Path(folder, name)
                if not stat.S_ISREG(path.lstat().st_mode):
                    continue
                data = path.read_bytes()
                found += [str(path)] if any(each in data for each in wanted) or self.secret in name else []
        return found

    def assert_not_on_disk(self) -> None:
        """Look for the secret in every file, and in every name but that of the folder that the program has made."""
        home = self.daemon.home
        assert self.files_with_secret() == []
        assert [path for path in home.rglob("*") if self.secret in path.name] == [home / self.secret]
        assert not any(self.id in path.name for path in home.rglob("*"))
        for table, database in (
            ("session_snapshots", "sessions.db"),
            ("chunks", "history.db"),
            ("texts", "history.db"),
        ):
            path = self.daemon.database_path.with_name(database)
            if not path.exists():  # no session has a film yet
                continue
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                query = f"SELECT count(*) FROM {table} WHERE session_id = ?"  # names of ours
                assert connection.execute(query, (self.id,)).fetchone() == (0,), table

    def power_off(self) -> None:
        """Kill everything at once: orbitd, its screens processes, the keeper and with it the program."""
        processes = [*screens_processes(self.daemon), template(self.daemon)]
        with self.daemon.client() as client:
            processes.append(keeper_of(client.call("session.get", id=self.id)["pid"]))
        self.daemon.kill()
        for pid in filter(None, processes):
            with contextlib.suppress(ProcessLookupError):
                kill(pid)


@pytest.fixture
def private(daemon: DaemonProcess) -> Private:
    return Private(daemon)


def memories(private: Private) -> list[int]:
    """Return new descriptors of the memories that the keeper holds for private sessions."""
    with private.daemon.client() as client:
        folder = Path(f"/proc/{keeper_of(client.call('session.get', id=private.id)['pid'])}/fd")
    return [os.open(each, os.O_RDWR) for each in folder.iterdir() if "orbit-memory" in os.readlink(each)]


def opened(private: Private) -> Iterator[int]:
    """Yield descriptors of the memories, closed again when the next one is asked for."""
    for fd in memories(private):
        try:
            yield fd
        finally:
            os.close(fd)


def kill_orbitd(private: Private) -> None:
    private.daemon.kill()
    private.daemon.start()


def stop_orbitd(private: Private) -> None:
    private.daemon.restart()


def kill_screens(private: Private) -> None:
    for pid in screens_processes(private.daemon):
        kill(pid)


def kill_template(private: Private) -> None:
    kill(wait_for_template(private.daemon))


@pytest.mark.parametrize("fault", [kill_orbitd, stop_orbitd, kill_screens, kill_template])
@pytest.mark.parametrize("is_saved", [False, True])
def test_a_private_session_goes_on(private: Private, fault: Callable[[Private], None], is_saved: bool) -> None:
    """Whatever ends of orbitd, its screen and history are there again, whole, and no line of it twice."""
    for _ in range(3):
        if is_saved:
            with private.daemon.client() as client:
                client.call("maintenance.auto_save")
        private.goes_on()
        fault(private)
        private.goes_on()
    private.power_off()
    private.assert_not_on_disk()


def test_nothing_of_a_private_session_is_on_the_disk(private: Private) -> None:
    """All that a client can ask for, kills at any of it, and then the power goes: no file has what it has shown."""
    daemon = private.daemon

    def look(client: RawClient) -> None:
        with daemon.client() as own:
            viewer = Viewer(own, private.id, (100, 30))
            viewer.type(f"{private.secret} typed\n")
            viewer.read_until(f"read {private.secret} typed")
            own.call("session.resize", attachment_id=viewer.id, cols=90, rows=20)
            own.call("session.refresh", attachment_id=viewer.id)
        client.call("session.detach", id=private.id)

    def change(client: RawClient) -> None:
        client.call("session.rename", id=private.id, name="other")
        client.call("session.set_labels", id=private.id, labels={"own": "label"})
        client.call("session.touch", id=private.id)
        assert client.error("session.set_resume", id=private.id, command=private.secret)["code"] == -32602
        buffer = encoded(private.secret)
        assert client.error("snapshot.save", session_id=private.id, terminal_buffer=buffer)["code"] == -32602

    def keep(client: RawClient) -> None:
        client.call("maintenance.auto_save")
        client.call("maintenance.backup", path=str(daemon.home / f"backup-{private.typed}.db"), with_history=True)
        client.call("maintenance.cleanup_snapshots", keep_last_n=1)
        client.call("maintenance.vacuum")

    def ask(client: RawClient) -> None:
        private.screen(client)
        shown = client.call("session.get", id=private.id)
        assert shown["cwd"] == str(daemon.home / private.secret)  # of now, out of memory
        assert private.secret in shown["title"]
        assert shown["config"]["command"] is None
        assert private.secret not in str(client.call("events.list", limit=10_000)["events"])
        workspace = client.call("workspace.create", name=f"{private.typed}", layout={"layout_type": "x", "config": {}})
        client.call("session.move", id=private.id, workspace_id=workspace["id"])
        assert private.secret not in str(client.call("workspace.export", id=workspace["id"]))

    for step in (look, change, keep, ask, keep, look):
        with daemon.client() as client:
            step(client)
            private.type(client)
        kill_orbitd(private)
        private.goes_on()
    private.assert_not_on_disk()
    private.power_off()
    private.assert_not_on_disk()
    daemon.start()
    with daemon.client() as client:
        ended = client.call("session.get", id=private.id)
        assert (ended["status"], ended["live"], ended["title"], ended["cwd"]) == ("terminated", False, None, None)
        assert ended["name"] == "other"
        assert client.error("session.screen", id=private.id)["code"] == 1100
        assert client.error("session.start", id=private.id)["data"]["reason"] == "private"
        client.call("maintenance.backup", path=str(daemon.home / "last.db"), with_history=True)
    daemon.stop()
    private.assert_not_on_disk()


def test_what_is_not_private_is_found_by_the_same_look(daemon: DaemonProcess) -> None:
    """The look that finds nothing of a private session finds another one's screen, title and command line."""
    found = Private(daemon, record="full")
    with daemon.client() as client:
        client.call("maintenance.auto_save")
    daemon.stop()
    assert str(daemon.database_path) in found.files_with_secret()


def test_nobody_else_is_told_what_a_private_session_says(stopped_daemon: DaemonProcess) -> None:
    """No hook runs for it, and who follows events is sent ids and exit codes: no title, folder, note or command."""
    home = stopped_daemon.home
    (home / ".config" / "orbit").mkdir(parents=True, mode=0o700)
    kinds = ("session.*", "terminal.*", "command.*")
    hooks = "".join(f'"{each}" = ["sh", "-c", "echo $ORBIT_EVENT >> ~/hooked"]\n' for each in kinds)
    (home / ".config" / "orbit" / "config.toml").write_text(f"[hooks]\n{hooks}")
    daemon = stopped_daemon.start()
    with daemon.client() as follower, daemon.client() as client:
        follower.call("events.subscribe", kinds=["session.*", "terminal.*", "command.*"])
        private = Private(daemon)
        private.type(client)
        client.call("session.rename", id=private.id, name="renamed")
        client.call("session.send", id=private.id, data=encoded("leave\n"))
        assert client.call("session.wait", id=private.id)["exit_code"] == 3
        client.call("session.delete", id=private.id)
        other = start(client, "true")
        client.call("session.wait", id=other)
        seen, data = set(), ""
        while not (data and other in data and "session.exited" in data):
            params = follower.notice()["params"]
            data = str(params)
            assert private.secret not in data
            if params["session_id"] == private.id:
                seen.add(params["kind"])
    assert {"session.created", "session.started", "session.updated", "session.exited", "session.deleted"} <= seen
    assert not any(each.startswith(("terminal.", "command.")) for each in seen)
    hooked = wait_for_line(home / "hooked", other)
    assert private.id not in (home / "hooked").read_text(), hooked
    daemon.stop()
    private.assert_not_on_disk()


def test_a_flood_of_a_private_session(private: Private) -> None:
    """A program that prints without end waits for saves: the memory has a bound, and a kill loses no line."""
    daemon = private.daemon
    with daemon.client() as client:
        config = {"session_type": "local", "record": "none", "command": "sh -c 'seq 4000000; echo done; exec cat'"}
        flood = client.call("session.create", config=config)["id"]
        client.call("session.start", id=flood)
    most = 0
    for _ in range(4):
        with daemon.client() as client:
            for _ in range(40):
                client.call("daemon.ping")
                most = max(most, sum(os.fstat(fd).st_blocks * 512 for fd in opened(private)))
            kill_orbitd(private)
    with daemon.client() as client:
        client.call("session.wait", id=flood, pattern="done", timeout_secs=60, **{"for": "text"})
        lines = client.call("session.screen", id=flood, scrollback=True)["data"].split()
        assert lines[-1] == "done"
        first = int(lines[0])
        assert lines[:-1] == [str(number) for number in range(first, 4_000_001)]
    assert most < 3 * (16 << 20)  # the default of scrollback_max_bytes, for journal and saved screens each
    private.goes_on()


def test_memory_that_is_damaged(private: Private) -> None:
    """Of a private session whose memory was written over nothing is kept aside: it shows what is whole, and goes on."""
    with private.daemon.client() as client:
        client.call("maintenance.auto_save")
        private.type(client)
    descriptors = memories(private)
    private.daemon.kill()
    for fd in descriptors:
        size = os.fstat(fd).st_size
        for offset in range(40, size, max(1, size // 7)):
            os.pwrite(fd, b"\xff" * 3, offset)
        os.close(fd)
    private.daemon.start()
    with private.daemon.client() as client:
        private.screen(client)
        private.type(client)
        client.call("maintenance.auto_save")
        assert private.screen(client)
    private.power_off()
    private.assert_not_on_disk()


@pytest.mark.slow
def test_output_that_cannot_be_drawn(daemon: DaemonProcess) -> None:
    """Where a picture is lost for good, what could not be drawn of a private session is gone, and in no file."""
    secret = secrets.token_hex(12)
    os.mkfifo(daemon.home / "printed")
    with daemon.client() as client, (daemon.home / "printed").open("r+b", buffering=0) as printed:
        config = {
            "session_type": "local",
            "record": "none",
            "command": f"{sys.executable} {POISONER} '{FATAL[0]}'",
            "cwd": str(daemon.home),
        }
        session_id = client.call("session.create", config=config)["id"]
        client.call("session.start", id=session_id)
        assert select.select([printed], [], [], 60)[0]
        client.call("session.send", id=session_id, data=encoded("poison\n"))
        client.call("session.send", id=session_id, data=encoded(f"{secret}\n"))
        wait = {"id": session_id, "for": "text", "pattern": secret, "timeout_secs": 5}
        while "error" in (answer := client.request("session.wait", **wait)):
            assert answer["error"]["data"]["kind"] == "timeout"
            client.call("session.send", id=session_id, data=encoded(f"{secret}\n"))  # one was read with the poison
        assert "output that was not drawn is gone" in daemon.log()
        assert client.call("session.get", id=session_id)["live"]
    daemon.kill()
    daemon.end_keeper()
    assert not list(daemon.home.rglob(f"{session_id}*"))
    for path in daemon.home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_a_private_session_whose_row_is_gone(private: Private) -> None:
    """A database that does not know it, as an older backup, has it recorded again as private."""
    daemon = private.daemon
    daemon.kill()
    with contextlib.closing(sqlite3.connect(daemon.database_path)) as connection:
        assert connection.execute("DELETE FROM sessions WHERE id = ?", (private.id,)).rowcount == 1
        connection.commit()
    daemon.start()
    private.goes_on()
    with daemon.client() as client:
        assert client.call("session.get", id=private.id)["config"]["record"] == "none"
        client.call("maintenance.auto_save")
    private.power_off()
    private.assert_not_on_disk()


def test_beside_an_older_keeper_a_private_session_is_refused(stopped_daemon: DaemonProcess) -> None:
    """One that runs on after an upgrade has no memory for it: it is refused, others run, and nothing is recorded."""
    stopped_daemon.start()
    stopped_daemon.stop()  # its folders are there
    search = [str(ROOT), str(ROOT / "protocol")]
    path = f"{stopped_daemon.database_path}.keeper"
    subprocess.run([sys.executable, "-I", "-S", "-c", OLDER, path, *search], check=True)
    secret = secrets.token_hex(12)
    config = {"session_type": "local", "record": "none", "command": f"echo {secret}"}
    with stopped_daemon.start().client() as client:
        session_id = client.call("session.create", config=config)["id"]
        for _ in range(2):
            refused = client.error("session.start", id=session_id)
            assert (refused["code"], refused["data"]["retryable"]) == (1007, False)
            assert "an earlier Orbit" in refused["data"]["reason"]
        assert not client.call("session.get", id=session_id)["live"]
        other = start(client, "cat")
        assert client.call("session.get", id=other)["live"]
    stopped_daemon.stop()
    for file in stopped_daemon.home.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file
        assert session_id not in file.name


def test_a_private_session_is_started_once(daemon: DaemonProcess) -> None:
    """What it runs is known until it was started, and not to the next daemon; a start that fails may be repeated."""
    config = {"session_type": "local", "record": "none", "command": "/no/such/program"}
    with daemon.client() as client:
        failing = client.call("session.create", config=config)["id"]
        for _ in range(2):
            assert client.error("session.start", id=failing)["code"] == 1005
        shell = client.call("session.create", config={"session_type": "local", "record": "none"})["id"]
        workspace = client.call("workspace.create", name="w", layout={"layout_type": "x", "config": {}})["id"]
        document = client.call("workspace.export", id=workspace)
        member = {"id": "one", "name": "imported", "config": {**config, "command": "cat"}}
        imported = client.call("workspace.import", document={**document, "sessions": [member]}, name="i")["id"]
        opened = client.call("workspace.open", id=imported)
        assert [each["live"] for each in opened["sessions"]] == [True]
        client.call("workspace.park", id=imported)
        opened = client.call("workspace.open", id=imported)
        assert ([each["live"] for each in opened["sessions"]], opened["failed"]) == ([False], [])
    daemon.restart()
    with daemon.client() as client:
        for session_id in (failing, shell, opened["sessions"][0]["id"]):
            refused = client.error("session.start", id=session_id)
            assert (refused["code"], refused["data"]["reason"]) == (1006, "private")


def test_orbitctl_on_a_private_session(daemon: DaemonProcess) -> None:
    """`new` and `run --private` on a terminal: named by the user or `private`, and marked; nothing is written."""
    ctl, secret = Orbitctl(daemon.home, daemon.environment), secrets.token_hex(12)
    for attempt in range(2):
        shown = ctl.on_terminal("run", "--private", "--", "sh", "-c", f"echo it is {secret}; exit 4")
        assert (shown.code, f"it is {secret}" in shown.text) == (4, True)
        removed = ctl.on_terminal("run", "--private", "--rm", "--", "sh", "-c", f"echo {secret}; exit 5")
        assert (removed.code, secret in removed.text) == (5, True)
        assert ctl("a", "private").code != 0, attempt
    session_id = ctl.id("new", "-q", "mine", "--private", "-d", "--env", f"S={secret}", "--", "sh", "-c", "exec cat")
    assert "nothing, it is private" in ctl.ok("session", "show", session_id).text
    assert "(private)" in ctl.ok("ls").text
    attached = ctl.on_terminal("a", "mine", prompt=b"", typed=f"{secret}\n".encode() + b"\x1c")
    assert attached.code == 0
    with daemon.client() as client:
        client.call("session.wait", id=session_id, pattern=secret, timeout_secs=30, **{"for": "text"})
        names = [each["name"] for each in client.call("session.list", status=["terminated", "detached"])["sessions"]]
    assert set(names) == {"mine", "private"}
    assert ctl("new", "--private", "--record", "full", "-d").code == 2
    for options in (["--restart"], ["--resume", "cat"], ["--reconnect", "--host", "h"]):
        refused = ctl("new", "--private", *options, "-d")
        assert (refused.code, "takes no --restart, --reconnect or --resume" in refused.err) == (2, True)
    searched = ctl("search", "x", "--session", "mine")
    assert (searched.code, "mine is private" in searched.err) == (4, True)
    found = ctl.ok("--json", "session", "create", "--record", "screen", "--name", "less").json
    assert found["config"]["record"] == "screen"
    daemon.kill()
    daemon.end_keeper()
    for path in daemon.home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
