"""`orbitctl workspace` and `orbitctl rpc` beside the real daemon."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctl_support import Orbitctl

ODD = '{ "b":1.0,  "a":[1e3, "\\u00e9"], "b2":12345678901234567890 }'


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_a_layout_is_kept_to_the_letter(ctl: Orbitctl, source: str) -> None:
    """A layout's JSON comes back with the same bytes, wherever it came from."""
    (ctl.home / "layout.json").write_text(ODD)
    given = {"argument": ODD, "file": "@layout.json", "stdin": "-"}[source]
    ctl.ok("workspace", "create", "shop", "--layout-type", "grid", "--config", given, stdin=ODD.encode())
    shown = ctl.ok("workspace", "show", "shop", "--json")
    assert ODD in shown.text
    assert shown.json["layout"]["layout_type"] == "grid"


def test_numbers_that_no_float_holds_are_shown(own_ctl: Orbitctl) -> None:
    """Lists, templates and events print what the daemon keeps: as text where it is no number of Python's."""
    digits = "9" * 5000
    own_ctl.ok("workspace", "create", "shop", "--config", '{"a": 1e400, "b": -1E+999}')
    own_ctl.ok("workspace", "create", "digits", "--config", digits)
    assert [line.split()[1] for line in own_ctl.ok("workspace", "list").lines[1:]] == ["shop", "digits"]
    shown = own_ctl.ok("workspace", "list", "--format", "{layout.config}").lines
    assert shown == ['{"a":"1e400","b":"-1E+999"}', digits]
    assert "workspace.created" in own_ctl.ok("events", "--workspace", "shop").text


PRETTY = b'{\r\n  "a": [\n    1,\n    2\n  ]\n}\n'


@pytest.mark.parametrize("text", [b'{"a": [1, 2]}\n', PRETTY, b"\xef\xbb\xbf" + PRETTY, b'\n\n{\n"a":[1,2]\n}\n\n'])
@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_json_may_stand_on_many_lines(ctl: Orbitctl, source: str, text: bytes) -> None:
    """JSON of an ordinary file, pretty-printed or with an end of line, is taken wherever JSON is taken."""
    (ctl.home / "l.json").write_bytes(text)
    given = {"argument": text.decode(), "file": "@l.json", "stdin": "-"}[source]
    ctl.ok("workspace", "create", "shop", "--config", given, stdin=text)
    ctl.ok("workspace", "set-layout", "shop", "--config", given, stdin=text)
    assert ctl.ok("workspace", "show", "shop", "--json").json["layout"]["config"] == {"a": [1, 2]}
    request = b'{\n"name": "web",\n\n"config": {"session_type":\n"local"}\n}\n'
    (ctl.home / "r.json").write_bytes(request)
    given = {"argument": request.decode(), "file": "@r.json", "stdin": "-"}[source]
    assert ctl.ok("rpc", "call", "session.create", given, stdin=request).json["name"] == "web"


REQUEST = (
    '{"jsonrpc":"2.0","method":"workspace.create",'
    '"params":{"name":"smuggled","layout":{"layout_type":"tabs","config":{}}},"id":%s}'
)


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\r", "\n\n", "\n\r\n"])
def test_a_request_inside_of_json_is_data(ctl: Orbitctl, separator: str) -> None:
    """A whole request that stands on a line of its own in a file is never carried out, as params neither."""
    requests = [REQUEST % number for number in (1, 2, 99, "null")] + [REQUEST.replace(',"id":%s', "")]
    lines = separator.join(["[1", *(f",{one}" for one in requests), *(f",{separator}{one}" for one in requests), "]"])
    ctl.ok("workspace", "create", "shop", "--config", "-", stdin=lines.encode())
    assert len(ctl.ok("workspace", "show", "shop", "--json").json["layout"]["config"]) == 11
    assert ctl("rpc", "call", "daemon.ping", "-", stdin=f'{{"x": {lines}}}'.encode()).code == 1
    assert [one["name"] for one in ctl.ok("workspace", "list", "--json").json["workspaces"]] == ["shop"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON: it is empty"),
        (b'{"a": 1}\n' + REQUEST.encode(), "not JSON: more follows the first value (line 2, column 1)"),
        (b'{}, "method": "daemon.shutdown"', "not JSON: more follows the first value (line 1, column 3)"),
        (b'{"a": \n', "not JSON: it ends too early"),
        (b'["caf\xe9"]', "not UTF-8 (line 1, column 6)"),
        (b'["\\ud800"]', "not JSON: it ends too early"),
        (b"\xff\xfe[\x00]\x00", "not UTF-8 (line 1, column 1)"),
        (b"\x00", "not JSON: invalid character (line 1, column 1)"),
        (b"[" * 600 + b"]" * 600, "nested deeper than 5"),
    ],
)
def test_what_is_not_json_is_refused_by_the_file_s_name(ctl: Orbitctl, text: bytes, message: str) -> None:
    """Not exactly one value, not UTF-8, nested too deep: usage errors that name the file and the place."""
    (ctl.home / "l.json").write_bytes(text)
    runs = [
        ctl("workspace", "create", "shop", "--config", "@l.json"),
        ctl("rpc", "call", "daemon.ping", "@l.json"),
    ]
    assert [(one.code, f"l.json is {message}" in one.err) for one in runs] == [(2, True)] * 2, runs
    ended = ctl("rpc", "call", "daemon.ping", "-", stdin=text)
    assert (ended.code, f"what stdin holds is {message}" in ended.err) == (2, True), ended
    assert ctl.ok("workspace", "list", "-q").lines == []


