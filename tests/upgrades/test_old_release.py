"""An earlier Orbit is replaced by today's and the other way round: programs, screens and rows are equal afterwards.

All of it is real: the earlier orbitd, its keeper, its programs, its database and its journals.
"""

from __future__ import annotations

import base64
import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from msgspec import Struct

from attach_support import DETACH, Window
from ctl_support import Orbitctl
from keeper_support import ProcessWatch, proc_file
from live.programs import SHOW, recorded
from live.sessions import (
    Terminal,
    create,
    keeper_of,
    kill,
    recorded_history,
    recorded_screen,
    start,
    wait_for_end,
)
from live_support import encoded
from needs import require
from orbitd.screens.emulator import Emulator
from orbitd.screens.model import Screen
from orbitd.store.database import load_migrations
from support import EVERY_STATUS, DaemonProcess, RawClient
from terminal_support import shown
from upgrades.old_release import OldRelease, replace_by_today
from upgrades.old_stores import dump, user_version

pytestmark = pytest.mark.slow

SIZE = (100, 30)
LAYOUT = '{"z": 1.0, "a":[1,null, 1e2,12345678901234567890],"b": {"\u00e9":"\\u00e9 \\ud83d\\ude80","":false}}'
LINES = "".join(f"\x1b[38;5;{line % 256};48;2;9;9;{line % 200}mline {line}\x1b[0m é漢😀\n" for line in range(4000))
"""More than a terminal holds unread: a program that writes it waits for the next daemon."""

Steps = tuple[tuple[str, str], ...]
"""What is typed once a text is on the screen."""

TYPED: dict[str, tuple[str, Steps]] = {
    "vim": (
        "vim -u NONE -i NONE -N -c 'set number ruler hlsearch' note.txt",
        (("note.txt", "itext é漢\r\tmore"), ("2,6", "")),
    ),
    "shell": (
        "bash --norc --noprofile",
        (("$", "seq 300; printf '\\e[1;31mred\\e[m \\e[4:3mcurly\\e[m\\n'; echo h''ere\r"), ("\nhere", "")),
    ),
    "less": ("less -R lines", (("line 28", "/line 1500\r"), ("line 1528 é漢😀\n:", ""))),
    "modes": (f"{SHOW} modes", (("shown", ""),)),
    "characters": (f"{SHOW} characters", (("shown", ""),)),
}
"""Programs that draw nothing more once their steps have been taken."""


class Seen(Struct, frozen=True, kw_only=True):
    """All that a daemon tells of a session.

    Args:
        row: As `session.list` has it.
        snapshots: With their bytes, newest first; none of an archived session.
        screen: As `session.screen` has it as text, with the history; None for a session that never had a program.
        drawn: Screen, and text with history, of a terminal that was sent that screen's portable bytes.
    """

    row: dict[str, Any]
    snapshots: list[dict[str, Any]]
    screen: dict[str, Any] | None
    drawn: tuple[Screen, str] | None


def drawn(screen: dict[str, Any]) -> tuple[Screen, str]:
    """Return screen, and text with history, of a terminal that was sent a session's screen."""
    with Emulator(screen["cols"], screen["rows"]) as emulator:
        emulator.feed(base64.b64decode(screen["data"]))
        return shown(emulator.dump()), emulator.screen("text", scrollback=True).decode()


def create_workspace(client: RawClient, name: str, layout: str) -> str:
    """Create a workspace whose layout is sent to the letter; return its id."""
    params = f'{{"name":"{name}","layout":{{"layout_type":"grid","config":{layout}}}}}'
    answer = client.ask(f'{{"jsonrpc":"2.0","id":0,"method":"workspace.create","params":{params}}}')
    return str(answer["result"]["id"])


def snapshots_of(client: RawClient, session_id: str) -> list[dict[str, Any]]:
    """Return a session's snapshots with their bytes, newest first."""
    infos = client.call("snapshot.list", session_id=session_id)["snapshots"]
    snapshots = [client.call("snapshot.get", id=info["id"]) for info in infos]
    for one in snapshots:
        del one["stored_bytes"]  # once there is a newer one, only the difference is stored
    return snapshots


