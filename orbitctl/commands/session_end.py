"""`orbitctl kill`, `rm`, `undelete`, `prune`, `session detach` and `forget`: how sessions end, and are deleted.

Each takes several sessions: one that fails is reported by what the user typed, and the others are done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import click

from orbit_os.shell import typed
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import MethodNotFound, NameTaken
from orbit_protocol.types import Session
from orbitctl.app import App
from orbitctl.client.client import ask_all
from orbitctl.commands.arguments import SESSION, WHEN, OptionalSession
from orbitctl.commands.session_table import label, to_delete
from orbitctl.errors import CommandError, ExitCode, candidate_lines, candidate_of
from orbitctl.ui.text import plural, size

_MIN_PREFIX = 4
"""Characters of an id that may stand for it, as in `session.find`."""
_SHOWN = 12
"""How many sessions a question names; the others are counted."""


def for_each(app: App, refs: Sequence[str], act: Callable[[str], None]) -> int:
    """Do something to each of some sessions, once.

    Returns:
        The exit code: 0, or that of the first that failed.

    Raises:
        CommandError: No daemon answers, which the others would be told as well; or the only one has failed.
    """
    code = ExitCode.OK
    refs = list(dict.fromkeys(refs))
    for ref in refs:
        try:
            act(ref)
        except CommandError as error:
            if len(refs) == 1 or error.exit_code in (ExitCode.UNREACHABLE, ExitCode.PROTOCOL):
                raise
            failed = app.print_error(error, "" if ref in error.message else f"{ref}: ")
            code = code or failed
    return code


@click.command()
@click.argument("sessions", type=SESSION, nargs=-1, metavar="[SESSION...]")
@click.pass_obj
def detach(app: App, sessions: tuple[str, ...]) -> int:
    """Detach every client from sessions, which go on.

    In a session, without a SESSION: from this one. With --json, a line of JSON for each.
    """

    def detach_one(ref: str) -> None:
        answer = app.ask_session(ref)
        found, said = answer.value, "was detached already"
        if found.status != "detached":
            answer, said = app.ask(m.SESSION_DETACH, p.ById(id=found.id)), "is detached"
        app.done(answer, f"{label(found)} {said}", found.id)

    return for_each(app, sessions or [app.named_or_this(None)], detach_one)


@click.command(
    epilog="""\b
Examples:
  orbitctl kill web
  orbitctl kill web api
""",
)
@click.argument("sessions", type=SESSION, nargs=-1, required=True, metavar="SESSION...")
@click.pass_obj
def terminate(app: App, sessions: tuple[str, ...]) -> int:
    """End sessions; their records and their screens stay.

    Their programs get SIGHUP, and SIGKILL 5 s later. One that has ended already is no error.
    With --json, a line of JSON for each.
    """

    def end(ref: str) -> None:
        found = app.session(ref)  # also where all connections are used: then sessions are listed, and none is found
        if found.status == "terminated":
            answer, said = app.ask_session(found.id), "had ended already"
        else:
            answer, said = app.ask(m.SESSION_TERMINATE, p.ById(id=found.id)), "has ended"
        app.done(answer, f"{label(found)} {said}", found.id)

    return for_each(app, sessions, end)


@click.command(
    epilog="""\b
Examples:
  orbitctl rm web
  orbitctl rm --yes web api
  orbitctl rm --purge web
