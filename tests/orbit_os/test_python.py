"""Nothing of the user's project reaches our interpreters: not by PYTHONPATH, nor by the folder that they stand in."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import orbit_os
from attach_support import RUN_SHELL, Window
from ctl_support import Orbitctl
from orbit_os.python import isolate, python_command
from orbit_protocol.terminal_reset import RESET
from support import clean_environment

NAMES = ("protocol", "click", "msgspec", "rich", "uvloop", "aiosqlite", "socket", "signal", "json", "fcntl")
"""Modules that the programs import, and `protocol`, which they once imported under that name."""

SCRIPTS = Path(sys.executable).parent
STARTS = {
    "module": [sys.executable, "-m", "orbitctl"],
    "script": [str(SCRIPTS / "orbitctl")],
    "daemon's module": [sys.executable, "-m", "orbitd"],
    "daemon's script": [str(SCRIPTS / "orbitd")],
}


@pytest.fixture
def project(home: Path) -> Path:
    """A project with modules of the same names as those that we import; each leaves a mark where it is executed."""
    folder = home / "project"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'executed')!r}, 'a').write('{name} ')\n")
    return folder


def executed(project: Path) -> str:
    mark = project / "executed"
    return mark.read_text() if mark.exists() else ""


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("path", [None, "{project}", ".", "", ":/nowhere", "{project}:{project}", "../project"])
def test_a_project_is_not_imported(project: Path, start: str, path: str | None) -> None:
    """Started in a project's folder, and with PYTHONPATH leading there in every form, both programs run as ever."""
    environment = clean_environment(project.parent)
    environment.pop("PYTHONPATH", None)
    if path is not None:
        environment["PYTHONPATH"] = path.format(project=project)
    run = subprocess.run(
        [*STARTS[start], "--version"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr, executed(project)) == (0, "", "")
    assert "version" in run.stdout or run.stdout.startswith("orbitctl ")


@pytest.mark.parametrize("start", STARTS)
def test_warnings_of_the_user_are_not_ours(project: Path, start: str) -> None:
    """PYTHONWARNINGS=error turns no warning of a library into a traceback of ours."""
    run = subprocess.run(
        [*STARTS[start], "--help"],
        env=clean_environment(project.parent, PYTHONWARNINGS="error"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_daemon_that_a_command_starts_is_isolated(project: Path) -> None:
    """A command that starts the daemon from a project's folder hands nothing of it on."""
    home = project.parent
    ctl = Orbitctl(home, clean_environment(home, PYTHONPATH=str(project)))
    ctl.home = project  # where it runs
    try:
        info = json.loads(ctl.ok("rpc", "call", "daemon.info").out)
        command = Path(f"/proc/{info['pid']}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
        assert command[:5] == python_command("orbitd")
        assert Path(f"/proc/{info['pid']}/comm").read_text() == "orbitd\n"
        assert os.readlink(f"/proc/{info['pid']}/cwd") == "/"
        assert executed(project) == ""
    finally:
        ctl.ok("daemon", "stop")


def test_a_daemon_that_an_attached_client_starts_is_isolated(project: Path) -> None:
    """A client that is attached in a project's folder starts a killed daemon again, and executes nothing there."""
    (project / "fcntl.py").unlink()  # what makes the test's terminal imports it
    home = project.parent
    ctl = Orbitctl(home, clean_environment(home, PYTHONPATH=str(project)))
    ctl.home = project
    try:
        with Window(ctl, *RUN_SHELL) as window:
            window.type("echo re''ady\r")
            window.until("ready\r\n")
            os.kill(ctl.ok("rpc", "call", "daemon.info").json["pid"], signal.SIGKILL)
            window.until(re.escape(RESET))  # attached again, to a new daemon
            window.type("echo ba''ck; exit\r")
            window.until("back")
            assert window.end() == 0
        assert executed(project) == ""
    finally:
        ctl.ok("daemon", "stop", "--all")


@pytest.mark.parametrize(
    ("first", "given", "expected"),
    [
        ("", "", ["/lib"]),
        ("{cwd}", "", ["/lib"]),
        ("/bin", "", ["/bin", "/lib"]),
        ("/bin", "/a:/b", ["/bin", "/lib"]),
        ("/bin", "/a::b", ["/bin", "/lib"]),
        ("{ours}", "{ours}", ["{ours}", "/lib"]),
    ],
)
def test_what_isolate_removes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: str, given: str, expected: list[str]
) -> None:
    """The current folder and PYTHONPATH's entries go, in their absolute form too; our own folder and the rest stay."""
    ours = str(Path(orbit_os.__file__).parents[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", given.format(ours=ours))
    entries = [os.path.abspath(entry) for entry in given.format(ours=ours).split(":")] if given else []
    path = dict.fromkeys([first.format(cwd=tmp_path, ours=ours), *entries, "/lib"])  # site.py removes doubles
    monkeypatch.setattr("sys.path", list(path))
    isolate()
    assert sys.path == [entry.format(ours=ours) for entry in expected]


def test_site_packages_on_pythonpath_stay(project: Path) -> None:
    """site.py adds no folder twice: one that PYTHONPATH names too is needed where it is."""
    purelib = sysconfig.get_path("purelib")
    for path in (f"{project}:{purelib}", f"{purelib}:{Path(os.__file__).parent}:{project}"):
        environment = clean_environment(project.parent, PYTHONPATH=path)
        run = subprocess.run(
            STARTS["script"] + ["--version"], env=environment, capture_output=True, text=True, check=False
        )
        assert (run.returncode, run.stderr, executed(project)) == (0, "", "")


@pytest.mark.parametrize("layout", ["target", "checkout", "folder"])
def test_an_installation_by_path_starts_its_daemon(home: Path, layout: str) -> None:
    """Where PYTHONPATH, or the current folder under `-m`, is how Orbit is found, what it starts finds it too."""
    for package in ("orbit_os", "orbit_protocol", "orbitd", "orbitctl"):
        source = Path(next(iter(importlib.import_module(package).__path__)))
        target = home / "t" / ("protocol" if layout == "checkout" and package.startswith("orbit_") else ".") / package
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    bare = home / "venv"  # an environment with the dependencies, and without Orbit
    venv.create(bare, symlinks=True)
    [site] = bare.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(dependencies(home))
    folder = home / "t"
    path = {"target": f"{folder}", "checkout": f"{folder}:{folder}/protocol", "folder": None}[layout]
    environment = clean_environment(home)
    environment.pop("PYTHONPATH", None)
    ctl = Orbitctl(home, {**environment, **({} if path is None else {"PYTHONPATH": path})})
    ctl.home = folder
    ctl.command = [str(bare / "bin" / "python"), "-m", "orbitctl"]
    try:
        pid = ctl.ok("rpc", "call", "daemon.info").json["pid"]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert command[1:3] == [b"-E", b"-P"]
        assert ctl.ok("daemon", "restart").code == 0
    finally:
        ctl.ok("daemon", "stop")


def dependencies(home: Path) -> str:
    """Return a folder with everything of this environment's site-packages but Orbit itself."""
    folder = home / "dependencies"
    folder.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("orbit", "_orbit", "__editable__")) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return str(folder)


def test_a_current_folder_that_was_deleted_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The programs can be started in a folder that is not there any more."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr("sys.path", ["", "/lib"])
    monkeypatch.setenv("PYTHONPATH", ":x")
    isolate()
    assert sys.path == ["/lib"]
