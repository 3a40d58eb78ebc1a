"""What the store refuses to record, whoever calls; values that pass are of the base types."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Struct

from orbit_protocol.errors import InvalidParams
from orbit_protocol.types import MAX_NAME_LENGTH, SessionConfig, WorkspaceLayout, has_control_characters
from orbitd.store.codec import MAX_SCREEN_BYTES, Screen

S = TypeVar("S", bound=Struct)


def name(value: str) -> str:
    """Return a name that may be shown on a terminal. Raises: InvalidParams."""
    if not 1 <= len(value) <= MAX_NAME_LENGTH:
        raise InvalidParams(f"`name` must have 1 to {MAX_NAME_LENGTH} characters")
    if has_control_characters(value):
        raise InvalidParams("`name` may not hold control characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidParams("`name` is not valid Unicode") from error
    return value


def config(value: SessionConfig) -> SessionConfig:
    """Return a session's configuration as the base type. Raises: InvalidParams."""
    return _as_sent(value, SessionConfig)


def layout(value: WorkspaceLayout) -> WorkspaceLayout:
    """Return a layout as the base type, its JSON on one line. Raises: InvalidParams."""
    raw = bytes(value.config)
    if b"\n" in raw or b"\r" in raw:  # in JSON only between tokens; on the wire they would end the message
        raw = raw.replace(b"\n", b" ").replace(b"\r", b" ")
        value = WorkspaceLayout(layout_type=value.layout_type, config=msgspec.Raw(raw))
    return _as_sent(value, WorkspaceLayout)


def screen(value: Screen) -> Screen:
    """Return a screen that the codec takes. Raises: InvalidParams."""
    if value.size > MAX_SCREEN_BYTES:
        raise InvalidParams(f"The snapshot has {value.size} bytes; at most {MAX_SCREEN_BYTES} can be saved")
    return value


def _as_sent(value: Struct, base: type[S]) -> S:
    """Put a value through JSON: whoever calls from Python is held to the types that the wire checks."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=base)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InvalidParams(str(error)) from error