""",
)
@click.argument("sessions", type=SESSION, nargs=-1, required=True, metavar="SESSION...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--purge", is_flag=True, help="Delete them for good, with their screens; also out of the trash.")
@click.pass_obj
def delete(app: App, sessions: tuple[str, ...], yes: bool, purge: bool) -> int:
    """Delete sessions, into the trash; what still runs is ended.

    `orbitctl undelete` brings them back, until the trash is emptied of them after 7 days
    (`trash_retention_secs`). With --json, a line of JSON for each.
    """
    targets: dict[str, tuple[str, str]] = {}

    running: set[str] = set()

    def find_session(ref: str) -> Session:
        found = app.session(ref)
        if found.live:
            running.add(found.id)
        return found

    def find(ref: str) -> None:
        try:
            session_id, shown = to_delete(find_session, ref)
        except CommandError as error:
            if not purge or error.exit_code is not ExitCode.NOT_FOUND:
                raise
            found = find_deleted(app, ref)
            session_id, shown = found.id, label(found)
        if session_id not in [found for found, _ in targets.values()]:  # by its id, say, and by its name
            targets[ref] = session_id, shown

    code = for_each(app, sessions, find)
    if not targets:
        return code
    _require_trash(app, purge=purge)
    names = _listed([f"{shown}{' (still runs)' if found in running else ''}" for found, shown in targets.values()])
    app.confirm(f"Delete {names} for good?" if purge else f"Delete {names}?", yes)
    deleted: list[str] = []

    def remove(ref: str) -> None:
        session_id, shown = targets[ref]
        answer = app.ask(m.SESSION_DELETE, p.SessionDelete(id=session_id, purge=purge))
        app.done(answer, f"deleted session {shown}{' for good' if purge else ''}", session_id)
        deleted.append(ref)

    failed = for_each(app, list(targets), remove)
    if not purge:
        _hint_at_undo(app, deleted)
    return code or failed


@click.command(epilog="Example: orbitctl undelete web")
@click.argument("sessions", type=SESSION, nargs=-1, required=True, metavar="SESSION...")
@click.pass_obj
def undelete(app: App, sessions: tuple[str, ...]) -> int:
    """Bring deleted sessions back from the trash.

    By id, a unique prefix of one, or name: of several of that name, the one deleted last.
    `orbitctl ls --deleted` shows what is there.
    """

    def bring_back(ref: str) -> None:
        found = find_deleted(app, ref)
        try:
            answer = app.ask(m.SESSION_UNDELETE, p.ById(id=found.id))
        except CommandError as error:
            if isinstance(error.__cause__, NameTaken) and found.name:
                hint = f"Give that one another name: `{typed('orbitctl session rename', found.name, 'NEW-NAME')}`."
                raise CommandError(error.message, error.exit_code, hint=hint) from error
            raise
        app.done(answer, f"brought {label(found)} back", found.id)

    return for_each(app, sessions, bring_back)


@click.command(
    epilog="""\b
Examples:
  orbitctl prune
  orbitctl prune --older 7d --yes
""",
)
@click.option("--older", type=WHEN, metavar="AGE", help="Only what ended so long ago (7d, 12h), or before this time.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def prune(app: App, older: datetime | None, yes: bool) -> int:
    """Delete all sessions that have ended, into the trash.

    Those of a workspace stay: `orbitctl open` starts them again.
    With --json, a line of JSON for each.
    """
    ended = ask_all(app.client, m.SESSION_LIST, p.SessionList(status=["terminated"]), "sessions").value.sessions
    ended = [one for one in ended if older is None or one.last_active <= older]
    found = {one.id: one for one in ended if one.workspace_id is None}
    if len(found) < len(ended) and not (app.json or app.quiet):
        app.out.note(f"left {plural(len(ended) - len(found), 'ended session')} of workspaces for `orbitctl open`")
    if not found:
        if not (ended or app.json or app.quiet):
            app.out.note("no session has ended" if older is None else "no session has ended before that time")
        return ExitCode.OK
    _require_trash(app)
    what = f"{plural(len(found), 'ended session')} ({_listed([one.name or one.id[:8] for one in found.values()])})"
    app.confirm(f"Delete {what}?", yes)
    deleted: list[str] = []

    def remove(session_id: str) -> None:
        answer = app.ask(m.SESSION_DELETE, p.SessionDelete(id=session_id))
        if app.json or app.quiet:
            app.done(answer, "", session_id)
        deleted.append(session_id)

    code = for_each(app, list(found), remove)
    if not (app.json or app.quiet):
        app.out.note(f"deleted {plural(len(deleted), 'ended session')}")
        _hint_at_undo(app, [found[one].id[:8] for one in deleted])
    return code


@click.command(
    epilog="""\b
