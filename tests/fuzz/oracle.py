"""What answers a line is owed, by the JSON-RPC 2.0 specification and docs/protocol.md alone.

`owed` reads a line as a patient person would; `settle` compares that with what came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from orbit_protocol import notifications
from orbit_protocol.errors import ALL_ERRORS, InternalError, MessageTooLarge
from orbit_protocol.methods import ANY_METHOD, METHODS

CODES = {error.code for error in ALL_ERRORS}
KINDS = {error.kind: error for error in ALL_ERRORS}
NOTIFICATIONS = {one.name: one for one in notifications.NOTIFICATIONS}
MAX_BATCH = 100
UNREADABLE = object()


@dataclass(frozen=True)
class Debt:
    """One answer that is owed.

    Args:
        ids: The ids that it may carry; the second stands for a line that is broken somewhere.
        method: The method that was called, if one was.
        optional: Nothing is owed for certain: a broken line that looks like a notification.
    """

    ids: tuple[Any, ...]
    method: str | None = None
    optional: bool = False


def owed(line: bytes) -> tuple[bool, list[Debt]]:
    """Return whether the answer is a batch's, and the answers that are owed for one line."""
    if not line.strip():
        return False, []
    if not _is_utf8(line):
        return False, [_broken(line)]
    items = _items(line)
    if items is None:
        return False, _owed_one(line)
    if 1 <= len(items) <= MAX_BATCH:
        return True, [debt for item in items for debt in _owed_one(item)]
    return False, [Debt((None,))]


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _items(line: bytes) -> list[bytes] | None:
    """Return the items of a batch; one that is broken inside does not spoil the others."""
    try:
        return [bytes(item) for item in msgspec.json.decode(line, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _read(text: bytes) -> Any:
    """Return what a text says; members that no request has are skipped, whatever is in them."""
    for kind in (Any, _Members):
        try:
            found = msgspec.json.decode(text, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        return _set_members(found) if isinstance(found, _Members) else found
    return UNREADABLE


class _Members(msgspec.Struct):
    jsonrpc: Any = msgspec.UNSET
    method: Any = msgspec.UNSET
    params: Any = msgspec.UNSET
    id: Any = msgspec.UNSET


def _set_members(found: _Members) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(found).items() if value is not msgspec.UNSET}


class _Outline(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()


def _broken(line: bytes) -> Debt:
    """A line with an error somewhere inside: where its outline can be read, its id may be too."""
    try:
        outline = msgspec.json.decode(line, type=_Outline)
        found = msgspec.json.decode(outline.id) if outline.id else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Debt((None,))
    return Debt((None, found), optional=not outline.id)


def _owed_one(text: bytes) -> list[Debt]:
    item = _read(text)
    if item is UNREADABLE:
        return [_broken(text)]
    if not isinstance(item, dict):
        return [Debt((None,))]
    found = item.get("id")
    readable = found is None or (isinstance(found, str | int | float) and not isinstance(found, bool))
    valid = (
        item.get("jsonrpc") == "2.0"
        and isinstance(item.get("method"), str)
        and isinstance(item.get("params", {}), dict | list)
        and readable
    )
    if not valid:
        return [Debt((found if readable else None,))]
    return [Debt((found,), item["method"])] if "id" in item else []


def settle(debts: Iterable[Debt], answers: Iterable[Any]) -> None:
    """Check each answer, and that each is one that is owed and each debt is paid once.

    Ids may be alike, so who pays which debt is a matching; where one covers all answers and one
    covers all debts, one covers both (Mendelsohn and Dulmage, 1958).
    """
    owing, came = list(debts), list(answers)
    for answer in came:
        check_shape(answer)
    fits = [[_fits(debt, answer) for debt in owing] for answer in came]
    unasked = _unmatched(fits)
    assert not unasked, f"nobody asked for {[came[one] for one in unasked]!r}"
    certain = [number for number, debt in enumerate(owing) if not debt.optional]
    unpaid = _unmatched([[row[number] for row in fits] for number in certain])
    assert not unpaid, f"never answered: {[owing[certain[one]] for one in unpaid]!r}"


def _unmatched(fits: list[list[bool]]) -> list[int]:
    """Return the rows that a largest matching of rows and columns leaves out (augmenting paths)."""
    row_of: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in row_of or place(row_of[column], tried):
                    row_of[column] = row
                    return True
        return False

    return [row for row in range(len(fits)) if not place(row, set())]


def _fits(debt: Debt, answer: dict[str, Any]) -> bool:
    """Tell whether an answer may be the one that is owed."""
    if not any(_same(answer["id"], one) for one in debt.ids):
        return False
    if "result" in answer:
        return debt.method in METHODS and _is_result(METHODS[debt.method].result, answer["result"])
    code = answer["error"]["code"]
    if len(debt.ids) > 1:
        return code in (-32700, -32600, -32601, -32602)
    if debt.method is None:
        return code in (-32700, -32600)
    if debt.method not in METHODS:
        return bool(code == -32601)
    return code in {error.code for error in (*ANY_METHOD, *METHODS[debt.method].errors)}


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _is_result(kind: Any, result: Any) -> bool:
    try:
        msgspec.json.decode(json.dumps(result), type=kind)
    except msgspec.DecodeError:
        return False
    return True


def check_shape(answer: Any) -> None:
    """Check that an answer is a JSON-RPC 2.0 response with Orbit's error members, and none of a defect."""
    assert isinstance(answer, dict), answer
    assert answer["jsonrpc"] == "2.0", answer
    assert set(answer) in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"}), answer
    if "error" not in answer:
        return
    error = answer["error"]
    assert set(error) == {"code", "message", "data"}, answer
    assert {"kind", "hint", "retryable"} <= set(error["data"]), answer
    assert KINDS[error["data"]["kind"]].code == error["code"], answer
    assert isinstance(error["message"], str), answer
    assert error["message"], answer
    assert isinstance(error["data"]["retryable"], bool), answer
    assert error["code"] != InternalError.code, answer
    assert error["data"]["kind"] != MessageTooLarge.kind or answer["id"] is None, answer


def unbatched(lines: Iterable[Any]) -> list[Any]:
    """Return the answers of lines, those of batches one by one; what the daemon tells unasked is left out."""
    asked = (line for line in lines if not _is_notice(line))
    return [answer for line in asked for answer in (line if isinstance(line, list) else [line])]


def _is_notice(line: Any) -> bool:
    """Tell whether a line is a notification, and check that it is one of the protocol's."""
    if not isinstance(line, dict) or "method" not in line:
        return False
    notification = NOTIFICATIONS[line["method"]]
    assert set(line) == {"jsonrpc", "method", "params"}, line
    assert _is_result(notification.params, line["params"]), line
    return True
