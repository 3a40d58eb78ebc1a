"""The settings: flag > environment variable > configuration file (TOML) > default.

Both sides read it: the daemon for everything, the client to find the socket. Reading the
file itself is the caller's; here text becomes a checked `Settings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from orbit_protocol.errors import InvalidParams
from orbit_protocol.event_kinds import expand_kinds
from orbit_protocol.paths import path_mistake
from orbit_protocol.plain_words import in_plain_words
from orbit_protocol.text import path_from_text

ShellIntegration = Literal["off", "auto"]
LogLevel = Literal["debug", "info", "warning", "error"]

CONFIG_VARIABLE = "ORBITD_CONFIG"
SOCKET_VARIABLE = "ORBITD_SOCKET"
DATABASE_VARIABLE = "ORBITD_DATABASE"

MAX_CONFIG_BYTES = 1024 * 1024
"""Limit of a configuration file."""

_MAX_SHOWN = 60
"""How many characters of a wrong value an error has."""

_WRONG_VALUE = re.compile(r"(?:Expected|Invalid enum value) .* - at `\$\.([\w.]+)`", re.DOTALL)


class SettingsError(Exception):
    """The configuration cannot be used; the text names file and key, the variable or the flag."""


class SessionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[session]` table."""

    database_path: Annotated[str, Meta(min_length=1)] | None = None
    auto_save_interval_secs: Annotated[int, Meta(ge=1, le=86_400)] = 30
    snapshot_retention_count: Annotated[int, Meta(ge=1, le=1_000_000)] = 10
    backup_retention_count: Annotated[int, Meta(ge=1, le=1_000)] = 3
    restore_sessions_on_startup: bool = True
    trash_retention_secs: Annotated[int, Meta(ge=0, le=10 * 366 * 86_400)] = 7 * 86_400
    ended_retention_secs: Annotated[int, Meta(ge=0, le=100 * 366 * 86_400)] = 30 * 86_400
    scrollback_max_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 16 * 1024 * 1024
    total_scrollback_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 512 * 1024 * 1024


class DaemonSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[daemon]` table; sizes are in bytes."""

    socket_path: Annotated[str, Meta(min_length=1)] | None = None
    log_level: LogLevel = "info"
    max_connections: Annotated[int, Meta(ge=1, le=100_000)] = 256
    max_message_bytes: Annotated[int, Meta(ge=1_024, le=1 << 30)] = 16 * 1024 * 1024


class ClientSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[client]` table, which orbitctl alone looks at; None means orbitctl's own default."""

    detach_key: Annotated[str, Meta(min_length=1)] | None = None


class EventSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[events]` table."""

    event_retention_count: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000
    silence_secs: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    shell_integration: ShellIntegration = "off"


class HistorySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[history]` table: what is kept of what sessions show; `record` is the most that any of them records."""

    record: Literal["full", "screen"] = "full"
    recording_max_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 64 * 1024 * 1024
    total_recording_bytes: Annotated[int, Meta(ge=0, le=1 << 44)] = 1024 * 1024 * 1024
    recording_retention_secs: Annotated[int, Meta(ge=0, le=100 * 366 * 86_400)] = 30 * 86_400
    text_max_bytes: Annotated[int, Meta(ge=0, le=1 << 44)] = 256 * 1024 * 1024


class NotificationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[notifications]` table: what the desktop is told of sessions that nobody is at."""

    desktop: bool = True
    command_finished_min_secs: Annotated[float, Meta(ge=0, le=31_536_000)] = 30.0
    bell: bool = True
    notification: bool = True
    disconnected: bool = True


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. Paths are as written; `resolve` makes them absolute."""

    session: SessionSettings = SessionSettings()
    daemon: DaemonSettings = DaemonSettings()
    client: ClientSettings = ClientSettings()
    events: EventSettings = EventSettings()
    hooks: dict[str, Annotated[list[str], Meta(min_length=1)]] = {}
    notifications: NotificationSettings = NotificationSettings()
    history: HistorySettings = HistorySettings()


class Resolved(Struct, frozen=True, kw_only=True):
    """Settings with every path decided; `config_path` need not exist."""

    settings: Settings
    config_path: str
    database_path: str
    socket_path: str
    state_folder: str
    run_folder: str
    runtime_folder: str


class DefaultPlaces(Protocol):
    """Where files are unless something names another place; `orbit_os.places` decides it, and may raise."""

    @property
    def config_file(self) -> str:
        """The configuration."""

    @property
    def database(self) -> str:
        """The database."""

    @property
    def state_folder(self) -> str:
        """The folder of journals and logs."""

    @property
    def socket(self) -> str:
        """The daemon's socket."""

    @property
    def run_folder(self) -> str:
        """The folder of what may end with a reboot."""

    @property
    def runtime_folder(self) -> str:
        """The folder of XDG_RUNTIME_DIR; empty where there is none."""

    def expand(self, path: str) -> str:
        """Return the absolute path for one that `path_mistake` finds right."""