Examples:
  orbitctl session forget web --before '1 hour ago'
  orbitctl session forget web --all --yes
""",
)
@click.argument("session", cls=OptionalSession, type=SESSION, required=False)
@click.option("--before", type=WHEN, metavar="WHEN", help="What it showed before: 2h, '10 minutes ago', 15:10, a date.")
@click.option("--all", "is_all", is_flag=True, help="Everything; a session that runs goes on with a blank screen.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def forget(app: App, session: str | None, before: datetime | None, is_all: bool, yes: bool) -> int:
    """Erase what a session has shown, from the disk too.

    Its film and text, saved screens, titles, command lines and notifications. With --before, what stands on the screen
    stays. It cannot be undone. Backups are not changed: those that still hold it are named.
    """
    if (before is None) != is_all:
        raise click.UsageError("give --before WHEN or --all")
    found = app.session(app.named_or_this(session))
    when = "" if before is None else f" before {before.astimezone():%Y-%m-%d %H:%M:%S}"
    app.confirm(f"Erase for good {'what' if when else 'all that'} {label(found)} has shown{when}?", yes)
    answer = app.ask_long(m.HISTORY_FORGET, p.HistoryForget(session_id=found.id, before=before), "erasing")
    erased, name = answer.value.bytes, label(found)
    app.done(
        answer, f"erased {size(erased)} of {name}" if erased else f"nothing of {name} was there to erase", found.id
    )
    if answer.value.backups and not (app.json or app.quiet):
        app.out.problem("note", "these files still hold some of it; delete those that you do not need:", "33")
        for path in answer.value.backups:
            app.out.note(path)
    return ExitCode.OK


def find_deleted(app: App, ref: str) -> Session:
    """Return a session of the trash: by id, by name the one that was deleted last, or by a prefix of its id.

    Raises:
        CommandError: There is none, or there are several.
    """
    there = ask_all(app.client, m.SESSION_LIST_DELETED, p.SessionListDeleted(), "sessions").value.sessions
    found = [one for one in there if one.id == ref] or [one for one in there if one.name == ref][:1]
    if not found and len(ref) >= _MIN_PREFIX:
        found = [one for one in there if one.id.startswith(ref)]
    if len(found) > 1:
        raise CommandError(
            f"{len(found)} deleted sessions have an id that begins with {ref!r}",
            ExitCode.CONFLICT,
            hint="Give more characters of the id.",
            details=candidate_lines([candidate_of(one) for one in found]),
        )
    if not found:
        raise CommandError(
            f"no deleted session is {ref!r}",
            ExitCode.NOT_FOUND,
            hint="`orbitctl ls --deleted` shows those that are in the trash.",
        )
    return found[0]


def _require_trash(app: App, *, purge: bool = False) -> None:
    """Refuse what an older daemon would delete for good, unless that is what the user wants. Raises: CommandError."""
    try:
        if not purge:
            app.call(m.SESSION_LIST_DELETED, p.SessionListDeleted(limit=1))
    except CommandError as error:
        if isinstance(error.__cause__, MethodNotFound):
            message = "the running orbitd is older than this orbitctl, and has no trash: it would delete for good"
            raise CommandError(message, error.exit_code, hint=error.hint) from error.__cause__
        raise


def _listed(names: list[str]) -> str:
    """Return names with commas between them, the first of many."""
    more = len(names) - _SHOWN
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_SHOWN])} and {more} more"


def _hint_at_undo(app: App, refs: list[str]) -> None:
    """Say how what was deleted comes back."""
    if not refs or app.json or app.quiet:
        return
    hint = f"`{typed('orbitctl undelete', *refs)}` brings {'it' if len(refs) == 1 else 'them'} back"
    if len(refs) > _SHOWN:
        hint = "`orbitctl undelete` brings them back, by the names that `orbitctl ls --deleted` shows"
    app.out.problem("hint", hint, "36")
