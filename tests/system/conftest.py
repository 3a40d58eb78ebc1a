"""A real `systemd --user`, booted for one test, with a home and a runtime folder of its own.

Where systemd is not PID 1, the manager runs in a mount namespace of its own, with an empty
/run that looks booted (sd_booted(3) looks for /run/systemd/system), and in a control group of
its own, so that it governs nothing but what it starts. It tells that it is ready as any
service does: by READY=1 on NOTIFY_SOCKET.

Booting takes a tenth of a second, so each test has a manager to itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from needs import program, require
from support import RawClient

BOOTED = Path("/run/systemd/system").is_dir()
BIN = Path(sys.executable).parent
BOOT_SECS = 30
CALL_SECS = 60
NOBODY = 65534
CGROUP_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")

# Runs as root in the new mount namespace, then becomes the manager.
BOOT = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system
exec "$@"
"""


@dataclass
class UserManager:
    """A running `systemd --user`, and the environment in which a login session would see it."""

    home: Path
    runtime: Path
    process: subprocess.Popen
    environ: dict[str, str]
    uid: int | None
    groups: list[Path]

    @property
    def socket(self) -> Path:
        """Where orbitd.socket listens."""
        return self.runtime / "orbit" / "orbitd.sock"

    @property
    def units(self) -> Path:
        """Where unit files of the user are."""
        return self.home / ".config" / "systemd" / "user"

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run `systemctl --user` and return what it printed."""
        return self.run("systemctl", "--user", *words, check=check, uid=self.uid).stdout

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.systemctl("show", unit, f"--property={name}", "--value").strip()

    def orbitctl(self, *words: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run this checkout's orbitctl, which starts no daemon by itself."""
        return self.run(sys.executable, "-m", "orbitctl", "--no-autostart", *words, check=check, **environ)

    def run(
        self, *command: str, check: bool = True, uid: int | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the session of this manager; what it leaves behind ends with the manager."""
        done = subprocess.run(
            command,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CALL_SECS,
            check=False,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            preexec_fn=None if uid is not None else lambda: _join(self.groups, "session"),
        )
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def drop_in(self, unit: str, text: str) -> None:
        """Override settings of a unit, as `systemctl edit` does."""
        folder = self.units / f"{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(text)
        self.systemctl("daemon-reload")

    def client(self) -> RawClient:
        """Connect to the daemon's socket, which systemd holds."""
        return RawClient(self.socket)

    def call(self, method: str, **params: Any) -> Any:
        """Call a method on a connection of its own."""
        with self.client() as client:
            return client.call(method, **params)

    def log(self) -> str:
        """Return what units wrote to stderr; there is no journal here."""
        return (self.home.parent / "log").read_text(errors="replace")


@pytest.fixture
def manager() -> Iterator[UserManager]:
    """A manager of the user who runs the tests."""
    with user_manager() as booted:
        yield booted


@pytest.fixture
def installed(manager: UserManager) -> UserManager:
    """A manager under which `orbitctl service install` has been run."""
    manager.orbitctl("service", "install")
    return manager


@pytest.fixture
def user_manager_of() -> Iterator[Callable[[int | None], UserManager]]:
    """Return what boots another user's manager."""
    with contextlib.ExitStack() as stack:
        yield lambda uid: stack.enter_context(user_manager(uid))


@pytest.fixture
def unprivileged(user_manager_of) -> UserManager:
    """A manager without any capability, as that of a real user."""
    return user_manager_of(NOBODY)


@contextlib.contextmanager
def user_manager(uid: int | None = None) -> Iterator[UserManager]:
    """Boot a manager, and end it with all that it started.

    Args:
        uid: Whose manager; the caller has to be root to choose.
    """
    # Only root can make a namespace that looks booted, and run another user's manager.
    require("systemd", "systemctl", root=uid is not None or not BOOTED, linux=True)
    folder = Path(tempfile.mkdtemp(prefix="o", dir="/tmp"))
    try:
        with _control_groups(folder.name, uid) as groups:
            booted = _boot(folder, groups, uid)
            try:
                yield booted
            finally:
                _end(booted)
    finally:
        shutil.rmtree(folder)


def _boot(folder: Path, groups: list[Path], uid: int | None) -> UserManager:
    home, runtime = folder / "h", folder / "r"
    for made in (home, runtime):
        made.mkdir(mode=0o700)
    (folder / "log").touch()
    (folder / "service.d").mkdir()
    (folder / "service.d" / "log.conf").write_text(f"[Service]\nStandardError=append:{folder}/log\n")
    environ = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(folder / "n"))
        ready.settimeout(BOOT_SECS)
        if uid is not None:
            for owned in (folder, home, runtime, folder / "n", folder / "log"):
                os.chown(owned, uid, uid)
        process = subprocess.Popen(
            _command(uid),
            env={**environ, "NOTIFY_SOCKET": str(folder / "n"), "SYSTEMD_UNIT_PATH": _unit_path(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: _join(groups),
        )
        booted = UserManager(home=home, runtime=runtime, process=process, environ=environ, uid=uid, groups=groups)
        try:
            while "READY=1" not in ready.recv(4096).decode().split("\n"):
                pass
        except TimeoutError:
            _end(booted)
            raise AssertionError("systemd --user did not boot") from None
    return booted


def _command(uid: int | None) -> list[str]:
    command = [program("systemd"), "--user", "--log-target=null"]
    if uid is not None:
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *command]
    return command if BOOTED else ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "sh", *command]


def _unit_path(folder: Path) -> str:
    """Return where units are looked for; /etc is left out, with what the machine's administrator enabled."""
    own = [folder / "h/.config/systemd/user.control", folder / "h/.config/systemd/user", folder / "r/systemd/user"]
    return ":".join([*map(str, own), str(folder), "/usr/lib/systemd/user"])


def _end(manager: UserManager) -> None:
    """End the manager, which ends its units; what they left behind is ended with the control group."""
    manager.process.send_signal(signal.SIGRTMIN + 24)  # exit at once, as systemd(1) says
    try:
        manager.process.wait(CALL_SECS)
    except subprocess.TimeoutExpired:
        manager.process.kill()
        manager.process.wait()


@contextlib.contextmanager
def _control_groups(name: str, uid: int | None) -> Iterator[list[Path]]:
    """Make a control group in each hierarchy that systemd uses; kill what is in them at the end.

    Each has a child for the commands that tests run, beside those that the manager makes.
    """
    made = [] if BOOTED else [Path(root, name) for root in CGROUP_ROOTS if Path(root, "cgroup.procs").exists()]
    try:
        for group in made:
            (group / "session").mkdir(parents=True)
            for path in (group, *group.iterdir()):
                os.chown(path, os.geteuid() if uid is None else uid, -1)
        yield made
    finally:
        for group in made:
            _empty(group)


def _join(groups: list[Path], child: str = "") -> None:
    """Put the calling process into control groups."""
    for group in groups:
        (group / child / "cgroup.procs").write_text("0")


def _empty(group: Path) -> None:
    """Kill what is left in a control group of ours, the innermost first, and remove it."""
    for folder, _, _ in os.walk(group, topdown=False):
        for pid in map(int, (Path(folder) / "cgroup.procs").read_text().split()):
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], CALL_SECS)
                os.close(descriptor)
        with contextlib.suppress(OSError):
            os.rmdir(folder)
