"""The units' texts: found in a wheel and in a checkout, filled in, quoted; the launchd plist's keys and types."""

from __future__ import annotations

import os
import plistlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from orbitctl.client.paths import ClientPaths
from orbitctl.errors import CommandError
from orbitctl.service.units import (
    MARKER,
    Installation,
    Unit,
    read,
    refuse_foreign,
    remove,
    render_plist,
    render_service,
    render_socket,
    state_of,
    template,
    this_installation,
    write,
)

ROOT = Path(__file__).resolve().parents[3]
USUAL = Installation(
    program=("/opt/orbit/bin/orbitd",),
    environment=(),
    socket="/run/user/1000/orbit/orbitd.sock",
    runtime_socket=True,
    log="/home/u/.local/state/orbit/orbitd.log",
)


def with_(**changes) -> Installation:
    """Return the usual installation, changed."""
    return Installation(**{**{name: getattr(USUAL, name) for name in USUAL.__dataclass_fields__}, **changes})


def line(text: str, key: str) -> list[str]:
    """Return what stands after `key=` in a unit file, for each time it does."""
    return [found.removeprefix(f"{key}=") for found in text.splitlines() if found.startswith(f"{key}=")]


@pytest.mark.parametrize("kind", ["service", "socket", "plist"])
def test_every_template_carries_the_marker(kind):
    """What install writes is known again by its head."""
    assert MARKER in template(kind)[:512]


@pytest.mark.parametrize("render", [render_service, render_socket, render_plist])
def test_no_placeholder_is_left(render):
    """Every @NAME@ of a template is filled in, and the marker is kept."""
    text = render(USUAL)
    assert "@" not in text
    assert MARKER in text[:512]


def test_the_usual_socket_is_written_without_the_users_id():
    """The usual place follows XDG_RUNTIME_DIR by %t; any other is written out, with percent signs doubled."""
    assert line(render_socket(USUAL), "ListenStream") == ["%t/orbit/orbitd.sock"]
    assert line(render_socket(with_(socket="/a/50%/s", runtime_socket=False)), "ListenStream") == ["/a/50%%/s"]


def test_program_and_variables_are_quoted():
    """Blanks, percent signs and quotes stand in the unit so that systemd reads them as they were."""
    installation = with_(
        program=("/my venv/50%/python", "-P", "-m", "orbitd"), environment=(("XDG_DATA_HOME", '/a "b" \\ 50%'),)
    )
    text = render_service(installation)
    assert line(text, "ExecStart") == [':"/my venv/50%%/python" "-P" "-m" "orbitd"']
    assert line(text, "Environment") == [r'"XDG_DATA_HOME=/a \"b\" \\ 50%%"']


@pytest.mark.parametrize("path", ["/a/b\nExecStartPre=/bin/evil", "/a/\x1b/s"])
def test_a_path_with_control_characters_is_refused(path):
    """Nothing can be smuggled into a unit by a path."""
    with pytest.raises(CommandError, match="a unit file cannot hold this path"):
        render_socket(with_(socket=path, runtime_socket=False))
    with pytest.raises(CommandError, match="a unit file cannot hold this path"):
        render_service(with_(environment=(("XDG_DATA_HOME", path),)))


@pytest.mark.parametrize("character", ['"', "'", "\\"])
def test_a_program_that_systemd_cannot_execute_is_refused(character):
    """A quote or backslash in the program's path is said now, and not by a unit that fails."""
    with pytest.raises(CommandError, match="does not execute a program with a quote or backslash"):
        render_service(with_(program=(f"/a{character}b/orbitd",)))


def test_the_installation_is_this_one(tmp_path, monkeypatch):
    """Program, socket and log are those that orbitctl itself uses; variables that move files are carried along."""
    monkeypatch.setattr("orbit_os.python._carried", [])  # as in an installed one, whatever this process has run before
    environ = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}",
        "XDG_DATA_HOME": "/data",
        "XDG_STATE_HOME": "relative/counts/for/nothing",
        "ORBITD_DATABASE": "~/my.db",
        "LANG": "C.UTF-8",
    }
    found = this_installation(ClientPaths(environ, None))
    assert found.program == (sys.executable, "-E", "-P", "-m", "orbitd")
    assert found.environment == (("ORBITD_DATABASE", f"{tmp_path}/my.db"), ("XDG_DATA_HOME", "/data"))
    assert (found.socket, found.runtime_socket) == (f"/run/user/{os.geteuid()}/orbit/orbitd.sock", True)
    assert found.log == str(tmp_path / ".local/state/orbit/orbitd.log")


