"""The rules of the state machine: what may be called, in whatever order, with what is drawn."""

from __future__ import annotations

import signal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from fuzz.target import count
from model.contract import Session, Snapshot, Workspace
from model.sides import ALL, Sides, assert_snapshot, encoded, pick

MOST_RESTARTS = 3

NAMES = st.sampled_from([None, "alpha", "beta", "gamma", "é日"])
BUFFERS = st.binary(max_size=200) | st.sampled_from([b"", b"\0", b"\x1b[31m" + b"line\r\n" * 2000])
LAYOUTS = st.sampled_from(
    [{"layout_type": "grid", "config": {"z": 1, "a": [1, 2]}}, {"layout_type": "t", "config": None}]
)
INDEX = st.integers(0, 30)


class Machine(Sides):
    """Every rule makes one call of the daemon and of the model, and compares."""

    @initialize()
    def begin(self) -> None:
        """Begin with a few of everything, without the cost of a new daemon."""
        self._empty()
        assert self.client.call("session.list", status=ALL) == {"sessions": [], "next_cursor": None}
        for number in range(2):
            self.create_workspace(f"space-{number}", {"layout_type": "grid", "config": [number]})
        names: tuple[str | None, ...] = ("alpha", "beta", None, None)
        for at, name in enumerate(names):
            self.create(name, "local", at, joins=at < 3)
            self.save(at, b"first screen", None)
            self.save(at, b"second screen", b"lines above")
        self.end(0, "terminate")
        self.archive(0, everything=True)
        self.end(1, "terminate")
        for number in range(2):
            self.set_active(number, 1 - number, own=True, none=False)
            assert [*self.model.workspaces.values()][number].active_session_id

    # Sessions.

    @rule(name=NAMES, kind=st.sampled_from(["local", "ssh"]), at=INDEX, joins=st.booleans())
    def create(self, name: str | None, kind: str, at: int, joins: bool) -> None:
        workspace_id = self._workspace(at) if joins else None
        config: dict[str, Any] = {"session_type": kind, "workspace_id": workspace_id}
        if kind == "ssh":
            config["host"] = "example.org"
        params = {"config": config, "name": name}
        answer = self._both("session.create", params, lambda: self.model.may_create(name, workspace_id))
        if answer is not None:
            moment = answer["last_active"]
            self.model.sessions[answer["id"]] = Session(
                answer["id"], name, kind, "active", workspace_id, moment, moment
            )

    @rule(at=INDEX, status=st.sampled_from(["active", "detached", "terminated"]))
    def update_status(self, at: int, status: str) -> None:
        session_id = self._session(at)
        method, params = "session.update_status", {"id": session_id, "status": status}
        self._change_status(method, params, status)

    @rule(at=INDEX, verb=st.sampled_from(["detach", "terminate"]))
    def end(self, at: int, verb: str) -> None:
        session_id, status = self._session(at), {"detach": "detached", "terminate": "terminated"}[verb]
        self._change_status(f"session.{verb}", {"id": session_id}, status)

    @rule(at=INDEX, name=NAMES)
    def rename(self, at: int, name: str | None) -> None:
        session_id = self._session(at)
        params = {"id": session_id, "name": name}
        self._both("session.rename", params, lambda: self.model.rename(session_id, name))

    @rule(at=INDEX, to=INDEX, out=st.booleans(), front=st.booleans())
    def move(self, at: int, to: int, out: bool, front: bool) -> None:
        in_front = [one.active_session_id for one in self.model.workspaces.values() if one.active_session_id]
        session_id = pick(in_front, at) if front else self._session(at)
        workspace_id = None if out else self._workspace(to)
        params = {"id": session_id, "workspace_id": workspace_id}
        self._both("session.move", params, lambda: self.model.move(session_id, workspace_id))

    @rule(at=INDEX)
    def touch(self, at: int) -> None:
        session_id = self._session(at)
        answer = self._both("session.touch", {"id": session_id}, lambda: self.model.session(session_id))
        if answer is not None:
            self._moved(answer, saved=not self.model.sessions[session_id].is_alive)

    @rule(at=INDEX, purge=st.booleans(), again=st.booleans())
    def delete(self, at: int, purge: bool, again: bool) -> None:
        session_id = pick([*self.model.trash], at) if again else self._session(at)
        params = {"id": session_id, "purge": purge}
        self._both("session.delete", params, lambda: self.model.delete_session(session_id, purge=purge))

    @rule(at=INDEX)
    def undelete(self, at: int) -> None:
        session_id = pick([*self.model.trash], at)
        answer = self._both("session.undelete", {"id": session_id}, lambda: self.model.undelete(session_id))
        if answer is not None:
            self._assert_like(answer, self.model.sessions[session_id])

    @rule(limit=st.sampled_from([1, 2, 1000]))
    def list_deleted(self, limit: int) -> None:
        params = {"limit": limit}
        shown = self._pages(
            "session.list_deleted", "sessions", params, self.client.call("session.list_deleted", **params)
        )
        # Those that were deleted with a workspace have one time, and are in no order among themselves.
        assert [one["deleted_at"] for one in shown] == sorted((one["deleted_at"] for one in shown), reverse=True)
        assert {one["id"] for one in shown} == set(self.model.trash)
        for one in shown:
            self._assert_like(one, self.model.trash[one["id"]])

    @rule(at=INDEX, length=st.sampled_from([3, 4, 8, 35, 36]), name=NAMES)
    def find(self, at: int, length: int, name: str | None) -> None:
        ref = name or self._session(at)[:length]
        found: list[str] = []
        answer = self._both("session.find", {"ref": ref}, lambda: found.append(self.model.find(ref)))
        if answer is not None:
            self._assert_like(answer, self.model.sessions[found[0]])

    @rule(at=INDEX)
    def get(self, at: int) -> None:
        session_id = self._session(at)
        if session_id in self.model.sessions:  # archived ones are seen too
            self._assert_like(self.client.call("session.get", id=session_id), self.model.sessions[session_id])
        else:
            assert self.client.error("session.get", id=session_id)["code"] == 1000

    @rule(
        status=st.none() | st.lists(st.sampled_from(ALL), min_size=1, max_size=4),
        kind=st.sampled_from([None, "local", "ssh"]),
        at=st.none() | INDEX,
        limit=st.sampled_from([1, 2, 3, 1000]),
    )
    def list_pages(self, status: list[str] | None, kind: str | None, at: int | None, limit: int) -> None:
        workspace_id = None if at is None else self._workspace(at)
        params = {"status": status, "session_type": kind, "workspace_id": workspace_id, "limit": limit}
        expected: list[Session] = []
        first = self._both(
            "session.list", params, lambda: expected.extend(self.model.listed(status, kind, workspace_id))
        )
        if first is not None:
            self._assert_all(self._pages("session.list", "sessions", params, first), expected)

    # Snapshots.

    @rule(at=INDEX, buffer=BUFFERS, scrollback=st.none() | BUFFERS)
    def save(self, at: int, buffer: bytes, scrollback: bytes | None) -> None:
        session_id = self._session(at)
        params = {"session_id": session_id, "terminal_buffer": encoded(buffer), "scrollback": encoded(scrollback)}
        info = self._both("snapshot.save", params, lambda: self.model.session(session_id))
        if info is None:
            return
        assert (info["session_id"], info["buffer_bytes"]) == (session_id, len(buffer))
        assert info["scrollback_bytes"] == len(scrollback or b"")
        self.model.sessions[session_id].snapshots.append(Snapshot(info["id"], buffer, scrollback))
        self.had_snapshots.append(info["id"])
        self._moved(self.client.call("session.get", id=session_id))

    @rule(at=INDEX)
    def latest(self, at: int) -> None:
        session_id = self._session(at)
        found: list[Snapshot] = []
        params = {"session_id": session_id}
        before = self.client.request("snapshot.latest", **params)
        self._compare(before, lambda: found.extend(self.model.session(session_id).snapshots[-1:]))
        if "result" in before:
            assert (before["result"] is None) == (not found)
        for snapshot in found:
            assert_snapshot(before["result"], snapshot)

    @rule(at=INDEX)
    def get_snapshot(self, at: int) -> None:
        snapshot_id = pick(self.had_snapshots, at)
        found: list[Snapshot] = []
        owner = self.model.snapshot_owner
        answer = self._both("snapshot.get", {"id": snapshot_id}, lambda: found.append(owner(snapshot_id)[1]))
        if answer is not None:
            assert_snapshot(answer, found[0])

    @rule(at=INDEX, limit=st.sampled_from([1, 2, 1000]))
    def list_snapshots(self, at: int, limit: int) -> None:
        session_id = self._session(at)
        params = {"session_id": session_id, "limit": limit}
        expected: list[Snapshot] = []
        first = self._both(
            "snapshot.list", params, lambda: expected.extend(reversed(self.model.session(session_id).snapshots))
        )
        if first is not None:
            pages = self._pages("snapshot.list", "snapshots", params, first)
            assert [one["id"] for one in pages] == [one.id for one in expected]

    @rule(at=INDEX)
    def delete_snapshot(self, at: int) -> None:
        snapshot_id = pick(self.had_snapshots, at)
        self._both("snapshot.delete", {"id": snapshot_id}, lambda: self.model.delete_snapshot(snapshot_id))

    @rule(keep=st.integers(1, 3))
    def cleanup(self, keep: int) -> None:
        answer = self.client.call("maintenance.cleanup_snapshots", keep_last_n=keep)
        assert answer == {"deleted": self.model.cleanup(keep)}

    # Workspaces.

    @rule(name=NAMES.filter(bool), layout=LAYOUTS)
    def create_workspace(self, name: str, layout: Any) -> None:
        params = {"name": name, "layout": layout}
        answer = self._both("workspace.create", params, lambda: self.model.may_name_workspace(name, None))
        if answer is not None:
            self.model.workspaces[answer["id"]] = Workspace(answer["id"], name, layout)

    @rule(at=INDEX, name=NAMES.filter(bool))
    def rename_workspace(self, at: int, name: str) -> None:
        workspace_id = self._workspace(at)
        params = {"id": workspace_id, "name": name}
        if (
            self._both("workspace.rename", params, lambda: self.model.may_name_workspace(name, workspace_id))
            is not None
        ):
            self.model.workspaces[workspace_id].name = name

    @rule(at=INDEX, layout=LAYOUTS)
    def update_layout(self, at: int, layout: Any) -> None:
        workspace_id = self._workspace(at)
        params = {"id": workspace_id, "layout": layout}
        if self._both("workspace.update_layout", params, lambda: self.model.workspace(workspace_id)) is not None:
            self.model.workspaces[workspace_id].layout = layout

    @rule(at=INDEX, member=INDEX, own=st.booleans(), none=st.booleans())
    def set_active(self, at: int, member: int, own: bool, none: bool) -> None:
        workspace_id = self._workspace(at)
        members = [one.id for one in self.model.sessions.values() if one.workspace_id == workspace_id]
        session_id = pick(members, member) if own else self._session(member)
        params = {"id": workspace_id, "session_id": None if none else session_id}
        set_active = self.model.set_active
        self._both("workspace.set_active_session", params, lambda: set_active(workspace_id, params["session_id"]))

    @rule(at=INDEX, delete_sessions=st.booleans())
    def delete_workspace(self, at: int, delete_sessions: bool) -> None:
        workspace_id = self._workspace(at)
        params = {"id": workspace_id, "delete_sessions": delete_sessions}
        self._both("workspace.delete", params, lambda: self.model.delete_workspace(workspace_id, delete_sessions))

    # The whole store.

    @rule()
    def auto_save(self) -> None:
        assert self.client.call("maintenance.auto_save") == {"saved": self.model.auto_save()}

    @rule(at=INDEX, everything=st.booleans())
    def archive(self, at: int, everything: bool) -> None:
        found = self.model.sessions.get(self._session(at))
        before = "9999-01-01T00:00:00Z" if everything or found is None else found.last_active
        assert self.client.call("maintenance.archive", terminated_before=before) == {
            "archived": self.model.archive(before)
        }

    @rule(at=INDEX)
    def restore(self, at: int) -> None:
        archived = [one.id for one in self.model.sessions.values() if one.status == "archived"]
        session_id = pick(archived or [*self.model.sessions], at)
        self._both("session.restore_archived", {"id": session_id}, lambda: self.model.restore(session_id))

    @rule()
    def vacuum(self) -> None:
        assert self.client.call("maintenance.vacuum")["bytes_freed"] >= 0

    @rule()
    def stats(self) -> None:
        answer = self.client.call("stats.get")
        counts = self.model.counts()
        assert {name: answer[name] for name in counts} == counts

    @precondition(lambda self: self.restarts < MOST_RESTARTS and self.model.sessions)
    @rule(number=st.sampled_from([signal.SIGTERM, signal.SIGKILL]))
    def restart(self, number: int) -> None:
        """Stop or kill the daemon; all that was answered is there again."""
        self.restarts += 1
        count("restarts", 1)
        self.client.close()
        self.daemon.stop(number)
        if number == signal.SIGTERM:
            self.model.auto_save()
        else:
            self.model.kill()
        self.daemon.start()
        self.client = self.daemon.client()
        self._check_snapshots()
        assert self.client.call("maintenance.check")["ok"]

    def _check_snapshots(self) -> None:
        for session in self.model.sessions.values():
            for snapshot in session.snapshots:
                if session.status != "archived":
                    assert_snapshot(self.client.call("snapshot.get", id=snapshot.id), snapshot)

    @invariant()
    def everything_is_the_same(self) -> None:
        """After every step all sessions and workspaces are as the model has them."""
        count("steps", 1)
        self._assert_all(self.client.call("session.list", status=ALL)["sessions"], list(self.model.sessions.values()))
        shown = self.client.call("workspace.list")["workspaces"]
        fields = ("id", "name", "layout", "active_session_id")
        expected = [{name: getattr(one, name) for name in fields} for one in self.model.workspaces.values()]
        assert [{name: one[name] for name in fields} for one in shown] == expected
