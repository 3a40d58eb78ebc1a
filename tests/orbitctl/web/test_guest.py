"""What a read-only guest may ask for and see: messages in, messages out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from orbit_protocol import notifications as n
from orbit_protocol.json_text import MAX_LAYOUT_NESTING
from orbit_protocol.methods import METHODS
from orbitctl.web.guest import PARAMS, ClipboardFilter, Guest

SETS = b"\x1b]52;c;aGVsbG8=\x07"


def asked(text: str) -> tuple[Any, Any]:
    """Return what is sent to orbitd for a guest's message, and what the guest is answered, both decoded."""
    sent, answer = Guest().request(text)
    return (None if sent is None else json.loads(sent)), (None if answer is None else json.loads(answer))


def call(method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


@pytest.mark.parametrize("method", sorted(METHODS))
def test_only_listed_methods_are_passed_on(method: str) -> None:
    """Of every method of the table, those that are not listed are refused: a new one is, until it is listed."""
    sent, answer = asked(call(method))
    if method in PARAMS:
        assert sent["method"] == method
    else:
        assert (sent, answer["error"]["data"]["kind"], answer["id"]) == (None, "read_only", 1)


def test_what_changes_something_is_not_listed() -> None:
    """A guest reads: what types, starts, ends, renames or deletes is refused, and so is what waits for ever."""
    assert sorted(PARAMS) == [
        "$/cancelRequest",
        "daemon.ping",
        "events.list",
        "events.subscribe",
        "events.unsubscribe",
        "rpc.discover",
        "session.attach",
        "session.find",
        "session.get",
        "session.leave",
        "session.list",
        "session.refresh",
        "session.resize",
        "session.screen",
        "workspace.find",
        "workspace.get",
        "workspace.list",
    ]


def test_params_that_are_passed_on_are_known() -> None:
    """Each listed param is one of its method: a misspelt one would be left out, and never be missed."""
    for name, params in PARAMS.items():
        assert params <= {*METHODS[name].params.__struct_encode_fields__}, name


def test_a_guest_attaches_to_read() -> None:
    """An attach is read-only whatever it asks for, runs no program, and brings nothing that programs can see."""
    everything = {"env": {"A": "b"}, "terminal": {"foreground": "#000000"}, "start": True, "before": ["x"], "umask": 0}
    sent, _ = asked(call("session.attach", id="s", cols=80, rows=24, read_only=False, **everything))
    assert sent["params"] == {"id": "s", "cols": 80, "rows": 24, "read_only": True}


def test_a_guest_keeps_no_notification_from_the_user() -> None:
    """A guest's subscription does not say that it shows notifications by itself: orbitd would show none."""
    sent, _ = asked(call("events.subscribe", since="a-1", handles=["terminal.notification"]))
    assert sent["params"] == {"since": "a-1"}


def test_a_number_that_no_float_holds_is_passed_on_as_text() -> None:
    """A layout may have one; the guest would wait for the answer for ever."""
    answer = Guest().message(b'{"jsonrpc":"2.0","id":1,"result":{"workspaces":[{"layout":{"config":1e400}}]}}')
    assert answer is not None
    assert json.loads(answer)["result"] == {"workspaces": [{"layout": {"config": "1e400"}}]}


def test_a_screen_as_bytes_is_refused() -> None:
    """The formats of a screen are those that no terminal obeys."""
    assert asked(call("session.screen", id="s", format="svg"))[0]["params"] == {"id": "s", "format": "svg"}
    sent, answer = asked(call("session.screen", id="s", format="vt"))
    assert (sent, answer["error"]["data"]["kind"]) == (None, "read_only")


@pytest.mark.parametrize(
    "text",
    [
        '[{"jsonrpc": "2.0", "id": 1, "method": "session.input"}]',
        '"session.input"',
        "not JSON",
        '{"id": {}, "method": "daemon.ping"}',
        '{"id": true, "method": "daemon.ping"}',
        "[" * 10_000,
        "\ud800",
    ],
)
def test_what_is_no_single_request_is_refused(text: str) -> None:
    """Batches, other JSON, broken JSON, odd ids and deep nesting get an error, and orbitd gets nothing."""
    sent, answer = asked(text)
    assert (sent, answer["id"]) == (None, None)
    assert answer["error"]["data"]["kind"] in ("parse_error", "invalid_request")


def test_a_name_that_stands_twice_means_one_thing() -> None:
    """Orbitd gets what was checked: of two members of one name both sides see the same."""
    sent, answer = asked('{"id": 1, "method": "session.input", "method": "daemon.ping", "params": {}}')
    assert sent == {"jsonrpc": "2.0", "id": 1, "method": "daemon.ping", "params": {}}
    sent, answer = asked('{"id": 1, "method": "daemon.ping", "method": "session.input", "params": {}}')
    assert (sent, answer["error"]["data"]["kind"]) == (None, "read_only")


def test_a_refused_notification_has_no_answer() -> None:
    """A message without an id is dropped when it is not for guests."""
    assert asked('{"jsonrpc": "2.0", "method": "session.input", "params": {"data": "YQ=="}}') == (None, None)


def shown(guest: Guest, method: str, **params: Any) -> Any:
    """Return the params of a notification as the guest gets it; None for nothing."""
    line = guest.message(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())
    return None if line is None else json.loads(line)["params"]


def output(guest: Guest, data: bytes, attachment: str = "a") -> bytes:
    """Return what of an output the guest gets."""
    params = shown(guest, "session.output", attachment_id=attachment, data=base64.b64encode(data).decode())
    return b"" if params is None else base64.b64decode(params["data"])


@pytest.mark.parametrize("cut", range(1, len(SETS)))
def test_the_clipboard_is_kept_over_messages(cut: int) -> None:
    """OSC 52 that is cut at any byte into two messages is taken out, and what stands around it is there."""
    guest = Guest()
    assert output(guest, b"a" + SETS[:cut]) + output(guest, SETS[cut:] + b"b") == b"ab"


def test_the_clipboard_is_kept_by_attachment() -> None:
    """What has begun in one attachment ends in that one, whatever comes of another between."""
    guest = Guest()
    assert output(guest, SETS[:9]) == b""
    assert output(guest, b"other", "b") == b"other"
    assert output(guest, SETS[9:] + b"x") == b"x"


def test_a_picture_ends_what_had_begun() -> None:
    """After a repaint the output is seen from a fresh start: half a sequence from before swallows nothing."""
    guest = Guest()
    assert output(guest, SETS[:9]) == b""
    picture = base64.b64encode(b"\x1bcpicture" + SETS).decode()
    params = shown(guest, "session.repaint", attachment_id="a", data=picture, cols=80, rows=24, reason="behind")
    assert base64.b64decode(params["data"]) == b"\x1bcpicture"
    assert output(guest, b"after") == b"after"


def test_the_picture_of_an_attach_sets_no_clipboard() -> None:
    """The repaint in an answer is looked through, too."""
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"repaint": base64.b64encode(SETS + b"x").decode()}})
    answer = Guest().message(line.encode())
    assert answer is not None
    assert base64.b64decode(json.loads(answer)["result"]["repaint"]) == b"x"


