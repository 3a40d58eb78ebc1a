"""The commands that a person waits for, without click: `ls`, `session list` and what completes a word.

`main` asks here first. What is not exactly one of these command lines, and whatever a `LightConnection` finds unusual,
is None here, with nothing printed: the click command does it from the start. So this module has no message of its own,
and what it prints is laid out by the same functions as the command's. Every import counts here.
"""

from __future__ import annotations

import os
import sys

from orbitctl.client.light import LightAnswer, LightConnection, Unusual

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Sequence

PAGE_SIZE = 1_000
"""As many entries as `ask_all` asks for at once; a longer list is left to that."""
COMPLETION_VARIABLE = "_ORBITCTL_COMPLETE"
LISTS = (["session", "list"],)
FLAGS = {"--json": "json", "-q": "quiet", "--quiet": "quiet"}


def run_fast(arguments: Sequence[str]) -> int | None:
    """Run a plain command line and return its exit code; None, with nothing printed, for any other."""
    words = [word for word in arguments if word not in FLAGS]
    if words not in LISTS or COMPLETION_VARIABLE in os.environ:
        return None
    flags = {FLAGS[word] for word in arguments if word in FLAGS}
    try:
        output = _list(flags)
    except (Unusual, LookupError, TypeError, ValueError, AttributeError):  # an answer of another shape: click's way
        return None
    return None if output is None else _write(output)


def _list(flags: set[str]) -> bytes | str | None:
    """Return what a list of sessions prints; bytes where it is no text. Raises: Unusual."""
    is_terminal = sys.stdout.isatty()
    if not flags:
        return None
    answer = _sessions()
    if "json" in flags:
        if is_terminal:
            from orbit_protocol.visible import visible_json

            return visible_json(answer.raw) + b"\n"
        return answer.raw + b"\n"
    return "".join(f"{one['id']}\n" for one in answer.value["sessions"])


def _sessions() -> LightAnswer:
    """Return the answer of `session.list` where one page holds all. Raises: Unusual."""
    connection = LightConnection(os.environ)
    answer = connection.call("session.list", {"limit": PAGE_SIZE})
    connection.close()
    if answer.value["next_cursor"] is not None:
        raise Unusual
    return answer


def _write(output: bytes | str) -> int:
    """Write to stdout; return the exit code, which is that of `cli.run` where it cannot be written."""
    try:
        if isinstance(output, bytes):
            sys.stdout.buffer.write(output)
        else:
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as `cli.run` has it
            sys.stdout.write(output)
        sys.stdout.flush()
    except OSError as error:
        from orbitctl.cli import report_unwritable

        return report_unwritable(error)
    return 0
