"""`orbitctl new`, `run`, `session create` and `session run`: sessions that are recorded, or started and attached."""

from __future__ import annotations

import functools
import itertools
import os
import shlex
from collections.abc import Callable
from typing import Any, cast

import click
from click.core import ParameterSource
from msgspec import UNSET, Struct
from msgspec.structs import replace

from orbit_os.shell import typed
from orbit_protocol import methods as m
from orbit_protocol import params as p
from orbit_protocol.errors import NameTaken, SessionNotFound
from orbit_protocol.settings import ShellIntegration
from orbit_protocol.text import BytePairs
from orbit_protocol.types import Record, Session, SessionConfigInput, SessionType, check_name
from orbitctl.app import App, checked
from orbitctl.client.client import Answer, ask_all
from orbitctl.commands.arguments import SHELL_INTEGRATION, WORKSPACE
from orbitctl.commands.history_note import note_history
from orbitctl.commands.session_table import show_session
from orbitctl.errors import CommandError, ExitCode

_CONTEXT: dict[str, Any] = {"allow_interspersed_args": False}
"""All that follows the first word of COMMAND belongs to COMMAND, options too."""


_MAX_PROGRAM_NAME = 240
"""Characters, so that a number fits behind it."""


class NewSession(Struct, frozen=True, kw_only=True):
    """The options of a new session, as they were given."""

    name: str | None = None
    session_type: SessionType | None = None
    host: str | None = None
    port: int | None = None
    user: str | None = None
    workspace: str | None = None
    cwd: str | None = None
    env: tuple[str, ...] = ()
    restart: bool = False
    reconnect: bool = False
    resume: str | None = None
    auto_remove: bool = False
    record: Record | None = None
    private: bool = False
    command: tuple[str, ...] = ()


_OPTIONS = (
    click.option("--name", metavar="NAME", help="A name that no other open session has."),
    click.option("--type", "session_type", type=click.Choice(["local", "ssh"]), help="Here, or over ssh [local]."),
    click.option("--host", metavar="HOST", help="The host of an ssh session; implies --type ssh."),
    click.option("--port", type=click.IntRange(1, 65_535), metavar="PORT", help="Its port."),
    click.option("--user", metavar="USER", help="The user there."),
    click.option("--workspace", type=WORKSPACE, metavar="WORKSPACE", help="The workspace that it belongs to."),
    click.option("--cwd", type=click.Path(file_okay=False), metavar="DIR", help="The folder that it starts in."),
    click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the program; stored and shown."),
    click.option("--restart", is_flag=True, help="Start it again after a reboot."),
    click.option("--reconnect", is_flag=True, help="Start ssh again when its connection is lost."),
    click.option("--resume", metavar="COMMAND", help="Start it again after a reboot, by this command."),
    click.option("--rm", "auto_remove", is_flag=True, help="Delete it, into the trash, when its program has ended."),
    click.option(
        "--record",
        type=click.Choice(["full", "screen", "none"]),
        help="What is kept of what it shows: all, screens and text, nothing [full].",
    ),
    click.option("--private", is_flag=True, help="Keep nothing of it on the disk; as --record none."),
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
)
_DETACH = click.option("-d", "--detach", is_flag=True, help="Run it in the background, and print which session it is.")
_DETACH_KEY = click.option(
    "--detach-key", metavar="KEY", envvar="ORBITCTL_DETACH_KEY", help="The keys that detach [C-\\]."
)


def new_session_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a new session to a command, which is called with a `NewSession` in their place."""

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> Any:
        new = NewSession(**{name: options.pop(name) for name in NewSession.__struct_fields__})
        return function(*args, new, **options)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(
    context_settings=_CONTEXT,
    epilog="""\b
Examples:
  orbitctl session create --name web -- npm run dev
  orbitctl session create --type ssh --host db.example --user ada --name db
  orbitctl session create --workspace shop -q
""",
)
@new_session_options
@click.pass_obj
def create(app: App, new: NewSession) -> None:
    """Record a new session and print it.

    COMMAND is what it runs; without one, the login shell. The session is recorded as
    active; this command starts nothing (`run` and `start` do).
    """
    show_session(app, create_session(app, new))


@click.command(
    context_settings=_CONTEXT,
    epilog="""\b
