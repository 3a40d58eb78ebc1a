"""launchd, spoken to by launchctl, in the domain of the user's login session."""

from __future__ import annotations

import os
from collections.abc import Mapping

from orbit_os.files import make_private_folders
from orbitctl.errors import CommandError
from orbitctl.service.base import UnitStatus, must, run
from orbitctl.service.units import LABEL, Installation, Unit, read, render_plist, state_of


class Launchd:
    """The launchd of the user's login session (`gui/UID`)."""

    name = "launchd"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        home = environ.get("HOME") or os.path.expanduser("~")
        self._path = os.path.join(home, "Library", "LaunchAgents", f"{LABEL}.plist")
        self._domain = f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{LABEL}"

    @property
    def paths(self) -> tuple[str, ...]:
        """Return where the property list belongs."""
        return (self._path,)

    def units(self, installation: Installation) -> list[Unit]:
        """Return the property list of an installation."""
        return [Unit(path=self._path, text=render_plist(installation))]

    def check(self) -> None:
        """Make sure that the login session's launchd answers. Raises: CommandError."""
        done = run(["launchctl", "print", self._domain], self._environ)
        if done.returncode != 0:
            raise CommandError(
                f"launchd has no login session for you ({self._domain})",
                hint="Log in at the screen once; `orbitctl daemon start` needs no service manager.",
            )

    def activate(self, *, changed: bool, start: bool) -> None:
        """Load the job; with `start` False it is left for the next login. Raises: CommandError."""
        must(["launchctl", "enable", self._target], self._environ)
        if not start:
            return
        if changed and self._is_loaded():
            must(["launchctl", "bootout", self._target], self._environ)
        self._make_folders()
        if not self._is_loaded():
            must(["launchctl", "bootstrap", self._domain, self._path], self._environ)
        must(["launchctl", "kickstart", self._target], self._environ)

    def deactivate(self) -> None:
        """End the job. Raises: CommandError."""
        if self._is_loaded():
            must(["launchctl", "bootout", self._target], self._environ)

    def forget(self) -> None:
        """Do nothing: launchd reads the folder at each login."""

    def start(self) -> bool:
        """Start what is installed; return whether launchd did."""
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
        """Make what launchd does not: the folders of socket and log, for the user alone."""
        for path in (self._value("Sockets", "orbitd", "SockPathName"), self._value("StandardErrorPath")):
            if path:
                make_private_folders(os.path.dirname(path))

    def _is_loaded(self) -> bool:
        return run(["launchctl", "print", self._target], self._environ).returncode == 0
