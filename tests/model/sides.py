"""Two sides that are asked the same: a real daemon, and the model of the contract."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from model.contract import Contract, Refused, Session, Snapshot
from support import DaemonProcess

ALL = ["active", "detached", "terminated", "archived"]
UNKNOWN = str(uuid.UUID(int=7))


class Sides(RuleBasedStateMachine):
    """What the rules of the machine are written with."""

    daemon: ClassVar[DaemonProcess]

    def __init__(self) -> None:
        super().__init__()
        self.model = Contract()
        self.restarts = 0
        self.client = self.daemon.client()
        self.had_snapshots: list[str] = []

    def teardown(self) -> None:
        self.client.close()

    def _empty(self) -> None:
        for session in self.client.call("session.list", status=ALL)["sessions"]:
            self.client.call("session.delete", id=session["id"], purge=True)
        for session in self.client.call("session.list_deleted")["sessions"]:
            self.client.call("session.delete", id=session["id"], purge=True)
        for workspace in self.client.call("workspace.list")["workspaces"]:
            self.client.call("workspace.delete", id=workspace["id"])

    def _session(self, at: int) -> str:
        """Return an id: mostly a session's, sometimes nobody's."""
        return pick([*self.model.sessions], at)

    def _workspace(self, at: int) -> str:
        return pick([*self.model.workspaces], at)

    def _both(self, method: str, params: dict[str, Any], expect: Callable[[], object]) -> Any:
        """Call daemon and model; return the result, None where both refuse."""
        answer = self.client.request(method, **params)
        self._compare(answer, expect)
        return answer.get("result")

    def _compare(self, answer: dict[str, Any], expect: Callable[[], object]) -> None:
        code = None
        try:
            expect()
        except Refused as refused:
            code = refused.code
        assert answer.get("error", {}).get("code") == code, answer

    def _pages(self, method: str, name: str, params: dict[str, Any], page: dict[str, Any]) -> list[Any]:
        """Return the entries of all pages, given the first."""
        found = list(page[name])
        while page["next_cursor"] is not None:
            assert len(page[name]) == params["limit"]
            page = self.client.call(method, **params, cursor=page["next_cursor"])
            found += page[name]
        return found

    def _moved(self, answer: dict[str, Any] | None, *, saved: bool = True) -> None:
        """Take over a session's last_active, which must not go back."""
        if answer is None:
            return
        session = self.model.sessions[answer["id"]]
        assert answer["last_active"] > session.last_active
        session.last_active = answer["last_active"]
        if saved:
            session.saved_active = session.last_active

    def _change_status(self, method: str, params: dict[str, Any], status: str) -> None:
        """Change a status on both sides: the same one again is no change."""
        changes: list[bool] = []
        answer = self._both(method, params, lambda: changes.append(self.model.change_status(params["id"], status)))
        if changes == [False]:
            assert answer is not None
            assert answer["last_active"] == self.model.sessions[params["id"]].last_active
        else:
            self._moved(answer)

    def _assert_all(self, shown: list[dict[str, Any]], expected: list[Session]) -> None:
        assert [one["id"] for one in shown] == [one.id for one in expected]
        for answer, session in zip(shown, expected, strict=True):
            self._assert_like(answer, session)

    def _assert_like(self, shown: dict[str, Any], session: Session) -> None:
        for name in ("id", "name", "session_type", "status", "workspace_id", "last_active"):
            assert shown[name] == getattr(session, name), (name, shown, session)
        assert shown["config"]["workspace_id"] == session.workspace_id


def pick(ids: list[str], at: int) -> str:
    """Return one of some ids, or one that nothing has."""
    return ids[at % len(ids)] if ids and at < 29 else UNKNOWN


def encoded(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def assert_snapshot(shown: dict[str, Any], snapshot: Snapshot) -> None:
    """Check that a snapshot's bytes are those that were saved."""
    assert shown["id"] == snapshot.id
    assert base64.b64decode(shown["terminal_buffer"]) == snapshot.buffer
    found = shown["scrollback"]
    assert (None if found is None else base64.b64decode(found)) == snapshot.scrollback