def test_no_environment_is_shown() -> None:
    """A session's variables, which hold passwords, are in no answer and no event; other fields of that name stay."""
    config = {"session_type": "local", "command": "x", "env": {"TOKEN": "1"}, "env_bytes": [["A", "B"]]}
    result = {"sessions": [{"id": "s", "config": config}], "layout": {"env": 1}}
    line = Guest().message(json.dumps({"id": 1, "result": result}).encode())
    assert line is not None
    kept = {"session_type": "local", "command": "x"}
    assert json.loads(line)["result"] == {"sessions": [{"id": "s", "config": kept}], "layout": {"env": 1}}
    assert shown(Guest(), "event", kind="session.updated", data={"config": config})["data"] == {"config": kept}


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
def test_a_layout_that_is_nested_deep_is_shown(begin: str, end: str) -> None:
    """As deep as a layout may be: a list of workspaces with such a one ends no guest's connection."""
    config = begin * MAX_LAYOUT_NESTING + "1" + end * MAX_LAYOUT_NESTING
    layout = f'{{"layout_type":"x","config":{config}}}'
    line = f'{{"jsonrpc":"2.0","id":1,"result":{{"workspaces":[{{"layout":{layout}}}]}}}}'.encode()
    assert Guest().message(line) == line


def test_unknown_notifications_are_not_shown() -> None:
    """What orbitd sends unasked is passed on by its name, too."""
    assert shown(Guest(), "session.secret", data="x") is None
    known = {one.name for one in n.NOTIFICATIONS}
    assert {name for name in known if shown(Guest(), name, attachment_id="a", data="YQ==") is None} == {"$/progress"}


@pytest.mark.parametrize(
    ("data", "passed"),
    [
        (b"\x1b]52;c;YQ==\x1b\\x", b"x"),
        (b"\xc2\x9d52;c;YQ==\xc2\x9cx", b"x"),
        (b"\x1b]0052;c;YQ==\x07x", b"x"),
        (b"\x1b\r\n]5\n2;c;YQ==\x07x", b"\r\nx"),
        (b"\x1b]5522;x\x07x", b"x"),
        (b"\x1b]1337;Copy=:YQ==\x07x", b"x"),
        (b"\x1b]52;c;YQ==\x1b]52;c;YQ==\x07x", b"x"),
        (b"\x1b]" + b"0" * 100 + b"52;c;YQ==\x07x", b"x"),
        (b"\x1bP1;2q\x1b]52;c;YQ==\x07x", b"\x1bP1;2qx"),
        (b"\x1b]0;title\x07x", b"\x1b]0;title\x07x"),
        (b"\x1b]8;;http://e\x1b\\l\x1b]8;;\x1b\\", b"\x1b]8;;http://e\x1b\\l\x1b]8;;\x1b\\"),
        (b"\x1b]5;1;?\x07", b"\x1b]5;1;?\x07"),
        (b"\x1b]521;1\x07", b"\x1b]521;1\x07"),
        (b"\x1b]1337;File=a:YQ==\x07", b"\x1b]1337;File=a:YQ==\x07"),
        (b"\x1b[52;1H\x1b(B]52;c\xc2\xa0", b"\x1b[52;1H\x1b(B]52;c\xc2\xa0"),
        ("Grüße 日本 \u00a9".encode(), "Grüße 日本 \u00a9".encode()),
    ],
)
def test_the_grammar_of_the_clipboard(data: bytes, passed: bytes) -> None:
    """Strings that set the clipboard are taken out in each of their spellings, whole and byte by byte; others pass."""
    assert ClipboardFilter().receive(data) == passed
    bytewise = ClipboardFilter()
    assert b"".join(bytewise.receive(data[at : at + 1]) for at in range(len(data))) == passed


def test_what_is_held_has_a_bound() -> None:
    """However long the beginning of a sequence becomes, a few bytes of it are kept."""
    for piece in (b"\x00", b"0", b"\x1b"):
        clipboard = ClipboardFilter()
        for start in (b"\x1b", b"\x1b]", b"\x1b]52;c;"):
            clipboard.receive(start)
            for _ in range(100):
                clipboard.receive(piece * 1000)
            assert len(clipboard._held) <= 80
