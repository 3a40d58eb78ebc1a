"""`orbitctl workspace export|import`: a workspace as a file that a project keeps in its repository.

The file is a document as `workspace.export` returns it, laid out to be read, edited and compared line by line. The
layout's own JSON stands in it as it is, on one line: not one letter of it changes on the way. Folders of this machine's
programs are written for other machines and other people, too: `./api` is below the file's folder, `~/src` below HOME.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import stat
from typing import Any

import click
import msgspec
from msgspec import Raw, Struct, to_builtins

from orbit_os.files import set_mode
from orbit_os.shell import typed
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import NameTaken
from orbit_protocol.json_text import MAX_NESTING, one_line
from orbit_protocol.plain_words import in_plain_words
from orbit_protocol.text import from_text, text_and_bytes
from orbit_protocol.types import Session, SessionConfig, SessionDocument, Workspace, WorkspaceDocument
from orbitctl.app import App
from orbitctl.client.client import ask_all
from orbitctl.commands.arguments import WORKSPACE, read_bytes
from orbitctl.commands.session_table import label
from orbitctl.commands.workspace import show_workspace
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.text import plural

_MARK = "orbit_workspace"
"""The member that every document has."""
_MAX_EXPORT = 64 << 20
"""Bytes: a document is smaller, as it has to fit in a message."""


class Places(Struct, frozen=True, kw_only=True):
    """What folders of a file are relative to; None where nothing can be.

    Attributes:
        file_folder: The file's own folder, for `./`.
        home: The user's HOME, for `~/`.
    """

    file_folder: bytes | None
    home: bytes | None

    @classmethod
    def of(cls, app: App, file: str, *, reads: bool) -> Places:
        """Return those of a file; of stdin the current folder counts, of stdout none: it may lead anywhere."""
        if app.hosts:  # the folders are on another machine
            return cls(file_folder=None, home=None)
        home = os.path.expanduser("~")
        folder = None
        if file != "-":
            # Of a link, the folder that it is in: people link to files of a project, and from it to others.
            folder = os.path.realpath(os.path.dirname(os.path.abspath(file)))
        elif reads:
            folder = os.path.realpath(".")
        return cls(
            file_folder=None if folder is None else os.fsencode(folder),
            home=os.fsencode(os.path.normpath(home)) if os.path.isabs(home) else None,
        )

    def shorten(self, folder: bytes) -> bytes:
        """Return a folder as the file has it."""
        for base, short in ((self.file_folder, b"."), (self.home, b"~")):
            # In a folder, or HOME, that is / everything is: then the path says more.
            if (
                base not in (None, b"/")
                and (folder + b"/").startswith(base + b"/")
                and os.path.normpath(folder) == folder
            ):
                return short + folder[len(base) :]
        return folder

    def resolve(self, folder: bytes) -> bytes:
        """Return the absolute folder for one of the file. Raises: ValueError, a sentence without its subject."""
        if folder.startswith(b"/"):
            return folder
        first, _, rest = folder.partition(b"/")
        known = {b".": (self.file_folder, "the file's folder"), b"~": (self.home, "HOME")}
        if first not in known:
            raise ValueError("is no folder of a file: those are absolute, or begin with ./ (the file's folder) or ~/")
        base, name = known[first]
        if base is None:
            raise ValueError(f"is relative to {name}, which is not known for another machine")
        found = os.path.normpath(os.path.join(base, rest)) if rest else base
        if not (found + b"/").startswith(base.rstrip(b"/") + b"/"):
            raise ValueError(f"leads out of {name}: write the whole path, or one from ~/ on")
        return found


@click.command(
    epilog="""\b
Examples:
  orbitctl workspace export shop -o orbit.json
  orbitctl workspace export shop | less
