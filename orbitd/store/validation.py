"""Checks of what callers pass to the SessionManager, over the socket or from Python.

The values that are returned are of the base types of `orbit_protocol.types`.
"""

from __future__ import annotations

import uuid
from typing import TypeVar

import msgspec
from msgspec import Struct

from orbit_protocol.errors import InvalidParams
from orbit_protocol.types import MAX_NAME_LENGTH, SessionConfig, WorkspaceLayout, has_control_characters

S = TypeVar("S", bound=Struct)

_MIN_PREFIX_LENGTH = 4
_ID_LENGTH = len(str(uuid.UUID(int=0)))


def name(value: str) -> str:
    """Return a name that is safe to print on a terminal. Raises: InvalidParams."""
    if not 1 <= len(value) <= MAX_NAME_LENGTH:
        raise InvalidParams(f"`name` must have 1 to {MAX_NAME_LENGTH} characters")
    if has_control_characters(value):
        raise InvalidParams("`name` may not hold control characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # a lone surrogate
        raise InvalidParams("`name` is not valid Unicode") from error
    return value


def config(value: SessionConfig) -> SessionConfig:
    """Return a session's configuration as the base type. Raises: InvalidParams."""
    return _through_json(value, SessionConfig)


def layout(value: WorkspaceLayout) -> WorkspaceLayout:
    """Return a layout as the base type. Raises: InvalidParams."""
    return _through_json(value, WorkspaceLayout)


def id_prefix(ref: str) -> str | None:
    """Return a reference as the first characters (4 or more) of an id, or None if it cannot be that."""
    lower = ref.lower()
    fits = _MIN_PREFIX_LENGTH <= len(lower) <= _ID_LENGTH and not set(lower) - set("0123456789abcdef-")
    return lower if fits else None


def _through_json(value: Struct, base: type[S]) -> S:
    """Encode a value and decode it again: msgspec checks types when it decodes, not when a Struct is made."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=base)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InvalidParams(str(error)) from error
