"""The settings: flag > environment variable > configuration file (TOML) > default.

Both sides read it: the daemon for everything, the client to find the socket. Reading the
file itself is the caller's; here text becomes a checked `Settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from orbit_protocol.paths import default_paths, expand
from orbit_protocol.plain_words import in_plain_words
from orbit_protocol.text import path_from_text

LogLevel = Literal["debug", "info", "warning", "error"]

CONFIG_VARIABLE = "ORBITD_CONFIG"
SOCKET_VARIABLE = "ORBITD_SOCKET"
DATABASE_VARIABLE = "ORBITD_DATABASE"

MAX_CONFIG_BYTES = 1024 * 1024
"""Limit of a configuration file."""


class SettingsError(Exception):
    """The configuration cannot be used; the text names file and key."""


class SessionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[session]` table."""

    database_path: Annotated[str, Meta(min_length=1)] | None = None
    auto_save_interval_secs: Annotated[int, Meta(ge=1, le=86_400)] = 30
    snapshot_retention_count: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    backup_retention_count: Annotated[int, Meta(ge=1, le=1_000)] = 3
    restore_sessions_on_startup: bool = True
    scrollback_max_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 16 * 1024 * 1024
    total_scrollback_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 512 * 1024 * 1024


class DaemonSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[daemon]` table; sizes are in bytes."""

    socket_path: Annotated[str, Meta(min_length=1)] | None = None
    log_level: LogLevel = "info"
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 64
    max_message_bytes: Annotated[int, Meta(ge=1_024, le=1 << 30)] = 16 * 1024 * 1024


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. Paths are as written; `resolve` makes them absolute."""

    session: SessionSettings = SessionSettings()
    daemon: DaemonSettings = DaemonSettings()


class Resolved(Struct, frozen=True, kw_only=True):
    """Settings with every path decided; `config_path` need not exist."""

    settings: Settings
    config_path: str
    database_path: str
    socket_path: str
    state_folder: str


def parse_settings(text: bytes, source: str) -> Settings:
    """Read TOML.

    Raises:
        SettingsError: Not TOML, an unknown key or a wrong type; `source` stands in the text.
    """
    try:
        settings = msgspec.toml.decode(text, type=Settings)
    except msgspec.ValidationError as error:
        words = in_plain_words(str(error), _key).replace("there is no", "unknown key")
        raise SettingsError(f"{source}: {words}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{source}: not valid TOML: not UTF-8 (byte {error.start})") from error
    except (msgspec.DecodeError, RecursionError) as error:  # the parser of TOML is written in Python
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise SettingsError(f"{source}: not valid TOML: {reason}") from error
    paths = {"session.database_path": settings.session.database_path, "daemon.socket_path": settings.daemon.socket_path}
    for key, path in paths.items():
        if path is not None and "\0" in path:  # no system call takes one
            raise SettingsError(f"{source}: {_key(key)} must not contain NUL")
    return settings


def _key(path: str) -> str:
    return f"`{path}`"


def config_path(flag: str | None, environ: Mapping[str, str]) -> str:
    """Return the configuration file to read: flag > ORBITD_CONFIG > default."""
    return expand(flag or environ.get(CONFIG_VARIABLE) or default_paths(environ).config_file, environ)


def resolve(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    config_file: str,
    socket: str | None = None,
    database: str | None = None,
) -> Resolved:
    """Decide every path: flag > environment > file > default."""
    paths = default_paths(environ)
    # What the file names is UTF-8 (TOML), whatever the locale: Python's functions may want other letters for its bytes.
    database_in_file = path_from_text(settings.session.database_path or "", None)
    socket_in_file = path_from_text(settings.daemon.socket_path or "", None)
    database_path = database or environ.get(DATABASE_VARIABLE) or database_in_file or paths.database
    socket_path = socket or environ.get(SOCKET_VARIABLE) or socket_in_file or paths.socket
    return Resolved(
        settings=settings,
        config_path=config_file,
        database_path=expand(database_path, environ),
        socket_path=expand(socket_path, environ),
        state_folder=paths.state_folder,
    )
