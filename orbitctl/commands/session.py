"""`orbitctl session`: list, show and change sessions; its other commands are in the modules of `LAZY`."""

from __future__ import annotations

import shlex
from typing import Literal, cast

import click

from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.types import Session
from orbitctl.app import App, checked
from orbitctl.commands.arguments import SESSION, WORKSPACE, OptionalSession
from orbitctl.commands.group import LazyGroup
from orbitctl.commands.session_table import details, show_session

LAZY = {
    "list": "orbitctl.commands.session_ls:list_",
    "create": "orbitctl.commands.session_create:create",
    "run": "orbitctl.commands.session_create:run",
    **{name: f"orbitctl.commands.session_live:{name}" for name in ("start", "send", "screen", "wait", "signal")},
    "attach": "orbitctl.commands.session_attach:attach",
    "logs": "orbitctl.commands.session_logs:logs",
    "export": "orbitctl.commands.session_export:export",
    "replay": "orbitctl.commands.session_replay:replay",
    **{
        name: f"orbitctl.commands.session_end:{name}"
        for name in ("detach", "terminate", "delete", "undelete", "prune", "forget")
    },
    "snapshot": "orbitctl.commands.snapshot:save",
}
"""Commands of this group that are in other modules, imported when they are called."""


@click.group(cls=LazyGroup, lazy=LAZY)
def session() -> None:
    """Create, list and change sessions.

    A session is a terminal that is kept: `active` while a client is attached, `detached`
    while none is, `terminated` once it has ended, `archived` after `maintenance archive`.
    """


@session.command()
@click.argument("session", cls=OptionalSession, type=SESSION, required=False)
@click.pass_obj
def show(app: App, session: str | None) -> None:
    """Show everything about one session.

    In a session, without a SESSION: about this one.
    """
    answer = app.ask_session(app.named_or_this(session), or_begins=True)
    app.show(answer, lambda one: details(app, one), lambda one: [one.id])


@session.command(epilog="Example: orbitctl session rename web api")
@click.argument("session", cls=OptionalSession, type=SESSION, required=False)
@click.argument("name", required=False)
@click.option("--none", "unname", is_flag=True, help="Remove its name.")
@click.pass_obj
def rename(app: App, session: str | None, name: str | None, unname: bool) -> None:
    """Give a session another name, or none.

    In a session, a NAME alone is for this one.
    """
    if name is None and not unname and app.this_session():
        session, name = None, session
    if (name is None) != unname:
        raise click.UsageError("give a NAME or --none")
    found = app.session(app.named_or_this(session))
    with checked():
        params = p.SessionRename(id=found.id, name=name)
    show_session(app, app.ask(m.SESSION_RENAME, params))


@session.command(
    epilog="""\b
Examples:
  orbitctl label web tier=front team=shop
  orbitctl label web tier-
  orbitctl ls --label team=shop
""",
)
@click.argument("session", type=SESSION)
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE | KEY-]...")
@click.pass_obj
def label(app: App, session: str, labels: tuple[str, ...]) -> None:
    """Set labels of a session, and remove them with `KEY-`.

    Without any, print those that it has. `--label` of a list chooses by them.
    """
    found = app.ask_session(session, or_begins=not labels)
    changes: dict[str, str | None] = {}
    for word in labels:
        key, equals, value = word.partition("=")
        if not equals and (len(word) < 2 or not word.endswith("-")):
            raise click.UsageError(f"{word!r} is neither KEY=VALUE nor KEY-")
        changes[key if equals else word[:-1]] = value if equals else None
    if changes:
        with checked():
            params = p.SessionSetLabels(id=found.value.id, labels=changes)
        found = app.ask(m.SESSION_SET_LABELS, params)

    def draw(one: Session) -> None:
        for key, value in sorted(one.labels.items()):
            app.out.line(f"{key}={value}")

    app.show(found, draw, lambda one: [one.id])


