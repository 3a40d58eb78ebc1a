"""The service managers: systemd's user manager, controlled by systemctl, and launchd, by launchctl.

`ServiceManager` is what the commands use; `SystemdUser` and `Launchd` are the two that there are, and
`manager_for` returns the one of this system. Every program that is run has a timeout; one that is
missing or fails is a `CommandError`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from orbit_os.files import make_private_folders
from orbit_os.shell import command_line
from orbit_protocol.visible import seconds
from orbitctl.client.paths import ClientPaths
from orbitctl.errors import CommandError, ExitCode
from orbitctl.service.units import (
    LABEL,
    Installation,
    Unit,
    read,
    render_plist,
    render_service,
    render_socket,
    state_of,
)

UNITS = ("orbitd.socket", "orbitd.service")
COMMAND_SECS = 60.0
START_SECS = 330.0
"""More than the unit's TimeoutStartSec: a large database may be checked and migrated first."""

UNLOAD_SECS = 40.0
"""More than the job's ExitTimeOut, after which launchd kills it."""
PAUSE_SECS = 0.2

# launchctl ends with errno's numbers of macOS: ESRCH, EIO, EINPROGRESS and EALREADY.
_NO_PROCESS, _NOT_YET, _BEGUN, _IN_PROGRESS = 3, 5, 36, 37


@dataclass(frozen=True, kw_only=True)
class UnitStatus:
    """One unit, as `service status` shows it."""

    unit: str
    path: str
    file: str
    enabled: str
    active: str


class ServiceManager(Protocol):
    """A service manager, as the commands use it."""

    @property
    def name(self) -> str:
        """Return the program's name."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Return where the unit files belong."""

    def units(self, installation: Installation) -> list[Unit]:
        """Return the unit files of an installation."""

    def check(self) -> None:
        """Check that the manager answers. Raises: CommandError."""

    def activate(self, *, changed: bool, start: bool) -> None:
        """Load the units, have the daemon started at login and, if `start`, now. Raises: CommandError."""

    def deactivate(self) -> None:
        """Stop the daemon, and have it no longer started at login. Raises: CommandError."""

    def clean_up(self) -> None:
        """Make the manager notice that the files are removed, and remove folders that are empty now."""

    def start(self) -> bool:
        """Start the installed service and wait until it serves; return whether it does."""

    def status(self) -> list[UnitStatus]:
        """Return the state of each unit. Raises: CommandError."""

    def hints(self) -> list[str]:
        """Return advice for the user, such as on lingering."""

    def log_command(self, lines: int, follow: bool) -> list[str]:
        """Return the command that prints the service's log."""


def manager_for(environ: Mapping[str, str], platform: str = sys.platform) -> ServiceManager:
    """Return the service manager of this system."""
    return Launchd(environ) if platform == "darwin" else SystemdUser(environ)


def start_if_installed(environ: Mapping[str, str] = os.environ) -> bool:
    """Start the service if ours is installed; return whether it serves now.

    Raises:
        CommandError: It is installed, and its manager cannot be reached or could not start it.
    """
    runtime = f"/run/user/{os.getuid()}"
    if not environ.get("XDG_RUNTIME_DIR") and os.path.isdir(runtime):
        # cron and su do not set what systemctl finds the manager by; the daemon is found by its lock anyway.
        environ = {**environ, "XDG_RUNTIME_DIR": runtime}
    manager = manager_for(environ)
    texts = _installed(manager)
    if not texts or not all(texts):
        return False
    manager.check()
    if not manager.start():
        raise CommandError(f"{manager.name} could not start orbitd", hint="`orbitctl daemon logs` shows why.")
    return True


def log_source(environ: Mapping[str, str] = os.environ, *, lines: int = 100, follow: bool = False) -> list[str]:
    """Return the command that prints the installed service's log; an empty list if none is installed."""
    manager = manager_for(environ)
    return manager.log_command(lines, follow) if any(_installed(manager)) else []


