"""`orbitctl service` and the autostart against a real `systemd --user`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from documents_support import Reader, blocks
from needs import needs, require

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
UNITS = ("orbitd.socket", "orbitd.service")


def tree(*folders: Path) -> dict[str, bytes | str | None]:
    """Return every path below the folders: links with their goal, files with their content."""
    found: dict[str, bytes | str | None] = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            else:
                found[str(path)] = path.read_bytes() if path.is_file() else None
    return found


def test_install_writes_enables_and_starts(manager):
    """After install both units are enabled and active, and the daemon serves at the usual place."""
    manager.orbitctl("service", "install")
    assert [manager.show(unit, "UnitFileState") for unit in UNITS] == ["enabled", "enabled"]
    assert [manager.show(unit, "ActiveState") for unit in UNITS] == ["active", "active"]
    assert manager.orbitctl("rpc", "call", "daemon.ping").stdout == '{"pong":true}\n'


def test_the_pages_hold_under_systemd(manager):
    """The commands and the unit of docs/service.md and docs/replication.md do with the real systemd what they say."""
    require("litestream")
    replaced = {"/mnt/backup/orbit": f"{manager.home}/replica"}
    with contextlib.closing(Reader(manager.home, replaced, runtime=manager.runtime, real="systemctl")) as reader:
        for block in blocks("docs/service.md"):
            reader.follow(block)
        assert tree(manager.units) == {}
        reader.sh("orbitctl session create --name web")
        for block in blocks("docs/replication.md"):
            if block.heading == "Set it up":
                reader.follow(block)
        unit = "orbit-litestream.service"
        assert (manager.show(unit, "ActiveState"), manager.show(unit, "UnitFileState")) == ("active", "enabled")
        assert manager.show(unit, "UMask") == "0077"
        reader.sh("systemctl --user stop orbit-litestream.service")
        assert (manager.show(unit, "ActiveState"), manager.show(unit, "Result")) == ("inactive", "success")


def test_install_again_changes_nothing(installed):
    """A second install writes no file and leaves the running daemon alone."""
    pid, before = installed.show("orbitd.service", "MainPID"), tree(installed.home / ".config")
    times = [(installed.units / unit).stat().st_mtime_ns for unit in UNITS]
    said = installed.orbitctl("service", "install").stderr
    assert "up to date" in said
    assert "wrote" not in said
    assert installed.show("orbitd.service", "MainPID") == pid
    assert tree(installed.home / ".config") == before
    assert [(installed.units / unit).stat().st_mtime_ns for unit in UNITS] == times


def test_install_brings_old_units_up_to_date(installed):
    """Units of ours that say something else are written anew, and the service runs by the new ones."""
    pid = installed.show("orbitd.service", "MainPID")
    path = installed.units / "orbitd.service"
    current = path.read_text()
    path.write_text(current.replace("WatchdogSec=30", "WatchdogSec=44"))
    (installed.units / "orbitd.socket").write_text((installed.units / "orbitd.socket").read_text() + "# older\n")
    said = installed.orbitctl("service", "install").stderr
    assert [f"wrote {installed.units / unit}" in said for unit in UNITS] == [True, True]
    assert path.read_text() == current
    assert installed.show("orbitd.service", "WatchdogUSec") == "30s"
    assert installed.show("orbitd.service", "MainPID") != pid
    assert installed.call("daemon.info")["supervisor"] == "systemd"


def test_install_without_start_waits_for_the_next_login(manager):
    """With --no-start the units are enabled, and nothing runs."""
    manager.orbitctl("service", "install", "--no-start")
    assert [manager.show(unit, "UnitFileState") for unit in UNITS] == ["enabled", "enabled"]
    assert [manager.show(unit, "ActiveState") for unit in UNITS] == ["inactive", "inactive"]
    assert not manager.socket.exists()


def test_uninstall_leaves_nothing(manager):
    """After install and uninstall, configuration and runtime folder are as before, and systemd knows no unit."""
    folders = (manager.home / ".config", manager.runtime)
    folders[0].mkdir()
    before = tree(*folders)
    manager.orbitctl("service", "install")
    pid = manager.call("daemon.info")["pid"]
    process = os.pidfd_open(pid)
    manager.orbitctl("service", "uninstall")
    assert select.select([process], [], [], 0)[0], "the daemon still runs"
    os.close(process)
    assert tree(*folders) == before
    assert [manager.show(unit, "LoadState") for unit in UNITS] == ["not-found", "not-found"]


def test_uninstall_keeps_the_store_and_a_users_drop_in(installed):
    """What the user made stays: the database, and settings made with `systemctl edit`."""
    session = installed.call("session.create", config={"session_type": "local"})
    installed.drop_in("orbitd.service", "[Service]\nNice=1\n")
    installed.orbitctl("service", "uninstall")
    assert (installed.units / "orbitd.service.d" / "test.conf").read_text() == "[Service]\nNice=1\n"
    installed.orbitctl("service", "install")
    assert installed.call("session.get", id=session["id"]) == session


def test_uninstall_without_install_is_no_error(manager):
    """Where nothing is installed, uninstall says so and exits with 0."""
    assert "no service is installed" in manager.orbitctl("service", "uninstall").stderr


@pytest.mark.parametrize(
    ("unit", "kind"), [("orbitd.socket", "file"), ("orbitd.service", "link"), ("orbitd.service", "mask")]
)
def test_units_that_are_not_ours_are_not_touched(manager, unit, kind):
    """A unit by somebody else, a link or a masked unit is refused by name, by install and uninstall alike."""
    manager.units.mkdir(parents=True)
    path = manager.units / unit
    if kind == "file":
        path.write_text("[Unit]\nDescription=mine\n")
    else:
        (manager.home / "mine").write_text("# Written by `orbitctl service install`\n")
        path.symlink_to(manager.home / "mine" if kind == "link" else "/dev/null")
    before = tree(manager.home)
    for command in ("install", "uninstall"):
        refused = manager.orbitctl("service", command, check=False)
        assert refused.returncode == 1
        assert f"not written by orbitctl, so left alone: {path}" in refused.stderr
    assert tree(manager.home) == before


def test_install_takes_over_from_a_daemon_that_runs_by_itself(manager):
    """An orbitd that orbitctl started is stopped in good order; the service serves the same store."""
    created = manager.run(sys.executable, "-m", "orbitctl", "session", "create", "--name", "kept", "--json")
    alone = manager.call("daemon.info")
    assert alone["supervisor"] == "none"
    said = manager.orbitctl("service", "install").stderr
    assert f"stopped the orbitd that ran by itself (pid {alone['pid']})" in said
    info = manager.call("daemon.info")
    assert (info["supervisor"], info["database_path"]) == ("systemd", alone["database_path"])
    assert manager.call("session.find", ref="kept") == json.loads(created.stdout)


def test_a_call_starts_the_installed_service(installed):
    """Where the service is installed and its socket is down, orbitctl's autostart goes through systemd."""
    installed.systemctl("stop", "orbitd.socket", "orbitd.service")
    assert not installed.socket.exists()
    done = installed.run(sys.executable, "-m", "orbitctl", "rpc", "call", "daemon.info")
    assert json.loads(done.stdout)["supervisor"] == "systemd"
    assert installed.show("orbitd.service", "ActiveState") == "active"


