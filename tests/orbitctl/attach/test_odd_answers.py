"""Answers that are none of the protocol's: another program serves the socket, or a version that does not fit."""

from __future__ import annotations

import socket
from typing import Any

import msgspec
import pytest

from orbitctl.attach.attachment import AttachResult
from orbitctl.errors import CommandError, ExitCode
from scripted_attach import ScriptedTerminal, attached, scripted_attachment, send

WHOLE = msgspec.to_builtins(attached(1, "a"))["result"]
ATTACHES = [
    None,
    [],
    {},
    {**WHOLE, "repaint": 1},
    {**WHOLE, "repaint": "?"},
    {**WHOLE, "attachment_id": 1},
    {**WHOLE, "history_line": "x"},
    {**WHOLE, "session": []},
    {**WHOLE, "session": {"id": 1, "name": "web"}},
    {**WHOLE, "session": {"id": "s", "name": 1}},
]
OTHERS: list[dict[str, Any]] = [
    {"error": {"code": -32000, "message": "full", "data": {"written": "x"}}},
    {"error": {"code": -32000, "message": "full", "data": []}},
    {"error": {"code": "x", "message": 1}},
    {"result": []},
    {"result": {"history_line": "x", "cols": 80, "rows": 24}},
]


@pytest.mark.parametrize("result", ATTACHES, ids=str)
def test_an_attach_that_cannot_be_read_ends_the_command(result: Any) -> None:
    """With a message and exit code 7, and no second attempt."""
    terminal = ScriptedTerminal()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {"id": 1, "result": result})
        with pytest.raises(CommandError) as raised:
            scripted_attachment(terminal, ours).run()
    terminal.close()
    assert raised.value.exit_code is ExitCode.PROTOCOL


@pytest.mark.parametrize("answer", OTHERS, ids=str)
def test_other_answers_that_cannot_be_read_lose_the_connection(answer: dict[str, Any]) -> None:
    """Of input, and of what is asked when the window is left: the user gets away all the same."""
    terminal = ScriptedTerminal(b"early\x1c")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, attached(1, "a"), *({"id": number, **answer} for number in (2, 3, 4)))
        result = scripted_attachment(terminal, ours).run()
    terminal.close()
    assert isinstance(result, AttachResult)
    assert result.reason == "detached"
