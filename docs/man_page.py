"""Generate docs/orbitctl.1, the manual page, from the command tree: what docs/commands.md says, in man(7)."""

from __future__ import annotations

import re
from inspect import cleandoc

import click

from commands_page import EXIT_CODES, usage_of, walk
from orbit_protocol import VERSION
from orbitctl.cli import cli
from orbitctl.commands.group import common_options

_ENVIRONMENT = (
    ("ORBITD_SOCKET, ORBITD_CONFIG, ORBITD_DATABASE", "The daemon's socket, configuration and database."),
    ("ORBITCTL_NO_AUTOSTART", "1, true or yes: start no daemon if none runs."),
    ("ORBITCTL_DETACH_KEY", "The keys that detach, as of --detach-key."),
    ("ORBIT_SESSION, ORBIT_SESSION_NAME", "Set in a session: its id and its name."),
    ("NO_COLOR, COLUMNS, TERM", "Whether there are colours, and how wide a table is."),
)
_FILES = (
    ("~/.config/orbit/config.toml", "The configuration."),
    ("~/.local/share/orbit/sessions.db", "The database."),
    ("~/.local/state/orbit", "Journals and logs."),
)


def man_page() -> str:
    """Return docs/orbitctl.1."""
    root = click.Context(cli, info_name="orbitctl")
    lines = [
        '.\\" Generated from the command tree by docs/generate.py.',
        f'.TH ORBITCTL 1 "" "Orbit {VERSION}" "User Commands"',
        ".nh",
        ".SH NAME",
        r"orbitctl \- keep terminal sessions",
        ".SH SYNOPSIS",
        r"\fBorbitctl\fR [OPTIONS] COMMAND [ARGUMENTS]...",
        ".SH DESCRIPTION",
        *_paragraphs(cleandoc(cli.help or "")),
        ".SH OPTIONS",
        "Every command takes these, before it or at its end.",
        *_options(root, list(common_options())),
        ".SH COMMANDS",
    ]
    seen: dict[int, str] = {}
    for command, context in walk(cli, root):
        lines.append(f'.SS "{_text(context.command_path)}"')
        if first := seen.get(id(command)):
            lines.append(f"The same as \\fB{_text(first)}\\fR.")
            continue
        seen[id(command)] = context.command_path
        lines += _command(command, context)
    lines += [".SH EXIT STATUS"]
    for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", EXIT_CODES, re.M):
        lines += [".TP", f".B {code}", _text(meaning)]
    for title, pairs in (("ENVIRONMENT", _ENVIRONMENT), ("FILES", _FILES)):
        lines.append(f".SH {title}")
        for name, meaning in pairs:
            lines += [".TP", f".B {_text(name)}", _text(meaning)]
    return "\n".join(lines) + "\n"


def _command(command: click.Command, context: click.Context) -> list[str]:
    own = [
        param for param in command.params if isinstance(param, click.Option) and param.expose_value and not param.hidden
    ]
    return [
        *([] if isinstance(command, click.Group) else [f"\\fB{_text(usage_of(command, context))}\\fR", ".PP"]),
        *_paragraphs(cleandoc(command.help or "")),
        *_options(context, own),
        *([".PP", *_paragraphs(command.epilog)] if command.epilog else []),
    ]


def _options(context: click.Context, options: list[click.Option]) -> list[str]:
    records = [option.get_help_record(context) for option in options]
    return [line for record in records if record for line in (".TP", f".B {_text(record[0])}", _text(record[1]))]


def _paragraphs(text: str) -> list[str]:
    """Return a text that was written for click; lines that are indented are kept."""
    lines: list[str] = []
    for number, block in enumerate(re.split(r"\n\s*\n", text.replace("\b\n", "").strip("\n"))):
        if number:
            lines.append(".PP")
        prose = [line for line in block.splitlines() if line.strip() and not line.startswith("  ")]
        shown = [line.strip() for line in block.splitlines() if line.startswith("  ")]
        lines += map(_text, prose)
        if shown:
            lines += [".PP", ".RS 4", ".nf", *map(_text, shown), ".fi", ".RE"]
    return lines


def _text(text: str) -> str:
    """Return text as roff takes it: backslashes, hyphens that are typed, and what begins a request are escaped."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("'", "\\(aq")
    text = text.replace("~", "\\(ti").replace("^", "\\(ha").replace('"', "\\(dq")
    return f"\\&{text}" if text.startswith(".") else text