def look(client: RawClient) -> dict[str, Seen]:
    """Return all that a daemon tells of its sessions, by name."""
    found = {}
    for row in client.call("session.list", status=EVERY_STATUS)["sessions"]:
        snapshots, screen, picture = [], None, None
        if row["status"] != "archived":
            snapshots = snapshots_of(client, row["id"])
        if row["status"] != "archived" and row["cols"] is not None:
            screen = client.call("session.screen", id=row["id"], scrollback=True)
            picture = drawn(client.call("session.screen", id=row["id"], scrollback=True, format="vt"))
        found[row["name"]] = Seen(row=row, snapshots=snapshots, screen=screen, drawn=picture)
    return found


COME_BACK = ("login shell", "shell", "wanted again")
"""What starts again by itself after a reboot."""


def of_old(found: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the old release has, too; of a session's configuration likewise."""
    same = {name: found[name] for name in old}
    if "config" in old:
        same["config"] = {name: found["config"][name] for name in old["config"]}
    return same


class Population:
    """What an old daemon is given.

    Args:
        daemon: It runs; whichever release runs in its place later is asked the same.

    Attributes:
        seen: What the old daemon tells of its sessions, by name.
        ids: Of those sessions.
        pids: Of those whose programs run.
        keeper: The keeper's pid.
    """

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.clients: list[RawClient] = []
        with daemon.client() as client:
            self._record(client)
            ids = {name: self.run(client, name, *program) for name, program in TYPED.items()}
            client.call("maintenance.auto_save")
            self.detach()
            # A detach saves. What comes now is in the journals alone: behind a snapshot, and without one.
            self._type(ids["vim"], (("more", "\rnot saved"), ("3,10", "")))
            self._type(ids["shell"], (("here", "echo an''other\rhalf a li"), ("another\n$ half a li", "")))
            self.run(client, "login shell", None, (("", "echo lo''gin; exec cat\r"), ("login", "")))
            self.run(client, "wanted again", "cat", (("", "again\r"), ("again\nagain", "")), restart=True)
            for name, end in {"exits": "exit 3", "is killed": "kill -USR1 $$"}.items():
                client.call("session.wait", id=self.run(client, name, f"bash -c 'echo last words; {end}'"))
            self.seen = look(client)
            self.workspaces = client.call("workspace.list")["workspaces"]
        self.ids = {name: seen.row["id"] for name, seen in self.seen.items()}
        self.pids = {name: seen.row["pid"] for name, seen in self.seen.items() if seen.row["live"]}
        self.keeper = keeper_of(self.pids["vim"])

    def _record(self, client: RawClient) -> None:
        """Record sessions without programs in every status, with snapshots, and workspaces."""
        for name in ("Büro 日本 🚀", "another"):
            workspace = create_workspace(client, name, LAYOUT)
        for name in ("archived", "café 日本 🚀", "detached", "ended"):
            config = {"session_type": "local", "cwd": "/", "env": {"Ä": "ü\n"}, "workspace_id": workspace}
            session_id = client.call("session.create", name=name, config=config)["id"]
            for number in range(5):
                screen = b"".join(b"\x1b[3%dm%s %d\xff\r\n" % (line % 8, name.encode(), line) for line in range(20))
                more = {"scrollback": encoded(b"above\n" * number), "cols": 132, "rows": 43} if number else {}
                buffer = encoded(screen + b"%d" % number)
                client.call("snapshot.save", session_id=session_id, terminal_buffer=buffer, **more)
            if name in ("archived", "ended"):
                client.call("session.terminate", id=session_id)
            if name == "archived":
                self.archived = snapshots_of(client, session_id)
                assert client.call("maintenance.archive", terminated_before=datetime.now(UTC).isoformat())["archived"]
            elif name == "detached":
                client.call("session.detach", id=session_id)
                client.call("workspace.set_active_session", id=workspace, session_id=session_id)
        remote = {"session_type": "ssh", "host": "example.org", "port": 2222, "username": "ü", "reconnect": True}
        client.call("session.create", name="remote", config=remote)

    def run(self, client: RawClient, name: str, command: str | None, steps: Steps = (), **config: Any) -> str:
        """Start a program and type into it; return the session's id."""
        env = {"PS1": "$ ", "LESSHISTFILE": "-"}
        session_id = create(client, command, cwd=str(self.daemon.home), env=env, **config)
        client.call("session.rename", id=session_id, name=name)
        client.call("session.start", id=session_id, cols=SIZE[0], rows=SIZE[1])
        if steps:
            self._type(session_id, steps)
        return session_id

    def _type(self, session_id: str, steps: Steps) -> None:
        """Attach, type, and stay until all is there."""
        self.clients.append(self.daemon.client())
        terminal = Terminal(self.clients[-1], session_id, SIZE)
        for wanted, keys in steps:
            terminal.follow_until(wanted)
            terminal.type(keys)

    def detach(self) -> None:
        """End every attachment."""
        while self.clients:
            self.clients.pop().close()

    def check(self, client: RawClient, *, rebooted: bool = False) -> None:
        """Check that a daemon has all of it, and tells of it what the old one did.

        Args:
            client: A connection to the daemon that runs now.
            rebooted: Whether the programs are gone, and those that start again by themselves have.
        """
        found = look(client)
        for name, old in self.seen.items():
            new, row = found[name], dict(old.row)
            if row["live"]:
                # Its clients are gone, and the old daemon may have told of one that just left; a stop and a restore
                # save the screen.
                row |= {field: new.row[field] for field in ("last_active", "last_saved_at")}
                row |= {"status": "detached", "clients": 0}
            if row["live"] and rebooted:
                if name in COME_BACK:
                    assert new.row["live"], name
                    assert new.row["pid"] != row["pid"]
                    continue
                row |= {"live": False, "pid": None}
            assert of_old(new.row, row) == row
            assert (new.screen and old.screen and of_old(new.screen, old.screen)) == old.screen, name
            assert new.drawn == old.drawn, name
            # Newer ones are before them.
            for snapshot, wanted in zip(reversed(new.snapshots), reversed(old.snapshots), strict=False):
                assert of_old(snapshot, wanted) == wanted, name
            assert len(new.snapshots) >= len(old.snapshots), name
        workspaces = client.call("workspace.list")["workspaces"]
        assert [of_old(new, old) for new, old in zip(workspaces, self.workspaces, strict=True)] == self.workspaces
        client.send(b'{"jsonrpc":"2.0","id":1,"method":"workspace.list"}')
        assert client.read_line().count(LAYOUT.encode()) == len(self.workspaces)
        assert client.call("maintenance.check")["ok"]
        assert client.call("daemon.info")["warnings"] == []


@pytest.fixture
def populated(old_release: OldRelease, stopped_daemon: DaemonProcess) -> Iterator[Population]:
    """An old daemon that runs, and has all that users have there; the last programs have clients."""
    require("vim", "less")
    (stopped_daemon.home / "lines").write_text(LINES)
    populated = Population(old_release.replace(stopped_daemon).start())
    yield populated
    populated.detach()


def test_the_old_release_is_run(old_release: OldRelease, stopped_daemon: DaemonProcess) -> None:
    """Its orbitd and its keeper are processes of its own environment, and load their code from there."""
    with old_release.replace(stopped_daemon).start().client() as client:
        started = client.call("session.start", id=create(client, "cat"))
        for pid in (stopped_daemon.pid, keeper_of(started["pid"])):
            assert proc_file(pid, "cmdline").startswith(str(old_release.folder))
        assert str(old_release.folder / "lib") in proc_file(keeper_of(started["pid"]), "cmdline")
        # Today's code could not have made it.
        assert user_version(stopped_daemon.database_path) < len(load_migrations())


def test_an_old_keeper_without_its_socket(old_release: OldRelease, stopped_daemon: DaemonProcess) -> None:
    """It is named with its pid, its sessions are not called gone, and no second keeper is started beside it."""
    with old_release.replace(stopped_daemon).start().client() as client:
        session = client.call("session.start", id=create(client, "cat"))
    keeper = keeper_of(session["pid"])
    stopped_daemon.kill()
    Path(f"{stopped_daemon.database_path}.keeper").unlink()
    with replace_by_today(stopped_daemon).start().client() as client:
        [warning] = client.call("daemon.info")["warnings"]
        assert f"`kill {keeper}` ends it" in warning
        assert client.call("session.get", id=session["id"])["status"] == "detached"
        assert client.error("session.start", id=session["id"])["data"]["kind"] == "live_unavailable"
        assert client.error("session.start", id=create(client, "cat"))["data"]["kind"] == "live_unavailable"
        kill(keeper)
        wait_for_end(session["pid"])
        assert client.call("session.start", id=session["id"])["live"]
        assert client.call("daemon.info")["warnings"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_programs_screens_and_rows_go_on(populated: Population, number: int) -> None:
    """Today's orbitd finds all as it was, also what programs wrote, and how they ended, while no daemon ran.

    The old one is stopped in the middle of a flood of output. Then every program can be typed into, resized, signalled
    and waited for, the old keeper starts new ones, and it ends when the last has ended.
    """
    daemon, home = populated.daemon, populated.daemon.home
    for gate in ("write", "leave"):
        os.mkfifo(home / gate)
    with daemon.client() as client:
        writes = recorded("bash -c 'read x < write; cat lines; echo shown; exec cat'", home / "writes.log")
        leaves = populated.run(client, "leaves", "bash -c 'read x < leave; echo last words; exit 5'")
        hit = populated.run(client, "is hit", "cat")
        late = {
            "writes": populated.run(client, "writes", writes),
            "floods": populated.run(client, "floods", recorded(f"{SHOW} storm 7", home / "floods.log")),
        }
        pids = {one: client.call("session.get", id=one)["pid"] for one in (leaves, hit, *late.values())}
        with daemon.client() as at:  # an old daemon that stops waits for a client that does not read
            watching = Terminal(at, late["floods"], SIZE)
            for _ in range(5):
                watching.step()
        assert daemon.stop(number) == (0 if number == signal.SIGTERM else -number)
    for gate in ("write", "leave"):
        (home / gate).write_text("\n")
    wait_for_end(pids[leaves])
    kill(pids[hit], signal.SIGTERM)
    with replace_by_today(daemon).start().client() as client:
        populated.check(client)
        for name, session_id in late.items():
            assert client.call("session.get", id=session_id)["pid"] == pids[session_id]
            with daemon.client() as at:
                terminal = Terminal(at, session_id, SIZE)
                terminal.follow_until("shown")
                assert shown(terminal.emulator.dump()) == recorded_screen(home / f"{name}.log", SIZE)
            history = client.call("session.screen", id=session_id, scrollback=True)["data"]
            assert history == recorded_history(home / f"{name}.log", SIZE)
        for session_id, ended in ((leaves, (5, None)), (hit, (None, signal.SIGTERM))):
            session = client.call("session.get", id=session_id)
            assert (session["status"], session["exit_code"], session["exit_signal"]) == ("terminated", *ended)
        assert client.call("session.screen", id=leaves)["data"].startswith("last words")
        check_programs(populated, client)
        check_keeper(populated, client)


def check_programs(populated: Population, client: RawClient) -> None:
    """Use the programs of an old daemon as if it had always been this one."""
    daemon, ids = populated.daemon, populated.ids
    client.call("session.send", id=ids["vim"], data=encoded("!\x1b:wq\r"))
    assert client.call("session.wait", id=ids["vim"]) == {"exit_code": 0, "exit_signal": None}
    assert (daemon.home / "note.txt").read_text() == "text é漢\n\tmore\nnot saved!\n"
    with daemon.client() as at:
        terminal = Terminal(at, ids["shell"], (120, 40))
        terminal.type("\x15stty size\r")
        terminal.follow_until("40 120")
    client.call("session.terminate", id=ids["modes"])
    assert client.call("session.get", id=ids["modes"])["exit_signal"] == signal.SIGHUP
    client.call("session.signal", id=ids["wanted again"], signal="USR2")
    assert client.call("session.wait", id=ids["wanted again"])["exit_signal"] == signal.SIGUSR2
    client.call("session.restore_archived", id=ids["archived"])
    snapshots = snapshots_of(client, ids["archived"])
    assert [of_old(one, populated.archived[0]) for one in snapshots] == populated.archived


def check_keeper(populated: Population, client: RawClient) -> None:
    """Start a program by the old daemon's keeper, and see it end after its last program."""
    with populated.daemon.client() as at:
        terminal = Terminal(at, start(client, "bash -c 'read x; echo got $x; exit 6'"))
        assert keeper_of(terminal.session["pid"]) == populated.keeper
        terminal.type("this\r")
        assert terminal.read_to_the_end()["exit_code"] == 6
        assert "got this" in terminal.text()
    for session in client.call("session.list")["sessions"]:
        if session["live"]:
            client.call("session.signal", id=session["id"], signal="KILL")
            client.call("session.wait", id=session["id"])
    keeper = ProcessWatch(populated.keeper)
    assert populated.daemon.stop() == 0
    keeper.wait()


def test_orbitctl_replaces_it(populated: Population) -> None:
    """`orbitctl daemon restart` of today's release, which is what a user is told to do, ends in the same."""
    ctl = Orbitctl(populated.daemon.home)
    try:
        ctl.ok("daemon", "restart")
        assert user_version(populated.daemon.database_path) == len(load_migrations())
        with populated.daemon.client() as client:
            populated.check(client)
    finally:
        ctl("daemon", "stop")


def test_screens_come_back_after_a_reboot(populated: Population) -> None:
    """Where the old keeper and every program are gone, the screens are there, and shells go on under theirs."""
    populated.daemon.kill()
    populated.daemon.end_keeper()
    with replace_by_today(populated.daemon).start().client() as client:
        populated.check(client, rebooted=True)
        for name in COME_BACK:
            before = populated.seen[name].screen
            assert before is not None
            after = client.call("session.screen", id=populated.ids[name], scrollback=True)["data"]
            assert after.startswith(before["data"].rstrip())


def test_the_way_back(populated: Population, old_release: OldRelease) -> None:
    """The old release leaves the migrated database alone, and goes on with the backup of before the migration."""
    daemon, path = populated.daemon, populated.daemon.database_path
    daemon.stop()
    replace_by_today(daemon).start().stop()
    (backup,) = path.parent.glob("sessions.db.backup-v*")
    before = dump(path)
    old_schema, schema = user_version(backup), user_version(path)
    said = old_release.replace(daemon).refused()
    assert f"newer Orbit (schema {schema}, this one knows {old_schema})" in said
    assert dump(path) == before
    shutil.copy(backup, path)
    with daemon.start().client() as client:
        populated.check(client)
        assert {name: client.call("session.get", id=populated.ids[name])["pid"] for name in populated.pids} == (
            populated.pids
        )


DEGRADE = """
import os, sys
from orbitd.terminal.journal import Journal
journal = Journal(sys.argv[1])
event = next(journal.events(0))
journal.degraded = OSError(28, "as on a full disk")
journal.mark()
journal.append(event)
os._exit(0)
"""
"""Leaves a journal as an old daemon does that is killed while it saves after a full disk: a second file beside it."""


def test_old_journals_are_read_as_before(old_release: OldRelease, stopped_daemon: DaemonProcess, home: Path) -> None:
    """Of whatever a kill or a power cut has left of its journals, today's orbitd shows what the old one would."""
    dice = random.Random(5)
    (home / "lines").write_text(LINES)
    with old_release.replace(stopped_daemon).start().client() as client, contextlib.ExitStack() as attached:
        ids, terminals = [], []
        for number in range(8):
            script = f"head -n {100 + number} lines; read x; tail -n {100 + number} lines; echo the end; exec cat"
            ids.append(start(client, f"sh -c '{script}'", cwd=str(home)))
            at = attached.enter_context(stopped_daemon.client())  # to the end, since a detach saves
            terminals.append(Terminal(at, ids[-1], dice.choice(((80, 24), SIZE))))
            terminals[-1].follow_until(f"line {99 + number}")
            if number == 3:
                client.call("maintenance.auto_save")
        for terminal in terminals:
            terminal.type("\r")
            terminal.follow_until("the end")
        stopped_daemon.kill()
    stopped_daemon.end_keeper()
    journals = [home / ".local" / "state" / "orbit" / "journal" / session_id for session_id in ids]
    for path in journals[:3]:
        subprocess.run([*old_release.python, "-c", DEGRADE, str(path)], check=True)
    for path in journals[2:7]:
        os.truncate(path, dice.randrange(path.stat().st_size))
    with tempfile.TemporaryDirectory(prefix="orbit-", dir="/tmp") as folder:
        shutil.copytree(home / ".local", Path(folder) / ".local", ignore=lambda *_: ["sessions.db.keeper"])
        other = old_release.replace(DaemonProcess(Path(folder)))
        try:
            with other.start().client() as client:
                wanted = [screen_of(client, session_id) for session_id in ids]
        finally:
            other.end()
    with replace_by_today(stopped_daemon).start().client() as client:
        assert [screen_of(client, session_id) for session_id in ids] == wanted
    assert len({text for text, _ in wanted}) == len(ids)


def screen_of(client: RawClient, session_id: str) -> tuple[str, tuple[Screen, str]]:
    """Return a session's screen with its history: as text, and as a terminal shows it."""
    screen = client.call("session.screen", id=session_id, scrollback=True, format="vt")
    return client.call("session.screen", id=session_id, scrollback=True)["data"], drawn(screen)


NAMES = ("e\u0301", "\u00e9", "\u212b", "e\u0301" * 128, "😀" * 256, "\u202ertl", "  ", "x\u200b")
CONFIGS: tuple[dict[str, Any], ...] = (
    *(
        {"session_type": "ssh", "host": host, "username": username}
        for host, username in (("a;b", "$(x)"), ("[::1]", "{u}"), ("a@b", "b\\"), ("a/b", "`"), ("h" * 255, "u" * 256))
    ),
    *({"session_type": "local", "command": command} for command in ("", " ", "unclosed '", "a\nb\x1b[m", "x" * 65_536)),
    *({"session_type": "local", "cwd": cwd} for cwd in ("/no/such" * 500, "/a\n\x07")),
    {"session_type": "local", "env": {"A": "\x1b\n", "é b": "", "x" * 3_000: "y"}},
)
LAYOUTS = (
    *('{"a":1,"a":2}', '"\\u0000"', "-0", "1E+2", "12345678901234567890123.50", '""', "null", '"\u2028\u202e"'),
    "[" * 499 + "]" * 499,
)


def listed(client: RawClient) -> list[dict[str, Any]]:
    """Return all sessions and all workspaces, as lists have them."""
    return [*client.call("session.list")["sessions"], *client.call("workspace.list")["workspaces"]]


def test_what_only_an_old_release_took_is_kept(old_release: OldRelease, stopped_daemon: DaemonProcess) -> None:
    """Names, configs and layouts that no new record may have any more stay as they are, names up to NFC."""
    with old_release.replace(stopped_daemon).start().client() as client:
        for name in NAMES:
            client.call("session.create", name=name, config={"session_type": "local"})
            create_workspace(client, name, "{}")
        for config in CONFIGS:
            client.call("session.create", config=config)
        for number, layout in enumerate(LAYOUTS):
            create_workspace(client, f"layout {number}", layout)
        before = listed(client)
    assert len(before) == 2 * len(NAMES) + len(CONFIGS) + len(LAYOUTS)
    stopped_daemon.kill()
    with replace_by_today(stopped_daemon).start().client() as client:
        after = listed(client)
        for new, old in zip(after, before, strict=True):
            assert normalize("NFC", new["name"] or "") == normalize("NFC", old["name"] or "")
            assert of_old(new, old) == old | {"name": new["name"]}
        client.send(b'{"jsonrpc":"2.0","id":1,"method":"workspace.list"}')
        workspaces = client.read_line().decode()
        assert [layout for layout in LAYOUTS if f'"config":{layout}}}' not in workspaces] == []
        assert client.call("maintenance.check")["ok"]
        for one in after:
            client.call("session.delete" if "config" in one else "workspace.delete", id=one["id"])


def test_a_layout_that_is_nested_too_deep_today_harms_no_other(
    old_release: OldRelease, stopped_daemon: DaemonProcess
) -> None:
    """What an old release took is listed to the letter, or named as what cannot be; the database keeps it."""
    layout = "[" * 900 + "]" * 900
    with old_release.replace(stopped_daemon).start().client() as client:
        create_workspace(client, "before", "{}")
        deep = create_workspace(client, "deep", layout)
        create_workspace(client, "after", "{}")
        before = listed(client)
    stopped_daemon.kill()
    with replace_by_today(stopped_daemon).start().client() as client:
        after = listed(client)
        if len(after) == len(before):
            assert [of_old(new, old) for new, old in zip(after, before, strict=True)] == before
        else:
            assert [one["name"] for one in after] == ["before", "after"]
            assert deep in str(client.call("daemon.info")["warnings"]) + str(client.call("maintenance.check"))
    assert layout in "".join(dump(stopped_daemon.database_path))


def test_two_releases_never_serve_one_database(old_release: OldRelease, stopped_daemon: DaemonProcess) -> None:
    """While one of them runs the other is refused, and changes nothing: no migration under an old daemon."""
    old_release.replace(stopped_daemon).start()
    before = dump(stopped_daemon.database_path)
    other = DaemonProcess(stopped_daemon.home)
    assert f"{stopped_daemon.pid}" in other.refused()
    assert dump(stopped_daemon.database_path) == before
    replace_by_today(stopped_daemon).restart()
    stopped_daemon.log_path.unlink()
    assert f"{stopped_daemon.pid}" in old_release.replace(other).refused()


@pytest.fixture(params=["old orbitctl", "old orbitd"])
def ctl(request: pytest.FixtureRequest, old_release: OldRelease, stopped_daemon: DaemonProcess) -> Iterator[Orbitctl]:
    """An orbitctl beside a daemon of another release, whose session `web` runs a shell."""
    ctl = Orbitctl(stopped_daemon.home)
    if request.param == "old orbitctl":
        ctl = old_release.orbitctl(stopped_daemon.home)
    else:
        old_release.replace(stopped_daemon)
    with stopped_daemon.start().client() as client:
        session_id = start(client, "bash --norc --noprofile", env={"PS1": "$ "})
        client.call("session.rename", id=session_id, name="web")
    return ctl


def test_orbitctl_and_orbitd_of_two_releases(ctl: Orbitctl) -> None:
    """Records are shown and changed, and a live session is attached to, typed into, read and waited for."""
    with Window(ctl, "session", "attach", "web") as window:
        window.type("echo t''yped\r")
        window.until("typed\r\n")
        window.type(DETACH)
        assert window.end() == 0
    ctl.ok("session", "send", "web", "echo s''ent", "--enter")
    ctl.ok("session", "create", "--name", "record")
    ctl.ok("snapshot", "save", "record", stdin=b"screen")
    ctl.ok("workspace", "create", "room")
    ctl.ok("session", "move", "record", "room")
    (listed,) = (one for one in ctl.ok("session", "list", "--json").json["sessions"] if one["name"] == "record")
    assert ctl.ok("session", "show", "record", "--json").json == listed
    for words in ("status", "stats", "session list", "snapshot list record", "workspace list", "maintenance check"):
        assert ctl.ok(*words.split()).text
    assert ctl.ok("doctor", "--json").code == 0
    ctl.ok("session", "run", "--detach", "--name", "new", "--", "bash", "-c", "exit 4")
    assert ctl.ok("session", "wait", "new").text == "exit 4\n"
    with Window(ctl, "session", "attach", "web") as window:
        window.screen_until("\nsent")
        window.type("exit 3\r")
        window.end()
    assert "typed" in ctl.ok("session", "screen", "web").text
    assert ctl.ok("session", "show", "web", "--json").json["exit_code"] == 3
