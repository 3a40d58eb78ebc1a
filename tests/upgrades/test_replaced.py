"""An installation that is replaced under a running daemon: what goes on, what is refused, and what is said."""

from __future__ import annotations

import os
import shutil
import site
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import orbit_os
import orbit_protocol
import orbitctl
import orbitd
from ctl_support import Orbitctl
from orbit_protocol import VERSION
from support import DaemonProcess, RawClient

CAT = {"session_type": "local", "command": "cat"}


class Installed:
    """A virtual environment with copies of our packages; the dependencies are those of the tests.

    Args:
        folder: Where it is made.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        (self.site,) = folder.glob("lib/python3*/site-packages")
        self.install()

    def install(self, version: str = VERSION) -> None:
        """Install a release under this name."""
        for package in (orbit_os, orbit_protocol, orbitctl, orbitd):
            source = Path(str(package.__file__)).parent
            shutil.copytree(source, self.site / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        (self.site / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        marked = self.site / "orbit_protocol" / "__init__.py"
        marked.write_text(marked.read_text().replace(f'VERSION = "{VERSION}"', f'VERSION = "{version}"'))


@pytest.fixture
def installed(home: Path) -> Installed:
    return Installed(home / "venv")


@pytest.fixture
def daemon(stopped_daemon: DaemonProcess, installed: Installed) -> Iterator[DaemonProcess]:
    """A daemon of that installation."""
    stopped_daemon.command = [str(installed.python), "-m", "orbitd"]
    yield stopped_daemon.start()
    stopped_daemon.end()


def warnings(daemon: DaemonProcess) -> list[str]:
    with daemon.client() as client:
        return list(client.call("daemon.info")["warnings"])


def load_template(client: RawClient, session: str) -> None:
    """Have a screen drawn: the template of screens processes, which is started in the background, is loaded then."""
    client.call("snapshot.save", session_id=session, terminal_buffer="aGFsbG8=")
    client.call("session.screen", id=session)


@pytest.mark.parametrize("lost", ["packages", "interpreter"])
def test_an_installation_that_is_gone(daemon: DaemonProcess, installed: Installed, lost: str) -> None:
    """The first live session is refused with what has happened and what to do; brought back, it starts."""
    gone = installed.site if lost == "packages" else installed.python.parent
    with daemon.client() as client:
        session = client.call("session.create", config=CAT)["id"]
        load_template(client, session)
        gone.rename(gone.with_name("aside"))
        error = client.error("session.start", id=session)
        assert error["data"]["kind"] == "spawn_failed"
        assert "has been moved or removed" in error["message"]
        assert "orbitctl daemon restart" in error["data"]["hint"]
        (warning,) = warnings(daemon)
        assert "has been moved or removed" in warning
        assert "orbitctl daemon restart" in warning
        gone.with_name("aside").rename(gone)
        assert warnings(daemon) == []
        client.call("session.start", id=session)
    assert "Traceback" not in daemon.log()


def test_what_runs_goes_on_without_its_installation(daemon: DaemonProcess, installed: Installed, home: Path) -> None:
    """With the keeper running, sessions start, print and are drawn; the store saves, checks and backs up as before."""
    with daemon.client() as client:
        first = client.call("session.create", config=CAT)["id"]
        client.call("session.start", id=first)
        load_template(client, first)
        shutil.rmtree(installed.site)
        second = client.call("session.create", config={**CAT, "command": "printf drawn"}, name="Zoë")["id"]
        client.call("session.start", id=second)
        client.call("session.wait", id=second)
        assert "drawn" in client.call("session.screen", id=second)["data"]
        client.call("snapshot.save", session_id=second, terminal_buffer="aGFsbG8=")
        client.call("maintenance.backup", path=str(home / "copy.db"))
        assert client.call("maintenance.check")["ok"]
        client.call("session.terminate", id=first)
    daemon.stop()
    assert "Traceback" not in daemon.log()


def test_an_upgrade_is_told(daemon: DaemonProcess, installed: Installed) -> None:
    """`status` and `doctor` say which version runs and which is installed; after a restart they say nothing."""
    with daemon.client() as client:
        load_template(client, client.call("session.create", config=CAT)["id"])
    shutil.rmtree(installed.site)
    installed.site.mkdir()
    installed.install("99.0")
    expected = f"version 99.0 is installed, {VERSION} runs"
    ctl = Orbitctl(daemon.home)
    assert expected in ctl("status").err
    assert expected in ctl("doctor").text
    with daemon.client() as client:
        session = client.call("session.create", config=CAT)["id"]
        client.call("session.start", id=session)  # the keeper of the new release serves the old daemon
    daemon.restart()
    assert warnings(daemon) == []
    assert "the daemon is version 99.0" in ctl("status").err


def test_nothing_is_imported_once_it_serves(stopped_daemon: DaemonProcess, home: Path) -> None:
    """What a daemon ever needs is loaded before it serves: hours later the files may be another release's, or gone."""
    daemon = stopped_daemon
    daemon.command = [sys.executable, "-X", "importtime", "-m", "orbitd"]
    backups = daemon.database_path.parent / "backups"
    backups.mkdir(parents=True, mode=0o700)
    os.chmod(daemon.database_path.parent, 0o700)
    (backups / "auto-20260101T000000Z.db").touch(mode=0o600)
    daemon.start()
    with daemon.client() as client:
        session = client.call("session.create", config=CAT, name="Zoe\u0308")["id"]
        client.call("session.start", id=session)
        client.call("session.screen", id=session, format="html")
        client.call("snapshot.save", session_id=session, terminal_buffer="aGFsbG8=")
        client.call("maintenance.backup", path=str(home / "copy.db"))
        client.call("maintenance.check")
        client.call("maintenance.cleanup_snapshots", keep_last_n=1)
        client.call("maintenance.vacuum")
        client.call("rpc.discover")
        client.error("session.get", id="none")
        client.error("session.create", config={"session_type": 7})
        client.error("none.such")
        client.call("session.terminate", id=session)
        client.call("session.delete", id=session)
    daemon.end_keeper()
    daemon.stop()
    log = daemon.log()
    assert "import time:" in log
    assert [line for line in log.partition(" serving ")[2].splitlines() if "import time:" in line] == []