def test_stop_and_restart_by_orbitctl_agree_with_systemd(installed):
    """`daemon stop` ends the service without a failure, and `daemon restart` brings it back under systemd."""
    pid = installed.call("daemon.info")["pid"]
    installed.orbitctl("daemon", "stop")
    assert installed.show("orbitd.service", "Result") == "success"
    installed.orbitctl("daemon", "restart")
    info = installed.call("daemon.info")
    assert (info["supervisor"], info["pid"] != pid) == ("systemd", True)


def test_status_shows_each_unit(installed):
    """`service status` tells file, enabling, state and place of each unit, as a table and as JSON."""
    lines = installed.orbitctl("service", "status").stdout.splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["UNIT", "FILE", "ENABLED", "STATE"],
        ["orbitd.socket", "installed", "enabled", "active"],
        ["orbitd.service", "installed", "enabled", "active"],
    ]
    assert json.loads(installed.orbitctl("service", "status", "--json").stdout)[1] == {
        "unit": "orbitd.service",
        "path": str(installed.units / "orbitd.service"),
        "file": "ours",
        "enabled": "enabled",
        "active": "active (running)",
    }


def test_status_shows_what_is_not_there(manager):
    """Without a service, status says so and is no error."""
    lines = manager.orbitctl("service", "status").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [[unit, "not", "installed"] for unit in UNITS]


