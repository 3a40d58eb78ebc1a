"""The paths of the daemon and its files: flag > environment > configuration file > default.

The configuration is read only where it can matter: not for a socket that is named by a flag or a variable. So
a command that only connects imports no TOML parser, and works beside a configuration with a mistake in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from orbit_os.files import read_regular
from orbit_protocol.paths import default_paths, expand
from orbitctl.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from orbit_protocol.settings import Resolved, Settings

SOCKET_VARIABLE, CONFIG_VARIABLE = "ORBITD_SOCKET", "ORBITD_CONFIG"


class ClientPaths:
    """The paths of one run; all are absolute.

    Args:
        environ: The environment.
        socket_flag: `--socket`, if it was given.
    """

    def __init__(self, environ: Mapping[str, str], socket_flag: str | None) -> None:
        self.environ = environ
        self.socket_flag = socket_flag

    @cached_property
    def socket_path(self) -> str:
        """The daemon's socket. Raises: CommandError where the configuration cannot be read."""
        named = self.socket_flag or self.environ.get(SOCKET_VARIABLE)
        if named:
            return os.path.abspath(expand(named, self.environ))
        defaults = default_paths(self.environ)
        if CONFIG_VARIABLE not in self.environ and not os.path.lexists(defaults.config_file):
            return defaults.socket
        return os.path.abspath(self.resolved.socket_path)

    @cached_property
    def config_path(self) -> str:
        """The configuration file, which need not exist."""
        from orbit_protocol.settings import config_path

        return os.path.abspath(config_path(None, self.environ))

    @cached_property
    def resolved(self) -> Resolved:
        """Every setting and path. Raises: CommandError where the configuration cannot be read."""
        from orbit_protocol.settings import resolve

        path = self.config_path
        return resolve(self.settings_of(path), self.environ, config_file=path, socket=self.socket_flag)

    @property
    def log_file(self) -> str:
        """The log of a daemon that orbitctl starts. Raises: CommandError where the configuration cannot be read."""
        return os.path.join(self.resolved.state_folder, "orbitd.log")

    def settings_of(self, path: str) -> Settings:
        """Return the settings of a configuration file; a missing file counts as an empty one.

        Raises:
            CommandError: It cannot be read, or has a key or a value that is not allowed.
        """
        from orbit_protocol.settings import MAX_CONFIG_BYTES, Settings, SettingsError, parse_settings

        try:
            return parse_settings(read_regular(path, MAX_CONFIG_BYTES), path)
        except FileNotFoundError:
            return Settings()
        except SettingsError as error:
            raise CommandError(
                str(error), ExitCode.USAGE, hint="Correct the file; `orbitctl config check` checks it."
            ) from error
        except OSError as error:
            raise CommandError(f"cannot read {path}: {error.strerror}", ExitCode.USAGE) from error