def parse_settings(text: bytes, source: str) -> Settings:
    """Read TOML.

    Raises:
        SettingsError: Not TOML, an unknown key or a wrong type; `source` stands in the text.
    """
    try:
        settings = msgspec.toml.decode(text, type=Settings)
    except msgspec.ValidationError as error:
        if "$.hooks" in str(error):
            _check_words(msgspec.toml.decode(text), source)
        raise SettingsError(f"{source}: {_in_words(str(error), msgspec.toml.decode(text))}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{source}: not valid TOML: not UTF-8 (byte {error.start})") from error
    except (msgspec.DecodeError, RecursionError) as error:  # the parser of TOML is written in Python
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise SettingsError(f"{source}: not valid TOML: {reason}") from error
    _check_hooks(settings, source)
    paths = {"session.database_path": settings.session.database_path, "daemon.socket_path": settings.daemon.socket_path}
    for key, path in paths.items():
        if path is not None and (mistake := path_mistake(path)):
            raise SettingsError(f"{source}: {_key(key)} {mistake}")
    return settings


def _in_words(message: str, document: Any) -> str:
    """Return what is wrong with a value of a file as a sentence: the key, what is right, and what stands there."""
    words = in_plain_words(message, _key).replace("there is no", "unknown key")
    found = _WRONG_VALUE.fullmatch(message)
    if found is None or "may not be empty" in words:
        return words
    kind: Any = Settings
    value = document
    for key in found[1].split("."):
        kind, value = get_type_hints(kind)[key], value[key]
    got = msgspec.json.encode(value).decode()
    got = got if len(got) <= _MAX_SHOWN else f"{got[:_MAX_SHOWN]}…"
    if get_origin(kind) is Literal:
        *most, last = (f'"{each}"' for each in get_args(kind))
        return f"{_key(found[1])} must be {', '.join(most)} or {last}, not {got}"
    return f"{words}: {got}" if ", not " in words else f"{words}, not {got}"


def _check_words(document: dict[str, Any], source: str) -> None:
    """Refuse a hook that is no list of words, by its name. Raises: SettingsError."""
    hooks = document.get("hooks")
    for name, argv in hooks.items() if isinstance(hooks, dict) else ():
        if not (isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)):
            key = msgspec.json.encode(name).decode()
            raise SettingsError(f"{source}: `hooks.{key}` must be a list of words: a program and its arguments")


def _check_hooks(settings: Settings, source: str) -> None:
    """Refuse a hook of an event that there is not. Raises: SettingsError."""
    for name, argv in settings.hooks.items():
        try:
            expand_kinds([name])
        except InvalidParams as error:
            key = msgspec.json.encode(name).decode()
            raise SettingsError(f"{source}: `hooks.{key}`: there is no such event. {error.hint}") from error
        if not argv[0] or any("\0" in word for word in argv):
            key = msgspec.json.encode(name).decode()
            raise SettingsError(f"{source}: `hooks.{key}` names no program")


def _key(path: str) -> str:
    return f"`{path}`"


def config_path(flag: str | None, environ: Mapping[str, str], places: DefaultPlaces) -> str:
    """Return the configuration file to read: flag > ORBITD_CONFIG > default. Raises: SettingsError."""
    named = named_path("--config", flag, CONFIG_VARIABLE, environ)
    return places.config_file if named is None else places.expand(named)


def resolve(
    settings: Settings,
    environ: Mapping[str, str],
    places: DefaultPlaces,
    *,
    config_file: str,
    socket: str | None = None,
    database: str | None = None,
) -> Resolved:
    """Decide every path: flag > environment > file > default.

    Raises:
        SettingsError: A flag or a variable is no path.
    """
    # What the file names is UTF-8 (TOML), whatever the locale: Python's functions may want other letters for its bytes.
    named_database = named_path("--database", database, DATABASE_VARIABLE, environ)
    if named_database is None and settings.session.database_path is not None:
        named_database = path_from_text(settings.session.database_path, None)
    named_socket = named_path("--socket", socket, SOCKET_VARIABLE, environ)
    if named_socket is None and settings.daemon.socket_path is not None:
        named_socket = path_from_text(settings.daemon.socket_path, None)
    return Resolved(
        settings=settings,
        config_path=config_file,
        database_path=places.database if named_database is None else places.expand(named_database),
        socket_path=places.socket if named_socket is None else places.expand(named_socket),
        state_folder=places.state_folder,
        run_folder=places.run_folder,
        runtime_folder=places.runtime_folder,
    )


def named_path(flag: str, typed: str | None, variable: str, environ: Mapping[str, str]) -> str | None:
    """Return the path that a flag names, or else a variable; None where neither does. An empty variable names nothing.

    Raises:
        SettingsError: It is no path.
    """
    if typed is not None:
        name, path = flag, typed
    else:
        name, path = variable, environ.get(variable, "")
        if not path:
            return None
    if mistake := path_mistake(path, typed=typed is not None):
        raise SettingsError(f"{name} {mistake}")
    return path