def test_a_configured_socket_and_odd_paths_are_served(manager):
    """The units carry the user's own places, whatever characters are in them."""
    odd = manager.home / "a b%h$HOME \"q\" 'x'"
    odd.mkdir(mode=0o700)
    config = odd / "c.toml"
    config.write_text(f'[daemon]\nsocket_path = "{manager.home}/my %t/s"\n')
    places = {"ORBITD_CONFIG": str(config), "XDG_DATA_HOME": str(odd)}
    manager.orbitctl("service", "install", **places)
    info = json.loads(manager.orbitctl("rpc", "call", "daemon.info", **places).stdout)
    assert info["supervisor"] == "systemd"
    assert info["socket_path"] == f"{manager.home}/my %t/s"
    assert info["database_path"] == str(odd / "orbit" / "sessions.db")
    manager.orbitctl("service", "uninstall", **places)


def test_an_installation_in_an_odd_place_is_started(manager):
    """The program's path may hold blanks, percent and dollar signs."""
    odd = manager.home / "o %t $HOME"
    venv.create(odd, symlinks=True)
    [site] = odd.glob("lib/python*/site-packages")
    (site / "everything.pth").write_text(f"{ROOT}\n{ROOT}/protocol\n{sysconfig.get_path('purelib')}\n")
    text = manager.run(str(odd / "bin" / "python"), "-m", "orbitctl", "service", "print", "service").stdout
    manager.orbitctl("service", "install", "--no-start")
    (manager.units / "orbitd.service").write_text(text)
    manager.systemctl("daemon-reload")
    manager.systemctl("start", "orbitd.service")
    assert "o %%t $HOME" in text
    assert manager.call("daemon.info")["supervisor"] == "systemd"


def test_an_installed_wheel_runs_its_own_daemon(manager, tmp_path):
    """Installed from a wheel, orbitctl finds its units and hands its own environment's orbitd to systemd.

    The wheel is unpacked into an environment without scripts: the unit runs `python -m orbitd`, and
    a folder of that name in the user's home is not mistaken for it.
    """
    venv.create(tmp_path / "v", symlinks=True)
    python, [site] = tmp_path / "v/bin/python", (tmp_path / "v/lib").glob("python*/site-packages")
    build = f"import hatchling.build as b; print(b.build_wheel({str(tmp_path)!r}))"
    built = manager.run("sh", "-c", 'cd "$1" && exec "$2" -c "$3"', "sh", str(ROOT), sys.executable, build).stdout
    with zipfile.ZipFile(tmp_path / built.split()[-1]) as wheel:
        wheel.extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    (manager.home / "orbitd").mkdir()
    (manager.home / "orbitd" / "__init__.py").write_text("raise SystemExit('not this one')")
    manager.run(str(python), "-P", "-m", "orbitctl", "service", "install")
    assert f'ExecStart=:"{python}" "-E" "-P" "-m" "orbitd"' in (manager.units / "orbitd.service").read_text()
    info = manager.call("daemon.info")
    assert info["supervisor"] == "systemd"
    started = Path(f"/proc/{info['pid']}/cmdline").read_bytes().split(b"\0")
    assert started[0] == os.fsencode(python)


@needs("systemctl")
def test_without_a_user_manager_nothing_is_written(tmp_path):
    """Where no manager answers, install names the cause and the next step, and writes nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "orbitctl", "service", "install"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "error: the user's service manager (systemd --user) cannot be reached" in done.stderr
    assert "hint: " in done.stderr
    assert tree(tmp_path) == {}


def test_without_systemd_nothing_is_written(tmp_path):
    """Where there is no systemctl, install says what runs orbitd all the same."""
    done = subprocess.run(
        [sys.executable, "-m", "orbitctl", "service", "install"],
        env={"HOME": str(tmp_path), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "systemctl is not installed here" in done.stderr
    assert "orbitctl daemon start" in done.stderr
    assert tree(tmp_path) == {}
