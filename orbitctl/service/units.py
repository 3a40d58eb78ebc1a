"""The unit files of systemd and launchd: rendered from templates, written, recognized as ours, removed.

A file is ours if it is a regular file and has `MARKER` near its top. No other is ever overwritten or
removed: not a symbolic link (a masked unit is one, to /dev/null), not another file of the same name.
Writing is atomic, so a service manager never reads half a unit.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from orbit_os.files import make_private_folders, set_mode, sync, sync_descriptor
from orbit_os.python import python_command
from orbit_protocol.text import path_text
from orbitctl.client.light import SOCKET_VARIABLE
from orbitctl.client.paths import ClientPaths
from orbitctl.errors import CommandError

MARKER = "Written by `orbitctl service install`"
HEAD_BYTES = 512
MAX_UNIT_BYTES = 1 << 20
LABEL = "dev.orbit.orbitd"

TEMPLATES = {
    "service": ("systemd", "orbitd.service"),
    "socket": ("systemd", "orbitd.socket"),
    "plist": ("launchd", f"{LABEL}.plist"),
}

CARRIED_VARIABLES = ("ORBITD_CONFIG", "ORBITD_DATABASE", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
"""Variables that decide where files are; a service manager does not read the user's shell profile."""

State = Literal["ours", "missing", "foreign"]


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The values for the templates; every path is absolute."""

    program: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    socket: str
    runtime_socket: bool
    log: str


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit file, rendered."""

    path: str
    text: str

    @property
    def name(self) -> str:
        """The file's name, which is the unit's."""
        return os.path.basename(self.path)


def this_installation(paths: ClientPaths) -> Installation:
    """Return the values for this installation: its program and its paths.

    Raises:
        CommandError: The configuration cannot be read.
    """
    socket = paths.resolved.socket_path
    usual = socket == paths.usual_socket
    variables = dict(_carried(paths))
    if not usual:
        variables[SOCKET_VARIABLE] = socket
    return Installation(
        program=tuple(python_command("orbitd")),
        environment=tuple(variables.items()),
        socket=socket,
        runtime_socket=usual,
        log=paths.log_file,
    )


def template(kind: str) -> str:
    """Return the text of a template; it is inside the package in a wheel, beside it in a checkout."""
    from importlib.resources import files  # costs more than all else here, and only install and print need it

    folder, name = TEMPLATES[kind]
    package = files("orbitctl")
    for candidate in (package / "units" / folder / name, package / ".." / folder / name):
        if candidate.is_file():
            return candidate.read_text(encoding="utf-8")
    raise CommandError(f"the template {name} is missing from this installation", hint="Install orbit-sessions again.")


def render_service(installation: Installation) -> str:
    """Return orbitd.service for this installation. Raises: CommandError where systemd could not execute it."""
    # In the path of the program systemd accepts no quote and no backslash, escaped or not; in arguments it does.
    if not set("\"'\\").isdisjoint(installation.program[0]):
        raise CommandError(
            f"systemd does not execute a program with a quote or backslash in its path: {installation.program[0]}",
            hint="Install Orbit in another folder.",
        )
    lines = "".join(f'Environment="{_quoted(f"{name}={value}")}"\n' for name, value in installation.environment)
    command = " ".join(f'"{_quoted(word)}"' for word in installation.program)
    return template("service").replace("@ORBITD@", command).replace("@ENVIRONMENT@\n", lines)


def render_socket(installation: Installation) -> str:
    """Return orbitd.socket for this installation; the default path is written with the specifier %t."""
    path = "%t/orbit/orbitd.sock" if installation.runtime_socket else _specifiers(installation.socket)
    return template("socket").replace("@SOCKET@", path)