def test_a_layout_may_be_nested_as_deep_as_messages_allow(ctl: Orbitctl) -> None:
    """A layout of 500 levels comes back; one of 501 is refused, and so are params that make a message too deep."""
    ctl.ok("workspace", "create", "shop", "--config", "-", stdin=b"[" * 500 + b"]" * 500)
    assert ctl.ok("workspace", "list", "--json").text.count("[") == 501
    ended = ctl("workspace", "set-layout", "shop", "--config", "-", stdin=b"[" * 501 + b"]" * 501)
    assert (ended.code, "nested deeper than 500" in ended.err) == (2, True)
    params = [b'{"x":' + b"[" * depth + b"]" * depth + b"}" for depth in (510, 511)]
    assert [ctl("rpc", "call", "daemon.ping", "-", stdin=one).code for one in params] == [1, 2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
BLANKS = st.text(" \t\r\n", max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_json_reaches_the_daemon_as_one_message(ctl: Orbitctl, data: st.DataObject) -> None:
    """Whatever stands between its tokens, a value comes back equal, from stdin and from a file."""
    value, pieces = data.draw(JSON), []
    for piece in json.JSONEncoder(separators=(",", ":"), ensure_ascii=data.draw(st.booleans())).iterencode(value):
        pieces += [data.draw(BLANKS), piece]
    text = "".join([*pieces, data.draw(BLANKS)]).encode()
    (ctl.home / "l.json").write_bytes(text)
    name = str(uuid.uuid4())
    created = ctl.ok(
        "workspace", "create", name, "--config", data.draw(st.sampled_from(["-", "@l.json"])), "--json", stdin=text
    )
    assert created.json["layout"]["config"] == value
    ctl.ok("workspace", "delete", name, "--yes")


def test_one_part_of_a_layout_is_replaced(ctl: Orbitctl) -> None:
    """set-layout keeps what it is not given."""
    ctl.ok("workspace", "create", "shop", "--layout-type", "grid", "--config", ODD)
    ctl.ok("workspace", "set-layout", "shop", "--layout-type", "tabs")
    assert ODD in ctl.ok("workspace", "show", "shop", "--json").text
    ctl.ok("workspace", "set-layout", "shop", "--config", "[]")
    layout = ctl.ok("workspace", "show", "shop", "--json").json["layout"]
    assert layout == {"layout_type": "tabs", "config": []}


def test_workspaces_are_listed_and_renamed(ctl: Orbitctl) -> None:
    """List shows each workspace in a row, under its newest name."""
    found = ctl.id("workspace", "create", "shop")
    ctl.ok("workspace", "rename", found[:6], "store")
    title, row = ctl.ok("workspace", "list").lines
    assert title.split() == ["ID", "NAME", "LAYOUT", "ACTIVE", "SESSION", "CREATED"]
    assert row.split()[:4] == [found, "store", "tabs", "-"]
    assert ctl("workspace", "show", "shop").code == 4


def test_a_session_is_put_in_front(ctl: Orbitctl) -> None:
    """set-active takes names, and --none clears it."""
    ctl.ok("workspace", "create", "shop")
    session = ctl.id("session", "create", "--name", "api", "--workspace", "shop")
    assert ctl.ok("workspace", "set-active", "shop", "api", "--json").json["active_session_id"] == session
    assert ctl.ok("workspace", "set-active", "shop", "--none", "--json").json["active_session_id"] is None
    assert ctl("workspace", "set-active", "shop").code == 2
    ctl.ok("session", "move", "api", "--none")
    ended = ctl("workspace", "set-active", "shop", "api")
    assert (ended.code, "hint: Move it there first" in ended.err) == (4, True)


@pytest.mark.parametrize("with_sessions", [True, False])
def test_deleting_a_workspace_keeps_its_sessions_unless_told(ctl: Orbitctl, with_sessions: bool) -> None:
    """Sessions stay without a workspace, or go with --delete-sessions."""
    ctl.ok("workspace", "create", "shop")
    session = ctl.id("session", "create", "--workspace", "shop")
    assert ctl("workspace", "delete", "shop").code == 2
    ctl.ok("workspace", "delete", "shop", "--yes", *(["--delete-sessions"] if with_sessions else []))
    assert ctl.ok("session", "list", "-q").lines == ([] if with_sessions else [session])


def test_any_method_is_called_by_name(ctl: Orbitctl) -> None:
    """Rpc call prints the result as it came; params come from the argument, a file or stdin."""
    assert ctl.ok("rpc", "call", "daemon.ping").text == '{"pong":true}\n'
    (ctl.home / "p.json").write_text('{"status": ["terminated"]}')
    for source in ('{"status":["terminated"]}', "@p.json", "-"):
        result = ctl.ok("rpc", "call", "session.list", source, stdin=b'{"status": ["terminated"]}').json
        assert result == {"sessions": [], "next_cursor": None}


def test_errors_of_calls_are_told(ctl: Orbitctl) -> None:
    """An unknown method, bad params and a missing session have their exit codes."""
    ended = ctl("rpc", "call", "no.such")
    assert (ended.code, "no.such" in ended.err or "not found" in ended.err.lower()) == (1, True)
    assert "orbitctl rpc discover" in ended.err
    ended = ctl("rpc", "call", "maintenance.cleanup_snapshots", '{"keep_last_n": 0}')
    assert ended.code == 1
    assert "error: 'keep_last_n' must be 1 or more\n" in ended.err
    assert ctl("rpc", "call", "session.get", '{"id": "x"}').code == 4
    ended = ctl("rpc", "call", "caf\udce9")
    assert ended.code == 2
    assert "error: this is not UTF-8: caf\\xe9\n" in ended.err


def test_discover_prints_the_openrpc_document(ctl: Orbitctl) -> None:
    """The document names the methods."""
    document = ctl.ok("rpc", "discover").json
    assert "session.create" in {method["name"] for method in document["methods"]}
