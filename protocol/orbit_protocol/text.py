r"""Where bytes of the operating system meet text: paths, arguments, variables.

A POSIX path is bytes, and so is an argument or an environment string; nothing says that they are UTF-8. Text
of the protocol is UTF-8. So where such bytes are sent, stored in JSON or printed, each byte that is no UTF-8
stands as `\xNN` (PEP 383's surrogates cannot be encoded). That cannot be read back, since a file may be called
`\xe9` to the letter. Where the bytes are needed again, a companion field has them in base64, and only where
they are not UTF-8: `cwd` and `cwd_bytes`. Where a companion is given it wins, and the text is ignored.

Python's own strings of the operating system (os.fsdecode, sys.argv, os.environ) are text only where the locale
is UTF-8: `os.fsencode` makes bytes of them first, as `path_text` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from orbit_protocol.paths import encodable as encodable
from orbit_protocol.paths import path_text as path_text
from orbit_protocol.paths import to_text as to_text

_SURROGATE = re.compile("[\ud800-\udfff]")
BytePairs = list[tuple[bytes, ...]]
"""An environment in bytes: a name and a value each."""
Companion = bytes | UnsetType
"""A companion field: UNSET, so that it is not sent at all, where the text beside it says everything."""


def text_and_bytes(raw: bytes) -> tuple[str, Companion]:
    """Return bytes as text, and their companion field: the bytes where they are not UTF-8, else UNSET."""
    try:
        return raw.decode(), UNSET
    except UnicodeDecodeError:
        return to_text(raw), raw


def from_text(text: str, companion: Companion | None) -> bytes:
    """Return the bytes that `text_and_bytes` was given."""
    return companion if isinstance(companion, bytes) else text.encode()


def pairs_to_text(pairs: Iterable[tuple[bytes, ...]]) -> tuple[dict[str, str], BytePairs | UnsetType]:
    """Return an environment as text, and its companion field: all of it where some of it is not UTF-8, else UNSET.

    Of two values of a name the later one counts.
    """
    raw = _as_dict(pairs)
    text = {to_text(name): to_text(value) for name, value in raw.items()}
    try:
        for string in (*raw, *raw.values()):
            string.decode()
    except UnicodeDecodeError:
        return text, list(raw.items())
    return text, UNSET


def pairs_from_text(
    text: Mapping[str, str] | None, companion: BytePairs | UnsetType | None
) -> dict[bytes, bytes] | None:
    """Return the environment that `pairs_to_text` was given; None where neither is given."""
    if isinstance(companion, list):
        return _as_dict(companion)
    return None if text is None else {name.encode(): value.encode() for name, value in text.items()}


def _as_dict(pairs: Iterable[tuple[bytes, ...]]) -> dict[bytes, bytes]:
    return {name: value for name, value in pairs}  # noqa: C416  # dict() takes only what is a pair by its type


def path_and_bytes(path: str) -> tuple[str, Companion]:
    """Return a path that Python was given by the operating system as text, and its companion field."""
    return text_and_bytes(os.fsencode(path))


def path_from_text(text: str, companion: Companion | None) -> str:
    """Return a path from its field and companion field, as Python's functions take it."""
    return os.fsdecode(from_text(text, companion))


def encodable_message(value: Any) -> Any:
    """Return a message as plain objects in which every string of the operating system can be encoded.

    Raises:
        UnicodeEncodeError: There is a surrogate in it that stands for no byte.
    """
    return _convert_strings(value, lambda string: to_text(string.encode("utf-8", "surrogateescape")))


def decoded_message(value: Any) -> Any:
    """Return a message as plain objects in which every string of the command line is the UTF-8 text that it is.

    In a locale that is not UTF-8 Python has surrogates for bytes that are.

    Raises:
        UnicodeError: One is not UTF-8.
    """
    return _convert_strings(value, lambda string: os.fsencode(string).decode())


def _convert_strings(value: Any, convert: Callable[[str], str]) -> Any:
    """Return a value as plain objects, with `convert` called for each string that cannot be encoded."""

    def visit(part: Any) -> Any:
        if isinstance(part, str):
            return part if part.isascii() or not _SURROGATE.search(part) else convert(part)
        if isinstance(part, dict):
            return {visit(key): visit(each) for key, each in part.items()}
        return [visit(each) for each in part] if isinstance(part, list) else part

    return visit(msgspec.to_builtins(value, enc_hook=msgspec.json.decode))  # the hook is for Raw