Examples:
  orbitctl session run
  orbitctl session run --name build -- make -j4
  orbitctl session run --detach --name web -- npm run dev
  orbitctl session run --host db.example --reconnect

C-\\ detaches; the program goes on. The exit code is the program's, 128+N if signal N
ended it, and 0 after a detach.
""",
)
@new_session_options
@_DETACH
@_DETACH_KEY
@SHELL_INTEGRATION
@click.pass_context
def run(
    ctx: click.Context,
    new: NewSession,
    detach: bool,
    detach_key: str | None,
    shell_integration: ShellIntegration | None,
) -> None:
    """Run a program in a new session, and attach to it.

    COMMAND runs in this folder, with this environment; without one, the login shell.
    """
    from orbitctl.attach.run_attach import run_detached

    app: App = ctx.obj
    if detach:
        show_session(app, run_detached(app, lambda: create_session(app, new, here=True), shell_integration))
    else:
        ctx.exit(_run_attached(app, lambda: create_session(app, new, here=True), detach_key, shell_integration))


class _NewCommand(click.Command):
    """`new [NAME] [OPTIONS] [-- COMMAND...]`: only what follows `--` is COMMAND, so that NAME may be left out."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the pieces of the usage line; click writes `[COMMAND]...`, without the `--`."""
        return ["[NAME]", "[OPTIONS]", "[-- COMMAND...]"]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read NAME and options up to `--`. Raises: click.UsageError."""
        dashes = args.index("--") if "--" in args else len(args)
        after = args[dashes + 1 :]
        rest = super().parse_args(ctx, args[:dashes])
        if (words := ctx.params["command"]) and not ctx.resilient_parsing:
            line = f"{typed('orbitctl new', ctx.params['called'])} -- {shlex.join([*words, *after])}"
            raise click.UsageError(f"the program stands after `--`: `{line}`", ctx)
        ctx.params["command"] = tuple(after)
        return rest


@click.command(
    "new",
    cls=_NewCommand,
    epilog="""\b
Examples:
  orbitctl new
  orbitctl new work
  orbitctl new work -d -- npm run dev
  orbitctl new -A work

C-\\ detaches; `orbitctl a work` comes back. The exit code is the program's, 128+N if signal N
ended it, and 0 after a detach.
""",
)
@click.argument("called", required=False, metavar="NAME")
@new_session_options
@_DETACH
@click.option("-A", "or_attach", is_flag=True, help="Attach to the session of this NAME if there is one.")
@_DETACH_KEY
@SHELL_INTEGRATION
@click.pass_context
def new(
    ctx: click.Context,
    new: NewSession,
    called: str | None,
    detach: bool,
    or_attach: bool,
    detach_key: str | None,
    shell_integration: ShellIntegration | None,
) -> None:
    """Start a program in a new session, and attach to it.

    COMMAND runs in this folder, with this environment; without one, the login shell. With -d it
    runs in the background, and its name and id are printed.
    """
    from orbitctl.attach.run_attach import run_detached
    from orbitctl.attach.terminal import require_terminal

    app: App = ctx.obj
    if called is not None and new.name not in (None, called):
        raise click.UsageError("NAME and --name are one: give it once")
    new = replace(new, name=new.name if called is None else called)
    if or_attach and new.name is None:
        raise click.UsageError("-A needs the NAME of the session to attach to")
    is_inside = app.this_session() is not None
    if not detach:
        require_terminal()
    try:
        if detach:
            _print_started(app, run_detached(app, lambda: create_session(app, new, here=True), shell_integration))
        elif is_inside:
            # `attach` moves the window that it is called in over to the new session, instead of nesting it.
            started = run_detached(app, lambda: create_session(app, new, here=True), shell_integration).value
            attach_to(ctx, started.id)
        else:
            ctx.exit(_run_attached(app, lambda: create_session(app, new, here=True), detach_key, shell_integration))
    except CommandError as error:
        if not isinstance(error.__cause__, NameTaken) or new.name is None:
            raise
        if not or_attach:
            hint = f"`{typed('orbitctl a', new.name)}` attaches to it."
            raise CommandError(error.message, error.exit_code, hint=hint) from error
        if detach:
            _print_started(app, app.ask(m.SESSION_FIND, p.ByRef(ref=new.name)))
        else:
            attach_to(ctx, new.name)


def attach_to(ctx: click.Context, ref: str) -> None:
    """Run `orbitctl attach` for a session, and leave with its exit code."""
    root = ctx.find_root()
    attach = cast("click.Group", root.command).get_command(root, "attach")
    assert attach is not None
    words = ["--", ref]
    if ctx.get_parameter_source("detach_key") is ParameterSource.COMMANDLINE:
        words = ["--detach-key", ctx.params["detach_key"], *words]
    with attach.make_context("attach", words, parent=root) as below:
        attach.invoke(below)


@click.command(
    "run",
    context_settings=_CONTEXT,
    epilog="""\b
