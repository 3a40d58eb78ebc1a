"""The root of the command tree, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any, TextIO

import click

from orbit_protocol import VERSION
from orbitctl.app import App
from orbitctl.commands.group import LazyGroup, add_common_options
from orbitctl.errors import CommandError, ExitCode
from orbitctl.ui.output import to_stderr

_NO_COMMAND: type[click.UsageError] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""Raised by newer releases of click for a group without a command; the message is its help. Older ones print that."""

SHORT_WORDS = {
    "new": "orbitctl.commands.session_create:new",
    "attach": "orbitctl.commands.session_attach:attach",
    "a": "orbitctl.commands.session_attach:attach",
    "ls": "orbitctl.commands.session_ls:ls",
    "run": "orbitctl.commands.session_create:run_program",
    "open": "orbitctl.commands.workspace_open:open_",
    "kill": "orbitctl.commands.session_end:terminate",
    "rm": "orbitctl.commands.session_end:delete",
    "undelete": "orbitctl.commands.session_end:undelete",
    "prune": "orbitctl.commands.session_end:prune",
    "logs": "orbitctl.commands.session_logs:logs",
    "search": "orbitctl.commands.search:search",
    "label": "orbitctl.commands.session:label",
    "resume": "orbitctl.commands.session:resume",
}
"""What is typed fifty times a day; most are commands of `orbitctl session` or `workspace` under another name."""

COMMANDS = {
    **SHORT_WORDS,
    "status": "orbitctl.commands.status:status",
    "stats": "orbitctl.commands.status:stats",
    "events": "orbitctl.commands.events:events",
    "doctor": "orbitctl.commands.doctor:doctor",
    "version": "orbitctl.commands.status:version",
    "session": "orbitctl.commands.session:session",
    "snapshot": "orbitctl.commands.snapshot:snapshot",
    "workspace": "orbitctl.commands.workspace:workspace",
    "maintenance": "orbitctl.commands.maintenance:maintenance",
    "daemon": "orbitctl.commands.daemon:daemon",
    "service": "orbitctl.commands.service:service",
    "config": "orbitctl.commands.config:config",
    "rpc": "orbitctl.commands.rpc:rpc",
    "web": "orbitctl.commands.web:web",
    "completion": "orbitctl.commands.completion:completion",
    "integration": "orbitctl.commands.integration:integration",
    "help": "orbitctl.commands.help:help_",
    "dial-stdio": "orbitctl.commands.dial_stdio:dial_stdio",
}


class _ReaderLeft(Exception):
    """The reader of our output has ended, as head(1) does."""


class _NothingAsked(Exception):
    """There are no arguments at all."""


class _Root(LazyGroup):
    """The root of the command tree. click's own `main` takes a BrokenPipeError for exit code 1; it never gets one."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> click.Context:
        """Read the command line; this is where help is printed."""
        if not (args or more.get("resilient_parsing")):
            raise _NothingAsked
        try:
            return super().make_context(info_name, args, *rest, **more)
        except BrokenPipeError as error:
            raise _ReaderLeft from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the short words first, apart from the groups."""
        for title, names in (("Commands", SHORT_WORDS), ("More commands", COMMANDS.keys() - SHORT_WORDS.keys())):
            found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx) if name in names]
            longest = max(len(name) for name, _ in found)
            room = formatter.width - 6 - longest
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name, command.get_short_help_str(room))
                        for name, command in found
                        if command and not command.hidden
                    ]
                )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderLeft from error


@click.group(
    cls=_Root,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  orbitctl new work
  orbitctl new web -d -- npm run dev
  orbitctl session list --json
  orbitctl snapshot show --latest web
  orbitctl --host ssh://ada@db.example session list

Exit codes: 0 done, 1 error from the daemon, 2 usage, 3 daemon unreachable, 4 not found,
5 conflict or ambiguous, 6 timeout, 7 protocol mismatch, 130 interrupted,
141 the reader of the output has left.
""",
)
@click.version_option(VERSION, prog_name="orbitctl", message="%(prog)s %(version)s", help="Print orbitctl's version.")
def cli() -> None:
    """Keep terminal sessions: their screens, their workspaces, through reboots.

    A session, workspace or snapshot is named by its id; sessions and workspaces also by
    a unique prefix of it (4 characters or more) or by name. The options below may stand
    before the command or at its end. orbitd is started if it does not run.
    """


add_common_options(cli)


def run(args: list[str]) -> int:
    """Run a command line and return its exit code; every error is printed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may have letters that the locale cannot encode
    return _run(lambda app: _invoke(app, args))


def report(error: OSError | CommandError) -> int:
    """Print the error of a command that was run without click; return its exit code."""

    def fail(app: App) -> int:
        if isinstance(error, CommandError):
            return app.print_error(error)
        raise error

    return _run(fail)


def _run(command: Callable[[App], int]) -> int:
    app = App(os.environ)
    try:
        try:
            code = command(app)
            sys.stdout.flush()  # here, where an error is handled, and not at the interpreter's exit
        except BrokenPipeError:
            raise
        except OSError as error:  # a full disk under stdout, above all
            code = app.print_error(CommandError(_reason(error)))
    except (BrokenPipeError, _ReaderLeft):  # of stdout or of stderr
        code = ExitCode.BROKEN_PIPE
    finally:
        app.close()
        for stream in (sys.stdout, sys.stderr):
            _discard_unwritable(stream)
    return code


def _invoke(app: App, args: list[str]) -> int:
    try:
        code = cli.main(args, prog_name="orbitctl", standalone_mode=False, obj=app)
    except SystemExit as ended:  # how click ends a completion
        return ended.code if isinstance(ended.code, int) else ExitCode.OK
    except CommandError as error:
        return app.print_error(error)
    except _NothingAsked:
        from orbitctl.commands.help import SHORT_HELP

        to_stderr(SHORT_HELP)
        return ExitCode.USAGE
    except _NO_COMMAND as error:
        to_stderr(f"{error.format_message()}\n")
        return ExitCode.USAGE
    except click.UsageError as error:
        return app.print_error(CommandError(_message(error), ExitCode.USAGE, hint=_usage_hint(error)))
    except click.ClickException as error:
        return app.print_error(CommandError(_message(error), ExitCode(error.exit_code)))
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.OK


def _message(error: click.ClickException) -> str:
    r"""Return an error's message; click quotes a byte that is no text as `\udcNN` (repr), where we write `\xNN`."""
    message = re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", error.format_message())
    return re.sub(r"\s*\n\s*", " ", message)  # it lists choices on lines


def _usage_hint(error: click.UsageError) -> str:
    if error.ctx is None:
        return ""
    return f"{error.ctx.get_usage().replace('Usage', 'usage', 1)} (-h shows more)"


def _reason(error: OSError) -> str:
    """Return an operating system's error as a sentence; what stdout cannot take is not tried again."""
    if _discard_unwritable(sys.stdout):
        return f"cannot write to stdout: {error.strerror}"
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _discard_unwritable(stream: TextIO) -> bool:
    """Point a stream at /dev/null if what it holds cannot be written; return whether it could not.

    The interpreter flushes it once more at exit, and would replace our exit code by 120.
    """
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        return True
    return False