""",
)
@click.argument("workspace", type=WORKSPACE)
@click.option(
    "-o", "--output", "file", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE|-", default="-",
    help="Write it to a file [stdout].",
)  # fmt: skip
@click.pass_obj
def export(app: App, workspace: str, file: str) -> None:
    """Write a workspace as JSON, to keep it in a project.

    That is its layout, and what its sessions run and where; nothing of their screens. `workspace import`
    makes a workspace of it again, here or on another machine. Below the file's folder, folders are written
    as ./api, below HOME as ~/src.
    Variables of --env are written with their values: look at them before you share the file.
    """
    found = app.workspace(workspace)
    answer = app.ask(m.WORKSPACE_EXPORT, p.ById(id=found.id))
    if app.json and file == "-":
        app.out.json(answer.raw)
        return
    text = to_file(answer.value, Places.of(app, file, reads=False))
    if file == "-":
        if app.out.terminal:
            for line in text.decode().splitlines():
                app.out.line(line)
        else:
            app.out.bytes(text)
    else:
        _write(file, text)
        message = f"wrote {plural(len(answer.value.sessions), 'session')} of workspace {found.name} to {file}"
        app.done(answer, message, found.id)
    if not app.quiet:
        _warn_of_variables(app, answer.value)


def _warn_of_variables(app: App, document: WorkspaceDocument) -> None:
    with_variables = [one.name or one.id[:8] for one in document.sessions if one.config.env]
    if with_variables:
        names = sorted({name for one in document.sessions for name in one.config.env or ()})
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        of = ", ".join(with_variables[:8]) + (" and others" if len(with_variables) > 8 else "")
        app.out.problem("warning", f"it has variables with their values: {shown} (of {of})", "33")


def to_file(document: WorkspaceDocument, places: Places) -> bytes:
    """Return a document as the text of a file: one member a line, in one order, defaults left out."""
    sessions = [_session_of_file(each, places) for each in document.sessions]
    active = (
        "" if document.active_session_id is None else f'  "active_session_id": {_json(document.active_session_id)},\n'
    )
    listed = _json(sessions, indent=2).replace("\n", "\n  ")
    text = (
        f'{{\n  "{_MARK}": {document.orbit_workspace},\n  "name": {_json(document.name)},\n'
        f'  "layout": {{\n    "layout_type": {_json(document.layout.layout_type)},\n    "config": '
    )
    # In bytes: nothing may decode the layout, or lay it out anew.
    return text.encode() + bytes(document.layout.config) + f'\n  }},\n{active}  "sessions": {listed}\n}}\n'.encode()


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _session_of_file(session: SessionDocument, places: Places) -> dict[str, Any]:
    """Return a session as plain objects, without what it need not say."""
    usual = to_builtins(SessionConfig(session_type="local"))
    config: dict[str, Any] = {"session_type": session.config.session_type}
    for field, value in to_builtins(session.config).items():
        if value != usual.get(field):
            config[field] = dict(sorted(value.items())) if isinstance(value, dict) else value
    if session.config.cwd is not None and session.config.session_type == "local":
        text, companion = text_and_bytes(places.shorten(from_text(session.config.cwd, session.config.cwd_bytes)))
        config["cwd"] = text
        config.pop("cwd_bytes", None)
        if isinstance(companion, bytes):
            config["cwd_bytes"] = base64.b64encode(companion).decode()
    found: dict[str, Any] = {"id": session.id, "name": session.name, "config": config}
    if session.labels:
        found["labels"] = dict(sorted(session.labels.items()))
    if session.cols is not None and session.rows is not None:
        found |= {"cols": session.cols, "rows": session.rows}
    return found


def _write(file: str, text: bytes) -> None:
    """Replace a file as a whole, unless it is something else than an exported workspace. Raises: CommandError."""
    target = os.path.realpath(file)
    try:
        mode = _mode_of_export(target, file)
        # In the same folder, so that the rename replaces it in one step, and a full disk leaves it as it was.
        beside = f"{target}.{os.getpid()}.new"
        with open(beside, "xb") as opened:
            try:
                opened.write(text)
                opened.flush()
                if mode is not None:
                    set_mode(beside, mode, opened.fileno())
                os.replace(beside, target)
            except BaseException:
                os.unlink(beside)
                raise
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}", ExitCode.USAGE) from error


def _mode_of_export(target: str, file: str) -> int | None:
    """Return the mode of the export that is replaced, None where there is none. Raises: CommandError, OSError."""
    try:
        found = os.stat(target)
    except FileNotFoundError:
        return None
    is_small = found.st_size <= _MAX_EXPORT
    if stat.S_ISREG(found.st_mode) and is_small and (not found.st_size or _is_export(read_bytes(target))):
        return stat.S_IMODE(found.st_mode)
    raise CommandError(
        f"{file} is there already, and is no exported workspace",
        ExitCode.CONFLICT,
        hint="Name another file, or remove this one.",
    )


def _is_export(data: bytes) -> bool:
    try:
        return _MARK in msgspec.json.decode(one_line(data), type=dict[str, Raw])
    except ValueError:
        return False


@click.command(
    "import",
    epilog="""\b
Examples:
  orbitctl workspace import orbit.json
  orbitctl workspace import orbit.json --name shop2