def _installed(manager: ServiceManager) -> list[str]:
    """Return the text of each of our unit files, empty for a missing one; none in a HOME that cannot be used."""
    try:
        return [read(path) for path in manager.paths]
    except CommandError:
        return []


class SystemdUser:
    """systemd's manager for this user (`systemd --user`)."""

    name = "systemd"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @cached_property
    def _folder(self) -> str:
        return ClientPaths(self._environ, None).folder("XDG_CONFIG_HOME", ".config", "systemd/user")

    @property
    def paths(self) -> tuple[str, ...]:
        """Return where the unit files belong."""
        return tuple(os.path.join(self._folder, name) for name in UNITS)

    def units(self, installation: Installation) -> list[Unit]:
        """Return the unit files of an installation."""
        texts = (render_socket(installation), render_service(installation))
        return [Unit(path=path, text=text) for path, text in zip(self.paths, texts, strict=True)]

    def check(self) -> None:
        """Check that the user's manager answers. Raises: CommandError."""
        done = run(["systemctl", "--user", "show", "--property=Version"], self._environ)
        if done.returncode == 0:
            return
        # systemctl finds the manager's socket by XDG_RUNTIME_DIR, which pam_systemd sets at a login, and su and sudo
        # do not.
        usual = f"/run/user/{os.getuid()}"
        if not self._environ.get("XDG_RUNTIME_DIR") and os.path.isdir(usual):
            hint = f"Set XDG_RUNTIME_DIR={usual} and try again: the shell was not opened by a login (su, sudo?)."
        else:
            hint = (
                "Log in as this user (ssh, a terminal; not su or sudo), or `loginctl enable-linger` as root. "
                "`orbitctl daemon start` needs no service manager."
            )
        printed = " ".join(done.stderr.split())
        raise CommandError(f"the user's service manager (systemd --user) cannot be reached: {printed}", hint=hint)

    def activate(self, *, changed: bool, start: bool) -> None:
        """Load the units, have the daemon started at login and, if `start`, now. Raises: CommandError."""
        if changed:
            self._systemctl("daemon-reload")
        self._systemctl("enable", *UNITS)
        if start:
            run(["systemctl", "--user", "reset-failed", *UNITS], self._environ)
            # Both in one systemctl call, which is one transaction: systemd refuses to start a socket unit while its
            # service runs.
            self._systemctl("restart" if changed else "start", *UNITS, secs=START_SECS)

    def deactivate(self) -> None:
        """Stop the daemon, and have it no longer started at login. Raises: CommandError."""
        self._systemctl("disable", "--now", *(name for name, path in zip(UNITS, self.paths, strict=True) if read(path)))

    def clean_up(self) -> None:
        """Make the manager notice that the files are removed, and remove folders that are empty now."""
        self._systemctl("daemon-reload")
        run(["systemctl", "--user", "reset-failed", *UNITS], self._environ)  # fails if no unit has failed
        runtime = self._environ.get("XDG_RUNTIME_DIR", "")
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(runtime, "orbit"))
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)
            os.rmdir(os.path.dirname(self._folder))

    def start(self) -> bool:
        """Start the installed service and wait until it serves; return whether it does."""
        return run(["systemctl", "--user", "start", *UNITS], self._environ, START_SECS).returncode == 0

    def status(self) -> list[UnitStatus]:
        """Return the state of each unit. Raises: CommandError."""
        return [self._status(name, path) for name, path in zip(UNITS, self.paths, strict=True)]

    def _status(self, name: str, path: str) -> UnitStatus:
        wanted = ("UnitFileState", "ActiveState", "SubState", "Result")
        shown = run_checked(["systemctl", "--user", "show", name, f"--property={','.join(wanted)}"], self._environ)
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        result = found.get("Result", "success")
        detail = found.get("SubState", "") if result == "success" else result
        return UnitStatus(
            unit=name,
            path=path,
            file=state_of(path),
            enabled=found.get("UnitFileState") or "no",
            active=f"{found.get('ActiveState', 'unknown')} ({detail})",
        )

    def hints(self) -> list[str]:
        """Return advice on lingering, if it is off."""
        with contextlib.suppress(CommandError):
            done = run(["loginctl", "show-user", str(os.getuid()), "--property=Linger"], self._environ)
            if done.stdout.strip() == "Linger=no":
                return [
                    "Lingering is off: orbitd and all sessions end with your last login. "
                    "`loginctl enable-linger` keeps them, and starts orbitd at boot."
                ]
        return []

    def log_command(self, lines: int, follow: bool) -> list[str]:
        """Return the command that prints the service's log, wherever the journal keeps it."""
        return ["journalctl", "--user-unit=orbitd.service", f"--lines={lines}", *(["--follow"] if follow else [])]

    def _systemctl(self, *arguments: str, secs: float = COMMAND_SECS) -> str:
        return run_checked(["systemctl", "--user", *arguments], self._environ, secs)


