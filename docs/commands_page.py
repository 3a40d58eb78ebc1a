"""Generate docs/commands.md, the reference of every command, from the command tree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent

import click

from orbitctl.cli import cli
from orbitctl.commands.group import common_options

HEAD = """# Commands

Generated from the command tree by `docs/generate.py`; `orbitctl COMMAND --help` says the same.

Data goes to stdout, all else to stderr. On a terminal tables are drawn, in a pipe columns are
aligned with blanks and nothing is cut. A session or workspace is named by its id, a unique
prefix of the id (4 characters or more), or its name; a name that begins with `-` works after `--`.
"""

EXIT_CODES = """
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | an error from the daemon |
| 2 | usage, or a configuration that cannot be used |
| 3 | the daemon cannot be reached |
| 4 | not found |
| 5 | conflict, or ambiguous |
| 6 | timeout |
| 7 | the daemon speaks another protocol |
| 130 | interrupted |
| 141 | whoever read the output has left |
"""


def commands_markdown() -> str:
    """Return docs/commands.md."""
    root = click.Context(cli, info_name="orbitctl")
    common = "\n".join(_option_lines(root, list(common_options())))
    parts = [
        HEAD,
        "## Options of every command\n\nThey may stand before the command or at its end.\n\n" + common + "\n",
        *_sections(root),
    ]
    return "\n".join(parts).rstrip() + "\n" + EXIT_CODES


def _sections(root: click.Context) -> Iterator[str]:
    """Yield the section of each command; one that stands under two names is described under the first."""
    seen: dict[int, str] = {}
    for command, context in walk(cli, root):
        first = seen.setdefault(id(command), context.command_path)
        if first == context.command_path:
            yield _section(command, context)
        else:
            yield f"{_title(context)}\n\nThe same as `{first}`.\n"


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield every command below `command`, each with a context that has its full name."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None and not child.hidden:
            below = click.Context(child, info_name=name, parent=context)
            yield child, below
            yield from walk(child, below)


def _section(command: click.Command, context: click.Context) -> str:
    is_group = isinstance(command, click.Group)
    lines = [_title(context), ""]
    if not is_group:
        lines += ["```text", usage_of(command, context), "```", ""]
    lines += [_prose(command.help or ""), ""]
    own = [  # the common options expose no value, and are listed once, at the top
        param for param in command.params if isinstance(param, click.Option) and param.expose_value and not param.hidden
    ]
    if own:
        lines += [*_option_lines(context, own), ""]
    if command.epilog:
        lines += [_epilog(command.epilog), ""]
    return "\n".join(lines)


def _title(context: click.Context) -> str:
    return f"{'#' * (context.command_path.count(' ') + 1)} {context.command_path}"


def usage_of(command: click.Command, context: click.Context) -> str:
    """Return how a command is called."""
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def _option_lines(context: click.Context, options: list[click.Option]) -> list[str]:
    records = [option.get_help_record(context) for option in options]
    return [f"- `{record[0]}` {record[1]}" for record in records if record]


def _prose(text: str) -> str:
    """Return a docstring without its indentation."""
    from inspect import cleandoc

    return cleandoc(text)


def _epilog(text: str) -> str:
    """Return an epilog, with the examples in it, a line behind "Example: " or lines that are indented, as a block."""
    text = re.sub(r"^Example: (.*)", r"Example:\n  \1", text.replace("\b\n", ""))
    return re.sub(r"\n((?:  .+\n?)+)", lambda found: f"\n\n```sh\n{dedent(found[1]).rstrip()}\n```\n", text).rstrip()
