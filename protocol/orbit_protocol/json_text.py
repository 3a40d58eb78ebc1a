"""JSON as text, before anything decodes it: how deep it is nested, and how raw JSON becomes a part of a message.

msgspec decodes, skips and encodes nested values by recursion in C, and takes as many levels as Python's recursion
limit allows. That is more than a small C stack has room for (`ulimit -s 256`, a thread of musl's): so whatever comes
from outside is measured first.
"""

from __future__ import annotations

import contextlib
import math
import re
from array import array
from itertools import accumulate

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it
    from collections.abc import Mapping
    from typing import Any

    import msgspec

MAX_NESTING = 512
"""How many arrays and objects may stand inside each other; a number alone is nested 0 deep."""
MAX_LAYOUT_NESTING = 500
"""The same for a layout, so that each message that has it inside stays below MAX_NESTING."""

_BOM = b"\xef\xbb\xbf"
# Possessive: a quote that is missing must not make the expression try all shorter strings. A string without an end
# takes the rest of the text, as it does for a decoder.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_CHUNK = MAX_NESTING // 2
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: 1 and -1
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_INT_DIGITS = 300
_OFFSET = re.compile(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)")


def is_nested_too_deep(data: bytes, limit: int = MAX_NESTING) -> bool:
    """Return whether JSON is nested deeper than `limit`; brackets inside of strings do not count.

    Text that is not JSON is measured up to where a decoder stops, or further. 16 MiB take at most about half a second,
    and most messages nothing that can be measured: they are short, or have few brackets.
    """
    # Without a bracket behind the first `limit` bytes there are no more of them than that. So it is with base64, of
    # which 64 KiB take 1.5 us to search, 60 to count, and 30 to decode.
    if data.find(b"[", limit) < 0 and data.find(b"{", limit) < 0:
        return False
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    steps = _STRING.sub(b"", data).translate(_STEPS, _NO_BRACKETS)
    depth = 0
    for start in range(0, len(steps), _CHUNK):
        chunk = steps[start : start + _CHUNK]
        opened = chunk.count(1)
        # Each step is looked at only where the chunk could go over the limit, which a flat list never can.
        if depth + opened > limit and depth + max(accumulate(array("b", chunk))) > limit:
            return True
        depth += 2 * opened - len(chunk)
    return False


def check_nesting(data: bytes) -> None:
    """Refuse JSON that is nested deeper than MAX_NESTING. Raises: msgspec.DecodeError."""
    if is_nested_too_deep(data):
        from msgspec import DecodeError  # not at the top: attached clients measure messages, and have no msgspec

        raise DecodeError(f"JSON is nested deeper than {MAX_NESTING}")


def decode_any(data: bytes | msgspec.Raw) -> Any:
    """Return decoded JSON; a number that is too large for a float, or for an int of msgspec's, as its text.

    It is for JSON that has been checked and is only shown: a layout is kept to the letter, 1e400 too.
    """
    import msgspec

    try:
        return msgspec.json.decode(data)
    except msgspec.ValidationError:  # the only one without a type
        import json  # which a window's client is without, for weeks

        return json.loads(bytes(data), parse_int=_int_or_text, parse_float=_float_or_text)


def _int_or_text(number: str) -> int | str:
    return int(number) if len(number) <= _INT_DIGITS else number


def _float_or_text(number: str) -> float | str:
    found = float(number)
    return found if math.isfinite(found) else number


def one_line(raw: bytes, max_nesting: int = MAX_NESTING) -> bytes:
    """Return raw JSON on one line, to be put into a message as it is; else it stays as it was written.

    A byte order mark (files of Windows have one) and blanks around the value are removed. A newline can only stand
    between two tokens (RFC 8259, 7: strings have it as an escape), where a blank means the same.

    Raises:
        ValueError: It is not exactly one JSON value in UTF-8, or nested too deep. The text says what and where.
    """
    import msgspec

    data = raw.removeprefix(_BOM)
    if is_nested_too_deep(data, max_nesting):
        raise ValueError(f"nested deeper than {max_nesting}")
    try:
        data.decode()
        # Raw: each token is checked, and nothing converted, so that numbers may have any size.
        msgspec.json.decode(data, type=msgspec.Raw)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({_place(data, error.start)})") from error
    except msgspec.DecodeError as error:
        raise ValueError(_json_error(data, str(error))) from error
    return data.strip(b" \t\r\n").replace(b"\n", b" ").replace(b"\r", b" ")


def replace_strings(raw: bytes, replacements: Mapping[str, str]) -> bytes:
    """Return raw JSON with some of its strings replaced, names of members too; all else stays to the letter.

    A string is compared by what it means: one that has escapes (RFC 8259, 7) is found as well.

    Args:
        raw: One JSON value.
        replacements: New strings by those that they replace.
    """
    import msgspec

    known = {old.encode(): msgspec.json.encode(new) for old, new in replacements.items()}
    longest = 6 * max(map(len, known), default=0)  # `\u0061` for one letter

    def replaced(found: re.Match[bytes]) -> bytes:
        token = found[0]
        text = token[1:-1]
        if b"\\" in text and len(text) <= longest:
            with contextlib.suppress(msgspec.DecodeError, UnicodeEncodeError):  # a surrogate alone, say: no id of ours
                text = msgspec.json.decode(token, type=str).encode()
        return known.get(text, token)

    return _STRING.sub(replaced, raw) if known else raw


def _json_error(data: bytes, words: str) -> str:
    """Return what msgspec says of JSON that is malformed, with a line for its byte."""
    if not data.strip():
        return "not JSON: it is empty"
    found = _OFFSET.fullmatch(words)
    if found is None:
        return "not JSON: it ends too early"
    reason, offset = found[1], int(found[2])
    if reason == "trailing characters":  # its offset is that of the second of them
        reason, offset = "more follows the first value", offset - 1
    return f"not JSON: {reason} ({_place(data, offset)})"


def _place(data: bytes, offset: int) -> str:
    before = data[:offset]
    column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1
    line = before.count(b"\n") + 1
    return f"line {line}, column {column}"
