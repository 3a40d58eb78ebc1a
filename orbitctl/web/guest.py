"""What a read-only guest may ask for, and what it may see of the answers. No I/O: messages in, messages out.

A request is decoded, checked and encoded again, so that orbitd reads exactly what was checked: of a name that stands
twice in an object, two parsers may take different ones. What is not listed in `PARAMS` is refused, a new method of the
table too.
"""

from __future__ import annotations

import binascii
import re
from typing import Any

import msgspec

from orbit_protocol import methods as m
from orbit_protocol import notifications as n
from orbit_protocol.errors import InvalidRequest, OrbitError, ParseError
from orbit_protocol.json_text import check_nesting, decode_any
from orbit_protocol.jsonrpc import encode_error

_LIST = frozenset(("status", "session_type", "workspace_id", "labels", "limit", "cursor"))
_EVENTS = frozenset(("since", "kinds", "session_id", "workspace_id", "limit"))

PARAMS: dict[str, frozenset[str]] = {
    m.DAEMON_PING.name: frozenset(),
    m.RPC_DISCOVER.name: frozenset(),
    m.CANCEL_REQUEST.name: frozenset(("id",)),
    m.SESSION_LIST.name: _LIST,
    m.SESSION_GET.name: frozenset(("id",)),
    m.SESSION_FIND.name: frozenset(("ref",)),
    m.SESSION_SCREEN.name: frozenset(("id", "format", "scrollback", "first_line", "lines", "cursor", "theme")),
    # Without `start`, which runs a program, and without `env` and `terminal`, which sessions' programs can see.
    m.SESSION_ATTACH.name: frozenset(
        ("id", "cols", "rows", "read_only", "scrollback_lines", "after_line", "attachment_id", "frames")
    ),
    m.SESSION_RESIZE.name: frozenset(("attachment_id", "cols", "rows")),
    m.SESSION_REFRESH.name: frozenset(("attachment_id", "scrollback_lines")),
    m.SESSION_LEAVE.name: frozenset(("attachment_id",)),
    m.WORKSPACE_LIST.name: frozenset(("limit", "cursor")),
    m.WORKSPACE_GET.name: frozenset(("id",)),
    m.WORKSPACE_FIND.name: frozenset(("ref",)),
    m.EVENTS_LIST.name: _EVENTS,
    # Without `handles`: orbitd would show no desktop notification to its user while the guest is there.
    m.EVENTS_SUBSCRIBE.name: (_EVENTS - {"limit"}) | {"live"},
    m.EVENTS_UNSUBSCRIBE.name: frozenset(("subscription_id",)),
}
"""The methods that a guest may call, each with the params that are passed on; others are left out."""

NOTIFICATIONS = frozenset(
    one.name for one in (n.OUTPUT, n.REPAINT, n.EXITED, n.DETACHED, n.EVENT, n.EVENTS_CURSOR, n.EVENTS_ENDED)
)
"""What is sent on to a guest unasked."""

_FORMATS = frozenset(("text", "html", "svg"))
_SECRET = ("env", "env_bytes")
"""Of a session's configuration: variables hold passwords and keys."""


class ReadOnly(OrbitError):
    """The URL by which this client came is for watching."""

    code = -32003
    kind = "read_only"
    default_hint = "This is a read-only URL: ask whoever runs `orbitctl web` for the other one."


class Guest:
    """Stands between one guest and one connection to orbitd."""

    def __init__(self) -> None:
        self._clipboards: dict[str, ClipboardFilter] = {}  # by attachment

    def request(self, text: str) -> tuple[bytes | None, bytes | None]:
        """Return what is sent to orbitd for a message of the guest, or what the guest is answered at once."""
        try:
            data = text.encode()
            check_nesting(data)
            message = msgspec.json.decode(data)
        except (ValueError, msgspec.DecodeError):
            return None, encode_error(None, ParseError("the message is not JSON"))
        if not isinstance(message, dict):
            return None, encode_error(None, InvalidRequest("a guest sends one request at a time, which is an object"))
        request_id = message.get("id")
        if not isinstance(request_id, str | int | float | None) or isinstance(request_id, bool):
            return None, encode_error(None, InvalidRequest("`id` is neither text nor a number"))
        method, params = message.get("method"), message.get("params", {})
        if not isinstance(method, str) or method not in PARAMS:
            named = method if isinstance(method, str) else "a message without a method"
            return None, _refusal(message, f"{named[:100]} is not for guests, who only watch")
        if not isinstance(params, dict):
            return None, _refusal(message, "`params` must be an object")
        if method == m.SESSION_SCREEN.name and params.get("format", "text") not in _FORMATS:
            return None, _refusal(message, "this format of a screen is not for guests, who get text, html and svg")
        passed = {name: value for name, value in params.items() if name in PARAMS[method]}
        if method == m.SESSION_ATTACH.name:
            passed["read_only"] = True
        if method == m.SESSION_LEAVE.name:
            self._clipboards.pop(str(passed.get("attachment_id")), None)
        body = {"jsonrpc": "2.0", "method": method, "params": passed}
        return msgspec.json.encode(body | ({"id": request_id} if "id" in message else {})), None

    def message(self, line: bytes) -> bytes | None:
        """Return what the guest gets of a message of orbitd; None for nothing. Raises: msgspec.DecodeError."""
        message = decode_any(line)
        if not isinstance(message, dict):
            return None
        if (method := message.get("method")) is not None:
            if method not in NOTIFICATIONS:
                return None
            if not self._notification(method, message["params"]):
                return None
        elif isinstance(result := message.get("result"), dict) and isinstance(result.get("repaint"), str):
            result["repaint"] = _whole(result["repaint"])
        _remove_secrets(message)
        return msgspec.json.encode(message)

    def _notification(self, method: str, params: dict[str, Any]) -> bool:
        """Take out of a notification what is not for a guest; return whether something is left of it."""
        if method == n.REPAINT.name:
            # It is drawn from a reset on, which ends whatever sequence had begun.
            self._clipboards.pop(params["attachment_id"], None)
            params["data"] = _whole(params["data"])
        elif method == n.OUTPUT.name:
            clipboard = self._clipboards.setdefault(params["attachment_id"], ClipboardFilter())
            params["data"] = _base64(clipboard.receive(_bytes(params["data"])))
            return bool(params["data"])
        elif method in (n.EXITED.name, n.DETACHED.name):
            self._clipboards.pop(params["attachment_id"], None)
        return True


