"""Whose files are made where: root with a user's HOME, users without an entry in passwd, folders of others in /tmp."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl_support import Ended, InProcess, Orbitctl
from needs import needs, require_that
from support import clean_environment

UID, STRANGER = 54321, 54322
"""Users that passwd does not know."""

# The interpreter and Orbit may lie where only root can read, as below /root; all else is as for any user.
AS_USER = [
    "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
]  # fmt: skip

pytestmark = needs("setpriv", root=True, linux=True)


class UserCtl(Orbitctl):
    """`python -m orbitctl` as another user."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        super().__init__(home, environment)
        self.command = [*AS_USER, *self.command]


@pytest.fixture
def users_home(home: Path) -> Iterator[Path]:
    """A folder that belongs to another user, with a home, a runtime folder and a folder to be in."""
    able = subprocess.run([*AS_USER, sys.executable, "-c", "import orbitctl"], check=False, cwd="/")
    require_that(able.returncode == 0, "a Python that another user may run")
    made = home / "user"
    home.chmod(0o755)
    for path in (made, made / "run", made / "here"):
        path.mkdir(mode=0o700)
        os.chown(path, UID, UID)
    yield made
    UserCtl(home, environment_of(made))("daemon", "stop", "--all")


def environment_of(users_home: Path, **extra: str) -> dict[str, str]:
    return {**clean_environment(users_home), "SHELL": "/bin/sh", **extra}


def made_by_root(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.lstat().st_uid == 0]


@pytest.mark.parametrize(
    "words",
    ["session list", "session run -d -- true", "daemon start", "service install", "maintenance backup", "status"],
)
def test_root_makes_nothing_in_a_users_home(users_home: Path, home: Path, words: str) -> None:
    """Sudo may keep HOME: it is refused with its owner and what to do, and the user is not locked out."""
    kept = clean_environment(home, HOME=str(users_home), SUDO_UID=str(UID))
    ended = InProcess(home, kept)(*words.split())
    assert (ended.code, ended.out) == (2, b""), ended
    assert f"HOME is {users_home}, which belongs to uid {UID}, not to you (uid 0)" in ended.err
    assert "sudo -H" in ended.err
    assert made_by_root(users_home) == []
    assert UserCtl(users_home, environment_of(users_home)).ok("session", "list", "-q").text == ""


def test_the_daemon_of_root_makes_nothing_in_a_users_home(users_home: Path, home: Path) -> None:
    """Orbitd by itself is refused with the same words, exit 2."""
    environment = clean_environment(home, HOME=str(users_home))
    command = [sys.executable, "-m", "orbitd"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, f"HOME is {users_home}, which belongs to uid {UID}" in ended.stderr) == (2, True), ended
    assert made_by_root(users_home) == []


def test_root_makes_nothing_in_a_users_runtime_folder(users_home: Path, home: Path) -> None:
    """Su keeps XDG_RUNTIME_DIR: root's daemon serves in root's state folder, where root's client finds it."""
    ctl = Orbitctl(home, clean_environment(home, XDG_RUNTIME_DIR=str(users_home / "run")))
    try:
        assert ctl.ok("daemon", "start", "--json").json["socket_path"] == f"{home}/.local/state/orbit/orbitd.sock"
        ctl.ok("session", "list")
    finally:
        ctl("daemon", "stop")
    assert made_by_root(users_home) == []


def run(ctl: UserCtl, script: str, *, told: Path) -> str:
    """Run a shell in a session, which writes what it has to tell into a file, and return that."""
    session = ctl.id("session", "run", "--detach", "--", "sh", "-c", f"{{ {script}; }} > {told}")
    assert ctl.ok("session", "wait", session).code == 0
    return told.read_text()


def test_a_user_without_an_entry_in_passwd(users_home: Path) -> None:
    """Sessions and live sessions work where HOME is told; without SHELL a shell is /bin/sh."""
    environment = environment_of(users_home)
    del environment["SHELL"]
    ctl = UserCtl(users_home, environment)
    said = run(ctl, "id -u; pwd; echo $HOME", told=users_home / "told")
    assert said.split() == [str(UID), str(users_home), str(users_home)]
    shell = ctl.id("session", "run", "--detach")
    ctl.ok("session", "send", shell, f"echo $0 > {users_home}/shell; exit 0\r")
    ctl.ok("session", "wait", shell)
    assert (users_home / "shell").read_text() == "-sh\n"
    assert ctl("doctor").code == 0