class _Resume(click.Command):
    """`resume [SESSION] [COMMAND...]`: which word is the session depends on `--` and on where it runs."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the pieces of the usage line."""
        return ["[OPTIONS]", "[SESSION]", "[--]", "[COMMAND...]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options, and which word is the session. Raises: click.UsageError."""
        dashes = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:dashes])
        app, words = ctx.find_object(App), ctx.params["words"]

        def named(word: str) -> str:
            return SESSION.convert(word, None, ctx)

        if dashes < len(args):
            if len(words) > 1:
                raise click.UsageError("before `--` stands the SESSION alone", ctx)
            ctx.params["named"] = ctx.params["named"] or (named(words[0]) if words else None)
            ctx.params["words"] = tuple(args[dashes + 1 :])
        elif words[1:] and words[1].startswith("-") and not (app and app.this_session()):
            # `resume work --clear`: these are options, since no command begins with a dash.
            ctx.params.clear()
            rest = super().parse_args(ctx, [*args[: len(args) - len(words)], "--session", *words])
        # Inside a session all words are the command's, but where there is none: `--clear work`.
        elif words and not (ctx.params["named"] or (app and app.this_session() and not ctx.params["clear"])):
            ctx.params["named"], ctx.params["words"] = named(words[0]), words[1:]
        return rest


@session.command(
    cls=_Resume,
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  orbitctl resume web
  orbitctl resume web -- npm run dev
  orbitctl resume web --clear
""",
)
@click.option("--session", "named", type=SESSION, metavar="SESSION", help="The session; inside one, this one.")
@click.option("--clear", is_flag=True, help="Remove the command: it comes back as any other.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def resume(app: App, named: str | None, clear: bool, words: tuple[str, ...]) -> None:
    """Set the command that starts a session again after a reboot.

    It runs in the place of the session's own, in its folder, under its saved screen. Inside a
    session all words are the COMMAND, for this one; elsewhere the first is the SESSION. One word
    is a whole command line, as in 'vim -r'. Without a COMMAND, print it.
    """
    if clear and words:
        raise click.UsageError("give a COMMAND or --clear")
    found = app.ask_session(app.named_or_this(named))
    if words or clear:
        command = None if clear else words[0] if len(words) == 1 else shlex.join(words)
        with checked():
            params = p.SessionSetResume(id=found.value.id, command=command)
        found = app.ask(m.SESSION_SET_RESUME, params)
    app.show(found, lambda one: app.out.line(one.config.resume or "-"), lambda one: [one.id])


@session.command(epilog="Example: orbitctl session move api shop")
@click.argument("session", type=SESSION)
@click.argument("workspace", type=WORKSPACE, required=False)
@click.option("--none", "out", is_flag=True, help="Take it out of its workspace.")
@click.pass_obj
def move(app: App, session: str, workspace: str | None, out: bool) -> None:
    """Move a session to a workspace, or out of one."""
    if (workspace is None) != out:
        raise click.UsageError("give a WORKSPACE or --none")
    found = app.session(session)
    target = app.workspace(workspace).id if workspace is not None else None
    show_session(app, app.ask(m.SESSION_MOVE, p.SessionMove(id=found.id, workspace_id=target)))


@session.command("set-status")
@click.argument("session", type=SESSION)
@click.argument("status", type=click.Choice(["active", "detached", "terminated"]))
@click.pass_obj
def set_status(app: App, session: str, status: str) -> None:
    """Set the status of a session that another program hosts."""
    params = p.SessionUpdateStatus(
        id=app.session(session).id, status=cast("Literal['active', 'detached', 'terminated']", status)
    )
    show_session(app, app.ask(m.SESSION_UPDATE_STATUS, params))


@session.command()
@click.argument("session", type=SESSION)
@click.pass_obj
def restore(app: App, session: str) -> None:
    """Bring an archived session back, terminated."""
    show_session(app, app.ask(m.SESSION_RESTORE_ARCHIVED, p.ById(id=app.session(session).id)))