def _refusal(message: dict[str, Any], text: str) -> bytes | None:
    """Return the answer to what a guest may not do; None for a notification, which has none."""
    return encode_error(message["id"], ReadOnly(text)) if "id" in message else None


def _whole(data: str) -> str:
    """Return a picture, in base64, without what would write the clipboard."""
    return _base64(ClipboardFilter().receive(_bytes(data)))


def _bytes(text: str) -> bytes:
    return binascii.a2b_base64(text)


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _remove_secrets(message: Any) -> None:
    """Take the environment out of every session's configuration in JSON, however deep a layout in it is nested."""
    rest = [message]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            if "session_type" in value:
                for name in _SECRET:
                    value.pop(name, None)
            rest += value.values()
        elif isinstance(value, list):
            rest += value


_C0 = rb"[\x00-\x17\x19\x1c-\x1f\x7f]"  # executed within a sequence, ignored within a string
_BEGIN = re.compile(rb"\x1b(?P<c0>" + _C0 + rb"*)(?:\]|\Z)|\xc2(?:\x9d|\Z)")
_STRING_END = re.compile(rb"[\x07\x18\x1a]|\x1b\\|\xc2\x9c|(?=\x1b[^\\])")
_HEAD_END = re.compile(rb"[\x07\x18\x1a\x1b]|\xc2\x9c")
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if code not in (0x07, 0x18, 0x1A, 0x1B))
_MAX_HEAD = 64  # bytes of an OSC by which it is known whether it passes
_CLIPBOARD = re.compile(rb"0*(?:52|5522);|0*1337;(?:Copy|EndCopy)", re.IGNORECASE)
_UNDECIDED = re.compile(rb"0*(?:5(?:2|52{0,2})?|1(?:3(?:37?)?)?|1337;[A-Za-z]{0,6})?\Z")


class ClipboardFilter:
    r"""Takes out of a terminal's output what writes or reads the clipboard: OSC 52, OSC 5522, and iTerm2's Copy.

    The grammar is that of ECMA-48 as xterm.js parses it: control characters within ESC ... ] are executed, those
    within a string are ignored, and ESC ends a string. Sequences may come in any pieces.
    """

    def __init__(self) -> None:
        self._held = b""  # what may be the beginning of such a string
        self._is_dropping = False

    def receive(self, data: bytes) -> bytes:
        """Return what of the output passes; the beginning of a sequence waits for more."""
        data, self._held = self._held + data, b""
        passed: list[bytes] = []
        while data:
            data = self._drop(data) if self._is_dropping else self._pass(data, passed)
        return b"".join(passed)

    def _drop(self, data: bytes) -> bytes:
        """Return what follows the string that is dropped."""
        if (found := _STRING_END.search(data)) is not None:
            self._is_dropping = False
            return data[found.end() :]
        self._held = data[-1:] if data[-1:] in (b"\x1b", b"\xc2") else b""
        return b""

    def _pass(self, data: bytes, passed: list[bytes]) -> bytes:
        """Pass on what comes before the next string, and that unless it is the clipboard's; return what follows."""
        if (found := _BEGIN.search(data)) is None:
            passed.append(data)
            return b""
        passed.append(data[: found.start()])
        if found["c0"]:
            passed.append(found["c0"])  # executed at once, so that what is held has a bound
        begin = b"\x1b]" if found["c0"] is not None else b"\xc2\x9d"
        if not found[0].endswith((b"]", b"\x9d")):  # at the end of the data
            self._held = begin[:1]
            return b""
        rest = data[found.end() :]
        end = _HEAD_END.search(rest)
        head = (rest if end is None else rest[: end.start()]).translate(None, _CONTROLS)
        if _CLIPBOARD.match(head):
            self._is_dropping = True
            return rest
        if end is None and _UNDECIDED.match(head):
            # No number of a real sequence is so long: the zeros before it would be held without a bound.
            self._is_dropping = len(head) > _MAX_HEAD
            self._held = b"" if self._is_dropping else begin + head
            return b""
        passed.append(begin)
        return rest