@pytest.mark.parametrize("home_of_container", ["/", ""])
def test_a_user_whose_folders_are_named(users_home: Path, home_of_container: str) -> None:
    """HOME is / or missing in many a container: it is not needed where XDG's variables name folders."""
    named = {"XDG_DATA_HOME": f"{users_home}/data", "XDG_STATE_HOME": f"{users_home}/state"}
    ctl = UserCtl(users_home, environment_of(users_home, HOME=home_of_container, **named))
    try:
        assert run(ctl, "pwd; echo $HOME", told=users_home / "told").split() == [
            str(users_home),
            *home_of_container.split(),
        ]
        assert ctl.ok("daemon", "start", "--json").json["database_path"] == f"{users_home}/data/orbit/sessions.db"
    finally:
        ctl("daemon", "stop", "--all")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, f"HOME is not set, and uid {UID} has no home in passwd"),
        ("", f"HOME is not set, and uid {UID} has no home in passwd"),
        ("rel", "HOME is not an absolute path: rel"),
        ("~", "HOME is not an absolute path: ~"),
        ("/nonexistent/home", "HOME is /nonexistent/home, which does not exist"),
        ("/", f"HOME is /, which belongs to uid 0, not to you (uid {UID})"),
        ("/root", f"belongs to uid 0, not to you (uid {UID})"),
    ],
)
def test_a_user_without_a_home_that_serves(users_home: Path, value: str | None, words: str) -> None:
    """Both programs refuse with exit 2 and why; no folder of that name is made."""
    environment = environment_of(users_home)
    del environment["HOME"]
    if value is not None:
        environment["HOME"] = value
    ctl = UserCtl(users_home / "here", environment)
    daemon = subprocess.run(
        [*AS_USER, sys.executable, "-m", "orbitd"], env=environment, cwd=ctl.home, capture_output=True, check=False
    )
    for ended in (ctl("session", "list"), Ended(daemon.returncode, daemon.stdout, daemon.stderr.decode())):
        assert (ended.code, ended.out, words in ended.err) == (2, b"", True), ended
        assert "Traceback" not in ended.err
    assert os.listdir(ctl.home) == []


@pytest.mark.parametrize("kind", ["closed", "open", "link", "file"])
def test_a_folder_that_somebody_has_made_for_our_sockets(users_home: Path, kind: str) -> None:
    """The short folder in /tmp is refused by name, with what to do, before anything is sent or made there."""
    short, long = Path(f"/tmp/orbit-{UID}"), users_home / ("h" * 100)
    long.mkdir(mode=0o700)
    os.chown(long, UID, UID)
    environment = environment_of(long)
    del environment["XDG_RUNTIME_DIR"]
    try:
        if kind in ("closed", "open"):
            short.mkdir()
            short.chmod(0o700 if kind == "closed" else 0o777)
        elif kind == "link":
            short.symlink_to(users_home / "here")
        else:
            short.touch()
        os.chown(short, STRANGER, STRANGER, follow_symlinks=False)
        ended = UserCtl(users_home, environment)("session", "list")
        assert (ended.code, ended.out, f"{short} " in ended.err) == (3, b"", True), ended
        assert "XDG_RUNTIME_DIR" in ended.err
        daemon = subprocess.run(
            [*AS_USER, sys.executable, "-m", "orbitd"], env=environment, capture_output=True, text=True, check=False
        )
        assert (daemon.returncode, f"error: {short} " in daemon.stderr) == (1, True), daemon
        assert kind not in ("closed", "open") or os.listdir(short) == []
        assert os.listdir(users_home / "here") == []
    finally:
        if short.is_dir() and not short.is_symlink():
            shutil.rmtree(short)
        else:
            short.unlink()
