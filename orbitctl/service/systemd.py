"""systemd's user manager, spoken to by systemctl."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from orbitctl.errors import CommandError
from orbitctl.service.base import COMMAND_SECS, START_SECS, UnitStatus, must, run
from orbitctl.service.units import Installation, Unit, read, render_service, render_socket, state_of

UNITS = ("orbitd.socket", "orbitd.service")


class SystemdUser:
    """The user's own `systemd --user`."""

    name = "systemd"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        config = environ.get("XDG_CONFIG_HOME", "")
        home = environ.get("HOME") or os.path.expanduser("~")
        self._folder = os.path.join(config if config.startswith("/") else f"{home}/.config", "systemd", "user")

    @property
    def paths(self) -> tuple[str, ...]:
        """Return where the unit files belong."""
        return tuple(os.path.join(self._folder, name) for name in UNITS)

    def units(self, installation: Installation) -> list[Unit]:
        """Return the unit files of an installation."""
        texts = (render_socket(installation), render_service(installation))
        return [Unit(path=path, text=text) for path, text in zip(self.paths, texts, strict=True)]

    def check(self) -> None:
        """Make sure that the user's manager answers. Raises: CommandError."""
        done = run(["systemctl", "--user", "show", "--property=Version"], self._environ)
        if done.returncode == 0:
            return
        usual = f"/run/user/{os.getuid()}"
        if not self._environ.get("XDG_RUNTIME_DIR") and os.path.isdir(usual):
            hint = f"Set XDG_RUNTIME_DIR={usual} and try again: the shell was not opened by a login (su, sudo?)."
        else:
            hint = (
                "Log in as this user (ssh, a terminal; not su or sudo), or `loginctl enable-linger` as root. "
                "`orbitctl daemon start` needs no service manager."
            )
        said = " ".join(done.stderr.split())
        raise CommandError(f"the user's service manager (systemd --user) cannot be reached: {said}", hint=hint)

    def activate(self, *, changed: bool, start: bool) -> None:
        """Load what was written, have it started at login and, if `start`, now. Raises: CommandError."""
        if changed:
            self._do("daemon-reload")
        self._do("enable", *UNITS)
        if start:
            run(["systemctl", "--user", "reset-failed", *UNITS], self._environ)
            # Both in one transaction: a socket cannot be started again under a running service.
            self._do("restart" if changed else "start", *UNITS, secs=START_SECS)

    def deactivate(self) -> None:
        """Stop the daemon and forget that it is started at login. Raises: CommandError."""
        self._do("disable", "--now", *(name for name, path in zip(UNITS, self.paths, strict=True) if read(path)))

    def forget(self) -> None:
        """Tell the manager that the files have gone, and remove folders that are empty now."""
        self._do("daemon-reload")
        run(["systemctl", "--user", "reset-failed", *UNITS], self._environ)  # fails where nothing failed
        runtime = self._environ.get("XDG_RUNTIME_DIR", "")
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(runtime, "orbit"))
        with contextlib.suppress(OSError):
            os.rmdir(self._folder)
            os.rmdir(os.path.dirname(self._folder))

    def start(self) -> bool:
        """Start what is installed, and wait until it serves; return whether it does."""
        return run(["systemctl", "--user", "start", *UNITS], self._environ, START_SECS).returncode == 0

    def status(self) -> list[UnitStatus]:
        """Return the state of each unit. Raises: CommandError."""
        return [self._status(name, path) for name, path in zip(UNITS, self.paths, strict=True)]

    def _status(self, name: str, path: str) -> UnitStatus:
        wanted = ("UnitFileState", "ActiveState", "SubState", "Result")
        shown = must(["systemctl", "--user", "show", name, f"--property={','.join(wanted)}"], self._environ)
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
        """Return what the user may want to know or do: lingering."""
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

    def _do(self, *words: str, secs: float = COMMAND_SECS) -> str:
        return must(["systemctl", "--user", *words], self._environ, secs)