class Launchd:
    """The launchd of the user's login session (`gui/UID`)."""

    name = "launchd"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._domain = f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{LABEL}"

    @cached_property
    def _path(self) -> str:
        # No variable has an empty name: launchd looks nowhere else.
        folder = ClientPaths(self._environ, None).folder("", "Library", "LaunchAgents")
        return os.path.join(folder, f"{LABEL}.plist")

    @property
    def paths(self) -> tuple[str, ...]:
        """Return where the property list belongs."""
        return (self._path,)

    def units(self, installation: Installation) -> list[Unit]:
        """Return the property list of an installation."""
        return [Unit(path=self._path, text=render_plist(installation))]

    def check(self) -> None:
        """Check that the login session's launchd answers. Raises: CommandError."""
        done = run(["launchctl", "print", self._domain], self._environ)
        if done.returncode != 0:
            raise CommandError(
                f"launchd has no login session for you ({self._domain})",
                hint="Log in at the screen once; `orbitctl daemon start` needs no service manager.",
            )

    def activate(self, *, changed: bool, start: bool) -> None:
        """Load the job and start it; with `start` False launchd loads it at the next login. Raises: CommandError."""
        run_checked(["launchctl", "enable", self._target], self._environ)
        if not start:
            return
        self._make_folders()
        # launchd keeps the job as it was loaded; only unloading it makes it read the file again.
        if changed and self._is_loaded():
            self._unload()
            self._repeat(["launchctl", "bootstrap", self._domain, self._path])
        elif not self._is_loaded():
            run_checked(["launchctl", "bootstrap", self._domain, self._path], self._environ)
        run_checked(["launchctl", "kickstart", self._target], self._environ, allowed=(_IN_PROGRESS,))

    def deactivate(self) -> None:
        """End the job. Raises: CommandError."""
        if self._is_loaded():
            self._unload()

    def clean_up(self) -> None:
        """Do nothing: launchd reads the folder at each login."""

    def start(self) -> bool:
        """Start the installed job; return whether launchd has accepted that."""
        self._make_folders()
        if not self._is_loaded():
            run(["launchctl", "bootstrap", self._domain, self._path], self._environ)
        return run(["launchctl", "kickstart", self._target], self._environ).returncode == 0

    def status(self) -> list[UnitStatus]:
        """Return the job's state. Raises: CommandError."""
        done = run(["launchctl", "print", self._target], self._environ)
        lines = (line.strip() for line in done.stdout.splitlines())
        state = next((line.removeprefix("state = ") for line in lines if line.startswith("state = ")), "unknown")
        loaded = done.returncode == 0
        return [
            UnitStatus(
                unit=LABEL,
                path=self._path,
                file=state_of(self._path),
                enabled="loaded" if loaded else "no",
                active=state if loaded else "inactive",
            )
        ]

    def hints(self) -> list[str]:
        """Return nothing: a launch agent lives as long as the login session, and nothing can be set."""
        return []

    def log_command(self, lines: int, follow: bool) -> list[str]:
        """Return the command that prints the file that launchd sends the daemon's stderr to."""
        return ["tail", "-n", str(lines), *(["-F"] if follow else []), self._value("StandardErrorPath")]

    def _value(self, *keys: str) -> str:
        import plistlib  # brings in an XML parser

        text = read(self._path)
        found = plistlib.loads(text.encode()) if text else {}
        for key in keys:
            found = found.get(key, {})
        return found if isinstance(found, str) else ""

    def _make_folders(self) -> None:
        """Create the folders of socket and log with mode 0700, which launchd does not."""
        for path in (self._value("Sockets", "orbitd", "SockPathName"), self._value("StandardErrorPath")):
            if path:
                make_private_folders(os.path.dirname(path))

    def _unload(self) -> None:
        """Unload the job and wait until launchd has forgotten it. Raises: CommandError."""
        # bootout only begins it (EINPROGRESS): the job is there until its process has ended, and what is done with
        # it meanwhile fails with EIO or EALREADY, or starts the process that is about to end. launchctl can wait for
        # nothing, so it is asked again.
        run_checked(["launchctl", "bootout", self._target], self._environ, allowed=(_NO_PROCESS, _BEGUN))
        deadline = time.monotonic() + UNLOAD_SECS
        while self._is_loaded():
            if time.monotonic() > deadline:
                raise CommandError(
                    f"launchd has not ended {LABEL} within {seconds(UNLOAD_SECS)}", hint="Try again in a moment."
                )
            time.sleep(PAUSE_SECS)

    def _repeat(self, command: list[str]) -> None:
        """Run a command, again while launchd is still forgetting the job. Raises: CommandError."""
        deadline = time.monotonic() + UNLOAD_SECS
        done = run(command, self._environ)
        while done.returncode in (_NOT_YET, _IN_PROGRESS) and time.monotonic() < deadline:
            time.sleep(PAUSE_SECS)
            done = run(command, self._environ)
        _checked(command, done)

    def _is_loaded(self) -> bool:
        return run(["launchctl", "print", self._target], self._environ).returncode == 0


