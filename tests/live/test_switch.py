"""`session.switch`: which window is moved to another session, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from live.sessions import create, start
from live_support import encoded
from support import DaemonProcess, RawClient


class Windows:
    """Clients that are attached, each on a connection of its own."""

    def __init__(self, daemon: DaemonProcess, clients: ExitStack) -> None:
        self._daemon, self._clients = daemon, clients

    def open(self, session_id: str, before: list[str] | None, **params: Any) -> RawClient:
        """Attach a client."""
        client = self._clients.enter_context(self._daemon.client())
        given = params if before is None else {"before": before, **params}
        client.call("session.attach", id=session_id, cols=80, rows=24, attachment_id="window", **given)
        return client


@pytest.fixture
def windows(shared_daemon: DaemonProcess) -> Iterator[Windows]:
    """Attaches clients."""
    with ExitStack() as clients:
        yield Windows(shared_daemon, clients)


def switched_to(client: RawClient) -> str:
    """Read until the client is told to show another session; return that."""
    while (notice := client.notice())["method"] != "session.detached":
        pass
    assert (notice["params"]["attachment_id"], notice["params"]["reason"]) == ("window", "switched")
    return str(notice["params"]["session_id"])


def test_the_window_that_typed_last_is_switched(shared_client: RawClient, windows: Windows) -> None:
    """Not the one that has come later, nor one that only looks; the others stay."""
    here, there = start(shared_client, "cat"), start(shared_client, "cat")
    typing, later = windows.open(here, []), windows.open(here, [])
    windows.open(here, [], read_only=True)
    typing.call("session.input", attachment_id="window", data=encoded(b"x"))
    answer = shared_client.call("session.switch", id=here, to=there)
    assert (answer["id"], answer["live"]) == (there, True)
    assert switched_to(typing) == there
    assert typing.request("session.leave", attachment_id="window")["error"]["code"] == 1006
    assert shared_client.call("session.get", id=here)["clients"] == 2
    # Nobody else has typed: the one that owns the size is meant.
    shared_client.call("session.switch", id=here, to=there)
    assert switched_to(later) == there


def test_without_a_target_it_is_the_one_before(shared_client: RawClient, windows: Windows) -> None:
    """The newest of those that the window has shown and that run; else the newest session that runs."""
    here, one, two = (start(shared_client, "cat") for _ in range(3))
    ended = create(shared_client)
    before = windows.open(here, [here, "no session", ended, one])
    assert shared_client.call("session.switch", id=here)["id"] == one
    assert switched_to(before) == one
    fresh = windows.open(here, [])
    shared_client.call("session.switch", id=here)
    assert switched_to(fresh) == two


def test_a_switch_to_itself_does_nothing(shared_client: RawClient, windows: Windows) -> None:
    """The window stays attached."""
    here = start(shared_client, "cat")
    client = windows.open(here, [])
    assert shared_client.call("session.switch", id=here, to=here)["clients"] == 1
    client.call("session.resize", attachment_id="window", cols=70, rows=20)


def test_a_window_that_is_being_drawn_is_not_switched(shared_client: RawClient) -> None:
    """The caller is asked to try again: the client has no answer yet, and would take the attach for refused."""
    here, there = start(shared_client, "cat"), start(shared_client, "cat")
    attach = {"id": here, "cols": 80, "rows": 24, "attachment_id": "window", "before": []}
    calls = [("session.attach", attach), ("session.switch", {"id": here, "to": there})]
    batch = [{"jsonrpc": "2.0", "method": name, "params": params, "id": name} for name, params in calls]
    attached, switched = shared_client.ask(json.dumps(batch))
    assert attached["result"]["attachment_id"] == "window"
    assert switched["error"]["code"] == -32000
    shared_client.call("session.switch", id=here, to=there)


def test_what_cannot_be_switched_is_refused(shared_client: RawClient, windows: Windows) -> None:
    """A session without a window, or with one that cannot follow; a target that does not run; a caller outside."""
    here, there, recorded = start(shared_client, "cat"), start(shared_client, "cat"), create(shared_client)

    def refusal(**params: Any) -> tuple[int, str | None]:
        error = shared_client.request("session.switch", **params)["error"]
        return error["code"], error["data"].get("reason")

    assert refusal(id=here, to=there) == (1006, "no_window")
    assert refusal(to=there) == (1006, "outside")
    windows.open(here, [], read_only=True)
    assert refusal(id=here, to=there) == (1006, "no_window")
    windows.open(here, None)
    assert refusal(id=here, to=there) == (1006, "client")
    windows.open(here, [])
    assert refusal(id=here, to=recorded) == (1006, None)
    assert refusal(id=here, to="no session") == (1000, None)
    assert refusal(id="no session", to=there) == (1000, None)
    shared_client.call("session.terminate", id=there)
    assert refusal(id=here) == (1006, "alone")
    assert shared_client.call("session.get", id=here)["clients"] == 3
