"""The paths of the daemon and its files: flag > environment > configuration file > default.

The configuration is read only where it can matter: not for a socket that is named by a flag or a variable. So
a command that only connects imports no TOML parser, and works beside a configuration with a mistake in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from orbit_os.files import UnsafeFolder, check_private, read_regular
from orbit_os.places import HomeUnusable, Places
from orbit_protocol.paths import path_mistake
from orbitctl.client.light import CONFIG_VARIABLE, DATABASE_VARIABLE, SOCKET_VARIABLE, says_nothing
from orbitctl.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from orbit_protocol.settings import Resolved, Settings


class ClientPaths:
    """The paths of one run; all are absolute, and CommandError is raised where one cannot be decided.

    Args:
        environ: The environment.
        socket_flag: `--socket`, if it was given.
    """

    def __init__(self, environ: Mapping[str, str], socket_flag: str | None) -> None:
        self.environ = environ
        self.socket_flag = socket_flag
        self._places = Places(environ)

    @cached_property
    def socket_path(self) -> str:
        """The daemon's socket; what cannot be used for a daemon is refused."""
        if self.socket_flag is not None:
            return self.absolute(self.socket_flag, "--socket")
        if variable := self.environ.get(SOCKET_VARIABLE):
            return self.absolute(variable, SOCKET_VARIABLE, typed=False)
        with _usable_home():
            has_config = self.environ.get(CONFIG_VARIABLE) or self.has_settings
            path = self.resolved.socket_path if has_config else self._places.socket
            if path == self._places.socket:
                self._check_short_folder(path)
            self._places.check()
        return path

    def _check_short_folder(self, socket: str) -> None:
        """Refuse a default socket in a folder of somebody else: anybody may make one in /tmp."""
        folder = os.path.dirname(socket)
        if folder == self._places.run_folder or not os.path.lexists(folder):
            return
        try:
            check_private(folder)
        except (OSError, UnsafeFolder) as error:
            raise CommandError(
                f"the folder of the socket cannot be used: {error}",
                ExitCode.UNREACHABLE,
                hint="Set XDG_RUNTIME_DIR to a folder of your own, or name a socket with --socket or ORBITD_SOCKET.",
            ) from error

    @property
    def is_socket_chosen(self) -> bool:
        """Whether the user has named the socket: in a session orbitd has, as of when its program started.

        orbitd sets ORBIT_SOCKET to the same path, so that another one that is set there since counts as named.
        """
        variable = self.environ.get(SOCKET_VARIABLE)
        return bool(self.socket_flag or (variable and variable != self.environ.get("ORBIT_SOCKET")))

    @property
    def is_database_chosen(self) -> bool:
        """Whether a variable names the database, and nothing the socket: another database may be served there."""
        named = self.environ.get(DATABASE_VARIABLE) or self.environ.get(CONFIG_VARIABLE)
        return bool(named) and not self.is_socket_chosen

    @cached_property
    def database_path(self) -> str:
        """The database."""
        with _usable_home():
            named = self.environ.get(DATABASE_VARIABLE) or self.environ.get(CONFIG_VARIABLE)
            has_config = named or self.has_settings
            return self.resolved.database_path if has_config else self._places.database

    @property
    def has_settings(self) -> bool:
        """Whether the usual configuration file may say something."""
        try:
            return not says_nothing(self._places.config_file)
        except OSError:  # it is reported when it is read
            return True

    @property
    def detach_key(self) -> str | None:
        """The keys that detach, as the configuration has them; None where it has none. Raises: CommandError."""
        with _usable_home():
            has_config = self.environ.get(CONFIG_VARIABLE) or self.has_settings
        return self.resolved.settings.client.detach_key if has_config else None

    @cached_property
    def config_path(self) -> str:
        """The configuration file, which need not exist."""
        from orbit_protocol.settings import config_path

        with _usable_home(), _usable_settings():
            return config_path(None, self.environ, self._places)

    @cached_property
    def resolved(self) -> Resolved:
        """Every setting and path."""
        from orbit_protocol.settings import resolve

        path = self.config_path
        settings = self.settings_of(path, may_be_missing=not self.environ.get(CONFIG_VARIABLE))
        socket = None if self.socket_flag is None else self.socket_path
        with _usable_home(), _usable_settings():
            return resolve(settings, self.environ, self._places, config_file=path, socket=socket)

    def absolute(self, path: str, name: str, *, typed: bool = True) -> str:
        """Return the absolute path of one that the user gave.

        Args:
            path: As it was given.
            name: Of the flag, argument or variable, for the error.
            typed: Whether it may be relative to the current folder.

        Raises:
            CommandError: It is no path, or the current folder has been deleted.
        """
        if mistake := path_mistake(path, typed=typed):
            raise CommandError(f"{name} {mistake}", ExitCode.USAGE)
        try:
            with _usable_home():
                return self._places.expand(path)
        except FileNotFoundError as error:
            raise CommandError(
                f"{name} is relative to the current folder, which has been deleted: {path}",
                ExitCode.USAGE,
                hint="Change to another folder, or give the whole path.",
            ) from error

    def folder(self, variable: str, default: str, name: str) -> str:
        """Return a folder as `Places.folder` does, in which something may be made."""
        with _usable_home():
            folder = self._places.folder(variable, default, name)
            self._places.check()
        return folder

    def check(self) -> None:
        """Refuse folders that are missing or another user's, before something is made, as `Places.check` does."""
        with _usable_home():
            self._places.check()

    @property
    def run_folder(self) -> str:
        """The folder of what may end with a reboot, in which something may be made."""
        with _usable_home():
            folder = self._places.run_folder
            self._places.check()
        return folder

    @property
    def state_folder(self) -> str:
        """The folder of journals and logs, without a look at the configuration. Raises: CommandError."""
        with _usable_home():
            return self._places.state_folder

    @property
    def usual_socket(self) -> str:
        """The socket in the folder that systemd's `%t` means; empty where there is no such folder."""
        folder = self._places.runtime_folder
        return os.path.join(folder, "orbit", "orbitd.sock") if folder else ""

    @property
    def log_file(self) -> str:
        """The log of a daemon that orbitctl starts. Raises: CommandError where the configuration cannot be read."""
        return os.path.join(self.resolved.state_folder, "orbitd.log")

    @property
    def start_lock_file(self) -> str:
        """The file by whose lock clients take turns to start a daemon. Raises: CommandError, likewise."""
        return os.path.join(self.resolved.state_folder, "start.lock")

    @property
    def lock_file(self) -> str:
        """The lock of the database, with the note of the daemon that holds it. Raises: CommandError, likewise."""
        return self.database_path + ".lock"

    def settings_of(self, path: str, *, may_be_missing: bool = True) -> Settings:
        """Return the settings of a configuration file.

        Args:
            path: The file.
            may_be_missing: Whether a missing file counts as an empty one.

        Raises:
            CommandError: It cannot be read, or has a key or a value that is not allowed.
        """
        from orbit_protocol.settings import MAX_CONFIG_BYTES, Settings, parse_settings

        try:
            with _usable_settings():
                return parse_settings(read_regular(path, MAX_CONFIG_BYTES), path)
        except FileNotFoundError as error:
            if may_be_missing:
                return Settings()
            raise CommandError(f"{path}: no such file", ExitCode.USAGE) from error
        except OSError as error:
            raise CommandError(
                f"cannot read {path}: {error.strerror}",
                ExitCode.USAGE,
                hint=f"Put a TOML file there, or name another one with {CONFIG_VARIABLE}.",
            ) from error


@contextlib.contextmanager
def _usable_home() -> Iterator[None]:
    """Turn HomeUnusable into CommandError."""
    try:
        yield
    except HomeUnusable as error:
        raise CommandError(str(error), ExitCode.USAGE, hint=error.hint) from error


@contextlib.contextmanager
def _usable_settings() -> Iterator[None]:
    """Turn SettingsError into CommandError."""
    from orbit_protocol.settings import SettingsError

    try:
        yield
    except SettingsError as error:
        raise CommandError(
            str(error), ExitCode.USAGE, hint="Correct it; `orbitctl config check` checks the configuration."
        ) from error