def run(command: list[str], environ: Mapping[str, str], secs: float = COMMAND_SECS) -> subprocess.CompletedProcess[str]:
    """Run a command of a service manager and return what it printed and its exit status.

    Raises:
        CommandError: There is no such command, or it took longer than `secs`.
    """
    try:
        return subprocess.run(
            command,
            # Output that is parsed is neither translated, nor paged, nor coloured.
            env={**environ, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=secs,
            check=False,
        )
    except FileNotFoundError as error:
        package = "" if command[0] == "launchctl" else " Debian has it in the package systemd."
        raise CommandError(
            f"{command[0]} is not installed here, so there is no service manager to run orbitd",
            hint="`orbitctl daemon start` runs it without one, and every command starts it if it does not run."
            + package,
        ) from error
    except OSError as error:
        raise CommandError(f"cannot run {command[0]}: {error.strerror}", hint="Look where PATH finds it.") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{command_line(command)}` took longer than {seconds(secs)}", ExitCode.TIMEOUT) from error


def run_checked(
    command: list[str], environ: Mapping[str, str], secs: float = COMMAND_SECS, allowed: Sequence[int] = ()
) -> str:
    """Run a command and return what it printed. Raises: CommandError if its status is neither 0 nor `allowed`."""
    return _checked(command, run(command, environ, secs), allowed)


def _checked(command: list[str], done: subprocess.CompletedProcess[str], allowed: Sequence[int] = ()) -> str:
    if done.returncode != 0 and done.returncode not in allowed:
        printed = " ".join((done.stderr.strip() or done.stdout.strip()).split())
        raise CommandError(f"`{command_line(command)}` failed: {printed}", hint="`orbitctl daemon logs` may show why.")
    return done.stdout