def test_a_named_socket_is_told_to_the_daemon_too(tmp_path):
    """With --socket the unit listens there, and the daemon's own idea of its socket agrees."""
    found = this_installation(ClientPaths({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/7"}, "/x/s"))
    assert (found.socket, found.runtime_socket) == ("/x/s", False)
    assert found.environment == (("ORBITD_SOCKET", "/x/s"),)


def test_the_plist_has_launchds_keys_and_types():
    """Every key is one of launchd.plist(5), with its type and the value that the design asks for."""
    installation = with_(
        program=("/a & b/orbitd",), environment=(("XDG_DATA_HOME", "/<data>"),), socket="/s/orbitd.sock"
    )
    assert plistlib.loads(render_plist(installation).encode()) == {
        "Label": "dev.orbit.orbitd",
        "ProgramArguments": ["/a & b/orbitd"],
        "EnvironmentVariables": {"XDG_DATA_HOME": "/<data>"},
        "Sockets": {
            "orbitd": {
                "SockFamily": "Unix",
                "SockType": "stream",
                "SockPathName": "/s/orbitd.sock",
                "SockPathMode": 0o600,
            }
        },
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ExitTimeOut": 30,
        "AbandonProcessGroup": True,
        "ProcessType": "Interactive",
        "Umask": 0o077,
        "StandardErrorPath": "/home/u/.local/state/orbit/orbitd.log",
    }


def test_the_plists_names_are_those_that_the_daemon_asks_for():
    """Label and socket key agree with what the daemon looks for at its start."""
    from orbitd.supervision import launchd

    job = plistlib.loads(template("plist").encode())
    assert job["Label"] == launchd.LABEL
    assert list(job["Sockets"]) == [launchd.SOCKET_NAME]


@pytest.mark.slow
def test_a_wheel_carries_the_same_units(tmp_path):
    """Built as a wheel and imported from there, orbitctl prints the very units that the checkout prints."""
    built = subprocess.run(
        [sys.executable, "-c", f"import hatchling.build as b; print(b.build_wheel({str(tmp_path)!r}))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "site")
    printed = {
        where: subprocess.run(
            [sys.executable, "-m", "orbitctl", "service", "print", "service", "socket", "plist"],
            env={"HOME": "/home/u", "PYTHONPATH": folder},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for where, folder in {"wheel": f"{tmp_path}/site", "checkout": f"{ROOT}:{ROOT}/protocol"}.items()
    }
    assert (tmp_path / "site/orbitctl/units/systemd/orbitd.service").is_file()
    # What differs is where each was found, which a unit has to say of an installation by PYTHONPATH.
    folders = re.compile(r"sys\.path\[:0\] = \[[^]]*\]")
    assert len(folders.findall(printed["wheel"])) == 2
    assert folders.sub("", printed["wheel"]) == folders.sub("", printed["checkout"])
    assert "[Service]" in printed["wheel"]


def test_write_replaces_whole_and_only_where_it_differs(tmp_path):
    """A unit is written with mode 0644 by a rename, once; written again it stays as it is."""
    unit = Unit(path=str(tmp_path / "new" / "orbitd.service"), text=render_service(USUAL))
    assert write(unit) is True
    first = Path(unit.path).stat()
    assert write(unit) is False
    assert Path(unit.path).stat() == first
    assert first.st_mode & 0o777 == 0o644
    assert write(Unit(path=unit.path, text=unit.text + "# more\n")) is True
    assert Path(unit.path).stat().st_ino != first.st_ino
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["orbitd.service"]


def test_a_failed_write_leaves_no_trace(tmp_path):
    """Where the file cannot be put in its place, no half of it is left behind."""
    (tmp_path / "orbitd.service").mkdir()
    (tmp_path / "orbitd.service" / "in the way").touch()
    with pytest.raises(OSError, match="directory"):
        write(Unit(path=str(tmp_path / "orbitd.service"), text="x"))
    assert [path.name for path in tmp_path.iterdir()] == ["orbitd.service"]


@pytest.mark.parametrize("kind", ["other text", "link to ours", "folder", "fifo", "marker too late"])
def test_only_regular_files_with_our_head_are_ours(tmp_path, kind):
    """Anything else is foreign: it is neither read, nor removed, nor let pass."""
    import os

    path, ours = tmp_path / "unit", tmp_path / "ours"
    ours.write_text(f"# {MARKER}\n")
    makers = {
        "other text": lambda: path.write_text("[Unit]\n"),
        "link to ours": lambda: path.symlink_to(ours),
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "marker too late": lambda: path.write_text(" " * 600 + MARKER),
    }
    makers[kind]()
    assert (state_of(str(ours)), state_of(str(path))) == ("ours", "foreign")
    assert read(str(path)) == ""
    assert remove(str(path)) is False
    assert os.path.lexists(path)
    with pytest.raises(CommandError, match="not written by orbitctl"):
        refuse_foreign([str(ours), str(path)])
