"""JSON by the C functions of the standard library's `json`, without what that imports: regular expressions, mostly.

`scan` and `encode` are `json.loads` and `json.dumps` for messages of the daemon, which are without blanks.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # as typing has it, which is not imported here
    from collections.abc import Callable
    from typing import Any


class _Settings:
    """What the scanner reads from its JSONDecoder."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> Any:
        """Refuse NaN and the infinities, which are no JSON."""
        raise ValueError(f"{name} is no JSON")


def _functions() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[[Any, int], tuple[str, ...]]]:
    """Return what scans one value, and what encodes one."""
    make_scanner: Any
    make_encoder: Any
    try:
        from _json import encode_basestring_ascii, make_encoder, make_scanner
    except ImportError:  # not CPython, where the rest of `json` is as quick
        import json

        dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
        decoder: Any = json.JSONDecoder(parse_constant=_Settings.parse_constant)
        return decoder.scan_once, lambda value, _: (dumps(value),)
    # Markers, default, string encoder, indent, separators, sort_keys, skipkeys, allow_nan.
    encoder = make_encoder(None, None, encode_basestring_ascii, None, ":", ",", False, False, False)
    return make_scanner(_Settings()), encoder


_scan, _encode = _functions()


def scan(text: str, start: int = 0) -> tuple[Any, int]:
    """Return the JSON value that begins at `start`, and where it ends; nothing before or behind it is looked at.

    Raises:
        ValueError: There is none.
        RecursionError: It is nested too deeply.
    """
    try:
        return _scan(text, start)
    except StopIteration as error:  # how the scanner says that a value is missing
        raise ValueError(f"no JSON at character {error.value}") from None


def encode(value: Any) -> str:
    """Return a value as JSON, in ASCII and without blanks. Raises: ValueError for NaN and the infinities."""
    return "".join(_encode(value, 0))