Examples:
  orbitctl run htop -d 10
  orbitctl run -d --name web npm run dev
  orbitctl run --rm make -j4

C-\\ detaches; the program goes on. The exit code is the program's, 128+N if signal N
ended it, and 0 after a detach.
""",
)
@new_session_options
@_DETACH
@_DETACH_KEY
@SHELL_INTEGRATION
@click.pass_context
def run_program(
    ctx: click.Context,
    new: NewSession,
    detach: bool,
    detach_key: str | None,
    shell_integration: ShellIntegration | None,
) -> None:
    """Run a program in a new session that is named after it.

    Options stand before COMMAND: all that follows its first word is the program's. A second
    `htop` is named `htop-2`.
    """
    from orbitctl.attach.run_attach import run_detached

    app: App = ctx.obj
    if not (new.command or new.host):
        raise click.UsageError("Missing argument 'COMMAND'; `orbitctl new` starts a shell")

    def create() -> Answer[Session]:
        return create_session(app, new, here=True) if new.name is not None else _create_numbered(app, new)

    if detach:
        _print_started(app, run_detached(app, create, shell_integration))
    else:
        ctx.exit(_run_attached(app, create, detach_key, shell_integration))


def _run_attached(
    app: App,
    create: Callable[[], Answer[Session]],
    detach_key: str | None,
    shell_integration: ShellIntegration | None,
) -> int:
    """Create a session, run its program and attach to it; return the exit code. Raises: CommandError."""
    from orbitctl.attach import run_attach
    from orbitctl.attach.attachment import AttachResult

    created: list[Session] = []

    def create_and_keep() -> Answer[Session]:
        answer = create()
        created.append(answer.value)
        return answer

    try:
        return run_attach.run_attached(app, create_and_keep, detach_key, shell_integration)
    except CommandError as error:
        is_removed = created and created[0].config.auto_remove and isinstance(error.__cause__, SessionNotFound)
        if not is_removed:
            raise
    # The program had ended, and its session was deleted (`--rm`), before the attach reached the daemon. It is brought
    # back for as long as it takes to print what it has printed.
    session_id = created[0].id
    ended = app.call(m.SESSION_UNDELETE, p.ById(id=session_id))
    lines: list[str] = []
    try:
        if ended.config.record != "none":  # else its screen is gone with its program
            shown = app.call(m.SESSION_SCREEN, p.SessionScreen(id=session_id, scrollback=True))
            lines = shown.data.rstrip("\n").split("\n")
    finally:
        app.call(m.SESSION_DELETE, p.SessionDelete(id=session_id))
    for line in lines:
        app.out.line(line)
    result = AttachResult(reason="exited", exit_code=ended.exit_code, exit_signal=ended.exit_signal)
    run_attach.print_message(f"[{run_attach.describe_result(run_attach.short_name(ended), result)}]")
    return run_attach.exit_code_of(result)


def _create_numbered(app: App, new: NewSession) -> Answer[Session]:
    """Create a session that is named after its program, with the first number from 2 on where that is taken.

    A private one is named so: names are stored, and what it runs is not.
    """
    program = "private" if record_of(new) == "none" else new.command[0] if new.command else new.host or ""
    name = os.path.basename(program.rstrip("/"))[:_MAX_PROGRAM_NAME]
    try:
        name = check_name(name)
    except ValueError:  # of bytes that are no text, say: then it has no name
        return create_session(app, new, here=True)
    tried = name
    while True:
        try:
            return create_session(app, replace(new, name=tried), here=True)
        except CommandError as error:
            if not isinstance(error.__cause__, NameTaken):
                raise
        # Somebody else may take the number that is found here, too: then the next one is looked for.
        taken = {one.name for one in ask_all(app.client, m.SESSION_LIST, p.SessionList(), "sessions").value.sessions}
        tried = next(numbered for number in itertools.count(2) if (numbered := f"{name}-{number}") not in taken)


def _print_started(app: App, answer: Answer[Session]) -> None:
    app.show(answer, lambda one: app.out.line("  ".join(filter(None, (one.name, one.id)))), lambda one: [one.id])


def create_session(app: App, new: NewSession, *, here: bool = False) -> Answer[Session]:
    """Create a session.

    Args:
        app: The app.
        new: The options.
        here: Whether it is started at once, a local program in the current folder if the options name none.

    Raises:
        click.UsageError: The options contradict each other.
        CommandError: The daemon refuses, or the folder cannot be used.
    """
    kind: SessionType = new.session_type or ("ssh" if new.host else "local")
    if kind == "ssh" and not new.host:
        raise click.UsageError("an ssh session needs --host")
    if kind == "local" and (new.host or new.port or new.user):
        raise click.UsageError("--host, --port and --user are for --type ssh")
    # An ssh session, and one on another machine, has its folder there: none of this machine's is meant.
    is_ours = kind == "local" and not app.hosts
    if new.private and new.record not in (None, "none"):
        raise click.UsageError(f"--private keeps nothing, and --record {new.record} does")
    if (new.private or new.record == "none") and (new.restart or new.reconnect or new.resume):
        raise click.UsageError("a private session takes no --restart, --reconnect or --resume: nothing of it is kept")
    cwd = _absolute(new.cwd or "") if new.cwd or (here and is_ours) else None
    if cwd is not None and here and is_ours:
        _check_entry(cwd)
    with checked():
        config = SessionConfigInput(
            session_type=kind,
            host=new.host,
            port=new.port,
            username=new.user,
            workspace_id=app.workspace(new.workspace).id if new.workspace else None,
            # In bytes, of which only what is not UTF-8 is sent as such: words, folders and variables may hold any.
            command_bytes=os.fsencode(shlex.join(new.command)) if new.command else UNSET,
            cwd_bytes=UNSET if cwd is None else os.fsencode(cwd),
            env_bytes=_variables(new.env) if new.env else UNSET,
            restart=new.restart,
            reconnect=new.reconnect,
            resume=new.resume,
            auto_remove=new.auto_remove,
            record=record_of(new),
        )
        params = p.SessionCreate(name=new.name, config=config)
    answer = app.ask(m.SESSION_CREATE, params)
    if here:
        note_history(app, answer.value)
    return answer


def record_of(new: NewSession) -> Record:
    """Return what is kept of what a new session shows."""
    return "none" if new.private else new.record or "full"


def _absolute(folder: str) -> str:
    """Return the absolute path of a folder, of the current one for none. Raises: CommandError."""
    try:
        return os.path.abspath(folder)
    except FileNotFoundError as error:
        about = f"--cwd is relative to the current folder, which has been deleted: {folder}"
        raise CommandError(
            about if folder else "the current folder, which the program would start in, has been deleted",
            ExitCode.USAGE,
            hint="Change to another folder, or give the whole path with --cwd.",
        ) from error


def _check_entry(folder: str) -> None:
    """Refuse a folder that no program can start in: it would be started in another one. Raises: CommandError."""
    try:
        os.stat(os.path.join(folder, "."))  # which takes the permission to enter it (path_resolution(7))
    except OSError as error:
        raise CommandError(
            f"the program cannot start in {folder}: {error.strerror}",
            ExitCode.USAGE,
            hint="Change to another folder, or name one with --cwd.",
        ) from error


def _variables(assignments: tuple[str, ...]) -> BytePairs:
    pairs = [assignment.partition("=") for assignment in assignments]
    if bad := [name for name, equals, _ in pairs if not (name and equals)]:
        raise click.UsageError(f"--env takes NAME=VALUE, not {bad[0]!r}")
    return [(os.fsencode(name), os.fsencode(value)) for name, _, value in pairs]
