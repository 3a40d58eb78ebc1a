"""Types of arguments: sessions and workspaces by name, files, JSON, points in time."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import msgspec

from orbit_protocol.json_text import MAX_LAYOUT_NESTING, MAX_NESTING, one_line
from orbit_protocol.text import encodable
from orbit_protocol.types import normal_name
from orbitctl.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from datetime import datetime

MAX_INPUT_BYTES = 1 << 30
"""The limit of a file or of stdin."""
_PIECE_BYTES = 1 << 20

CELLS = click.IntRange(1, 65_535)
LIMIT = click.IntRange(1, 1_000_000_000)


class _Ref(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """What may name a session or a workspace."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the reference in NFC. Raises: click.BadParameter for what nothing can be named."""
        try:
            return normal_name(value, "it")
        except ValueError as error:
            self.fail(str(error).replace("`", ""), param, ctx)


class SessionRef(_Ref):
    """A session's id, unique prefix or name."""

    name = "session"


class WorkspaceRef(_Ref):
    """A workspace's id, unique prefix or name."""

    name = "workspace"


class OptionalSession(click.Argument):
    """A session that may be left out inside one; in messages its name stands without the brackets of the usage."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return what an error calls it."""
        return "'SESSION'"


SESSION = SessionRef()
WORKSPACE = WorkspaceRef()


class Label(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A label to look for: KEY=VALUE."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return key and value. Raises: click.BadParameter."""
        if isinstance(value, tuple):
            return value
        key, equals, wanted = value.partition("=")
        if not (key and equals):
            self.fail(f"{value!r} is not KEY=VALUE", param, ctx)
        return key, wanted


LABEL = Label()


def read_bytes(file: str) -> bytes:
    """Return the content of a file, or of stdin for `-`. Raises: CommandError."""
    source = "stdin" if file == "-" else file
    try:
        if file == "-":
            data = _read(sys.stdin.buffer)
        else:
            with open(file, "rb") as opened:
                data = _read(opened)
    except OSError as error:
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror
        raise CommandError(f"cannot read {source}: {reason}", ExitCode.USAGE) from error
    if len(data) > MAX_INPUT_BYTES:
        raise CommandError(f"{source} holds more than {MAX_INPUT_BYTES} bytes", ExitCode.USAGE)
    return data


def _read(file: BinaryIO) -> bytes:
    """Read to the end, or to one byte more than the limit.

    In pieces: a file object allocates as much as `read` is asked for before it reads anything.
    """
    data = bytearray()
    while len(data) <= MAX_INPUT_BYTES and (piece := file.read(_PIECE_BYTES)):
        data += piece
    return bytes(data)


class JsonText(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """JSON, passed on as it was given: the text itself, `@FILE`, or `-` for stdin.

    Args:
        max_nesting: How deep it may be nested.
    """

    name = "json"

    def __init__(self, max_nesting: int) -> None:
        self._max_nesting = max_nesting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> msgspec.Raw:
        """Return valid JSON on one line. Raises: click.BadParameter, or CommandError for a file that cannot be read."""
        if isinstance(value, msgspec.Raw):
            return value
        file = value.removeprefix("@") if value == "-" or value.startswith("@") else None
        text = os.fsencode(value) if file is None else read_bytes(file)
        try:
            return msgspec.Raw(one_line(text, self._max_nesting))
        except ValueError as error:
            source = "" if file is None else "what stdin holds is " if file == "-" else f"{file} is "
            self.fail(f"{source}{error}", param, ctx)


LAYOUT = JsonText(MAX_LAYOUT_NESTING)
PARAMS = JsonText(MAX_NESTING - 1)  # a request is one level around them


class PointInTime(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A moment as people write it: `10 minutes ago`, `yesterday 15:10`, `30d`, or a time of RFC 3339."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware datetime; without a zone the text is local time. Raises: click.BadParameter."""
        from datetime import UTC, datetime

        from orbitctl.moments import parse_moment

        if isinstance(value, datetime):
            return value
        try:
            return parse_moment(value, datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)


WHEN = PointInTime()

SHELL_INTEGRATION = click.option(
    "--shell-integration", type=click.Choice(["auto", "off"]), help="Have bash and zsh mark their commands, or not."
)
"""Without it the daemon's configuration decides."""


def quoted(text: str) -> str:
    """Return `text` as a JSON string, which is a TOML basic string too."""
    return msgspec.json.encode(encodable(text)).decode()