def render_plist(installation: Installation) -> str:
    """Return the launchd property list for this installation."""
    import plistlib  # brings in an XML parser

    job = plistlib.loads(template("plist").encode())
    job["ProgramArguments"] = list(installation.program)
    job["EnvironmentVariables"] = dict(installation.environment)
    job["Sockets"]["orbitd"]["SockPathName"] = installation.socket
    job["StandardErrorPath"] = installation.log
    variables = (value for _, value in installation.environment)
    for text in (*installation.program, *variables, installation.socket, installation.log):
        _refuse_unprintable(text)
    head, _, body = plistlib.dumps(job, sort_keys=False).decode().partition("\n")
    return f"{head}\n<!-- {MARKER}; `orbitctl service uninstall` takes it away. -->\n{body}"


def state_of(path: str) -> State:
    """Return whether a file is ours, missing, or foreign."""
    # The file may be of any type. O_NOFOLLOW: a symbolic link is refused (ELOOP). O_NONBLOCK: opening a FIFO does
    # not wait for a writer, and reading it does not either (open(2), fifo(7)).
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return "missing"
    except OSError:  # a link, or not readable to us
        return "foreign"
    try:
        return "ours" if MARKER.encode() in os.read(descriptor, HEAD_BYTES) else "foreign"
    except OSError:  # a folder (EISDIR), a FIFO with a silent writer (EAGAIN)
        return "foreign"
    finally:
        os.close(descriptor)


def refuse_foreign(paths: list[str]) -> None:
    """Check that no file at `paths` is foreign.

    Raises:
        CommandError: The message names every such file; nothing has been changed.
    """
    if foreign := [path for path in paths if state_of(path) == "foreign"]:
        raise CommandError(
            f"not written by orbitctl, so left alone: {', '.join(foreign)}",
            hint="Move it away, or keep it and do without `orbitctl service`. Nothing was changed.",
        )


def write(unit: Unit) -> bool:
    """Write a unit file atomically; return whether its content has changed."""
    if read(unit.path) == unit.text:
        return False
    folder = os.path.dirname(unit.path)
    make_private_folders(folder)
    # In the same folder, since rename(2) does not cross file systems; its name is not that of a unit.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{unit.name}.", dir=folder)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(unit.text)
            file.flush()
            sync_descriptor(file.fileno())  # before the rename: a crash must not leave the name with an empty file
        set_mode(temporary, 0o644)
        os.replace(temporary, unit.path)
        sync(folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return True


def read(path: str) -> str:
    """Return the text of a file; an empty one if it is not ours."""
    if state_of(path) != "ours":
        return ""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(MAX_UNIT_BYTES)


def remove(path: str) -> bool:
    """Remove a file if it is ours; return whether it was."""
    if state_of(path) != "ours":
        return False
    os.unlink(path)
    return True


def _carried(paths: ClientPaths) -> Iterator[tuple[str, str]]:
    """Yield the variables that decide where files are; the XDG specification has relative folders ignored."""
    for name in CARRIED_VARIABLES:
        value = paths.environ.get(name, "")
        if value.startswith("/"):
            yield name, os.path.normpath(value)
        elif value and name.startswith("ORBITD_"):
            yield name, paths.absolute(value, name, typed=False)


def _quoted(text: str) -> str:
    """Escape text for a double-quoted word of a unit file: C-style escapes, see systemd.syntax(7)."""
    return _specifiers(text.replace("\\", "\\\\").replace('"', '\\"'))


def _specifiers(text: str) -> str:
    """Escape `%`, which begins a specifier (systemd.unit(5)). Raises: CommandError for control characters."""
    _refuse_unprintable(text)
    return text.replace("%", "%%")


def _refuse_unprintable(text: str) -> None:
    """Refuse text that no unit file can hold: systemd and launchd read UTF-8. Raises: CommandError."""
    if not text.isprintable():  # a byte that is not UTF-8 is a surrogate here (PEP 383), which is not printable either
        raise CommandError(
            f"a unit file cannot hold this path: {path_text(text)}",
            hint="Use a path that is UTF-8 and without control characters.",
        )