`orbitctl open shop` starts the sessions.
""",
)
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE|-")
@click.option("--name", metavar="NAME", help="The workspace's name [as in the file].")
@click.pass_obj
def import_(app: App, file: str, name: str | None) -> None:
    """Make a workspace of an exported one, and print it.

    Its sessions are not started. They keep their ids where those are free; else they get new ones, and so
    does the layout. One whose name is taken is named NAME-2. In the file, ./ is the file's folder, for `-`
    the current one.
    """
    params = from_file(read_bytes(file), file, name, Places.of(app, file, reads=True))
    try:
        answer = app.ask(m.WORKSPACE_IMPORT, params)
    except CommandError as error:
        if not isinstance(error.__cause__, NameTaken):
            raise
        again = typed("orbitctl workspace import", file, options="--name NAME")
        hint = f"`{again}` gives this one another name; `{typed('orbitctl open', params.name or params.document.name)}`"
        raise CommandError(error.message, error.exit_code, hint=f"{hint} opens the one that is there.") from error
    show_workspace(app, answer)
    if not (app.json or app.quiet):
        _tell_what_differs(app, params.document, answer.value)


def _tell_what_differs(app: App, document: WorkspaceDocument, made: Workspace) -> None:
    """Print which sessions got another name or id than the file has, and what comes next."""
    found = p.SessionList(status=["active", "detached", "terminated"], workspace_id=made.id)
    sessions: list[Session] = ask_all(app.client, m.SESSION_LIST, found, "sessions").value.sessions
    if len(sessions) == len(document.sessions):  # else another client has changed them already
        for given, one in zip(document.sessions, sessions, strict=True):
            if given.name != one.name:
                app.out.note(f"{label(one)} is not named {given.name}, which another session is")
        renumbered = sum(given.id != one.id for given, one in zip(document.sessions, sessions, strict=True))
        if renumbered:
            app.out.note(f"{plural(renumbered, 'session')} got a new id, in the layout too, as another has theirs")
    app.out.note(f"`{typed('orbitctl open', made.name)}` starts {plural(len(sessions), 'session')}")


def from_file(data: bytes, file: str, name: str | None, places: Places) -> p.WorkspaceImport:
    """Return the params of an import, of a file's content. Raises: CommandError, which names the place."""
    source = "stdin" if file == "-" else file
    try:
        fields = msgspec.json.decode(one_line(data, MAX_NESTING - 2), type=dict[str, Raw])
    except msgspec.ValidationError as error:
        raise CommandError(f"{source} is no exported workspace: it is no JSON object", ExitCode.USAGE) from error
    except ValueError as error:
        raise CommandError(f"{source} is no exported workspace: it is {error}", ExitCode.USAGE) from error
    if _MARK not in fields:
        raise CommandError(
            f"{source} is no exported workspace: it has no {_MARK!r}",
            ExitCode.USAGE,
            hint="`orbitctl workspace export NAME -o FILE` writes one.",
        )
    version = msgspec.json.decode(fields[_MARK])
    if isinstance(version, int) and version > 1:
        raise CommandError(
            f"{source} is of version {version}, and this orbitctl reads version 1",
            ExitCode.USAGE,
            hint="A newer Orbit has written it; update this one.",
        )
    try:
        if "sessions" in fields:
            fields["sessions"] = Raw(msgspec.json.encode(_resolved(fields["sessions"], places)))
        encoded = msgspec.json.encode({"document": fields, "name": name})
        return msgspec.json.decode(encoded, type=p.WorkspaceImport)
    except ValueError as error:  # a msgspec.ValidationError is one
        words = in_plain_words(str(error), lambda path: f"'{path.removeprefix('document.')}'")
        raise CommandError(f"{source}: {words}", ExitCode.USAGE) from error


def _resolved(raw: Raw, places: Places) -> Any:
    """Return the sessions of a file with absolute folders; what is of another type is left to the check of all.

    Raises:
        ValueError: It names the place.
    """
    sessions = msgspec.json.decode(raw)
    for place, session in enumerate(sessions if isinstance(sessions, list) else ()):
        config = session.get("config") if isinstance(session, dict) else None
        if not isinstance(config, dict) or config.get("session_type") != "local":
            continue
        folder = _folder(config)
        if folder:
            try:
                text, companion = text_and_bytes(places.resolve(folder))
            except ValueError as error:
                raise ValueError(f"`sessions[{place}].config.cwd` {error}") from error
            config["cwd"], config["cwd_bytes"] = text, companion if isinstance(companion, bytes) else None
    return sessions


def _folder(config: dict[str, Any]) -> bytes:
    """Return the folder of a configuration as bytes; nothing where it has none that can be read."""
    text, companion = config.get("cwd"), config.get("cwd_bytes")
    if isinstance(companion, str):
        try:
            return base64.b64decode(companion, validate=True)
        except binascii.Error:
            return b""
    return text.encode(errors="surrogatepass") if isinstance(text, str) else b""
