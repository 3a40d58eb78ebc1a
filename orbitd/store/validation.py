"""Checks of what callers pass to the SessionManager, over the socket or from Python.

The values that are returned are of the base types of `orbit_protocol.types`.
"""

from __future__ import annotations

import unicodedata
import uuid
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from orbit_protocol.errors import InvalidParams
from orbit_protocol.types import (
    SessionConfig,
    WorkspaceLayout,
    check_labels,
    check_name,
    check_ssh_words,
    normal_name,
)

S = TypeVar("S", bound=Struct)

_MIN_PREFIX_LENGTH = 4
_ID_LENGTH = len(str(uuid.UUID(int=0)))


def name(value: str) -> str:
    """Return a name in NFC that is safe to print on a terminal. Raises: InvalidParams."""
    try:
        return check_name(value)
    except ValueError as error:
        raise InvalidParams(str(error)) from error


def reference(value: str) -> str:
    """Return a reference in NFC. Raises: InvalidParams."""
    try:
        return normal_name(value, "ref")
    except ValueError as error:
        raise InvalidParams(str(error)) from error


def spellings(value: str) -> tuple[str, str]:
    """Return a name in NFC, and in NFD: older versions kept that where it was given so, as from macOS's file names."""
    return normalized(value), unicodedata.normalize("NFD", value)


def normalized(value: str) -> str:
    """Return a name in NFC: what looks the same is the same name."""
    return unicodedata.normalize("NFC", value)


def is_normalized(value: str | None) -> bool:
    """Return whether a name is in NFC."""
    return value is None or unicodedata.is_normalized("NFC", value)


def labels(value: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return labels with keys and values in NFC. Raises: InvalidParams."""
    found = {normalized(key): None if text is None else normalized(text) for key, text in value.items()}
    try:
        check_labels(found)
    except ValueError as error:
        raise InvalidParams(str(error)) from error
    return found


def config(value: SessionConfig) -> SessionConfig:
    """Return a session's configuration as the base type. Raises: InvalidParams."""
    checked = _through_json(value, SessionConfig)
    try:
        check_ssh_words(checked.host, checked.username)
    except ValueError as error:
        raise InvalidParams(str(error)) from error
    return checked


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
