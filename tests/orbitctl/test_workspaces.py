"""`orbitctl workspace` and `orbitctl rpc` beside the real daemon."""

from __future__ import annotations

import pytest

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
    for given in ('{"status":["terminated"]}', "@p.json", "-"):
        result = ctl.ok("rpc", "call", "session.list", given, stdin=b'{"status": ["terminated"]}').json
        assert result == {"sessions": [], "next_cursor": None}


def test_errors_of_calls_are_told(ctl: Orbitctl) -> None:
    """An unknown method, bad params and a missing session have their exit codes."""
    ended = ctl("rpc", "call", "no.such")
    assert (ended.code, "no.such" in ended.err or "not found" in ended.err.lower()) == (1, True)
    assert "orbitctl rpc discover" in ended.err
    ended = ctl("rpc", "call", "maintenance.cleanup_snapshots", '{"keep_last_n": 0}')
    assert ended.code == 1
    assert "$.keep_last_n" in ended.err
    assert ctl("rpc", "call", "session.get", '{"id": "x"}').code == 4


def test_discover_prints_the_openrpc_document(ctl: Orbitctl) -> None:
    """The document names the methods."""
    document = ctl.ok("rpc", "discover").json
    assert "session.create" in {method["name"] for method in document["methods"]}
