"""A plain model of the contract: the store as DESIGN.md and docs/protocol.md tell it, in dicts.

Each call of the daemon has a method here that returns what the daemon must answer: a value,
or a `Refused` with the code. Times are the daemon's; the model only says which of them must
move, must stay, or may be forgotten by a kill.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

SESSION_NOT_FOUND, NAME_TAKEN, INVALID_TRANSITION, AMBIGUOUS = 1000, 1001, 1002, 1003
SNAPSHOT_NOT_FOUND, WORKSPACE_NOT_FOUND = 1100, 1200
LIVE = ("active", "detached")
MOVES = {
    ("active", "detached"),
    ("detached", "active"),
    ("active", "terminated"),
    ("detached", "terminated"),
    ("terminated", "active"),
}


class Refused(Exception):
    """The contract refuses a call with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Snapshot:
    """A saved screen."""

    id: str
    buffer: bytes
    scrollback: bytes | None

    @property
    def raw_bytes(self) -> int:
        return len(self.buffer) + len(self.scrollback or b"")


@dataclass
class Session:
    """A session; `last_active` is what is shown, `saved_active` what a kill would leave."""

    id: str
    name: str | None
    session_type: str
    status: str
    workspace_id: str | None
    last_active: str
    saved_active: str
    snapshots: list[Snapshot] = field(default_factory=list)
    born: int = field(default_factory=itertools.count().__next__)

    @property
    def is_alive(self) -> bool:
        return self.status in LIVE

    @property
    def holds_name(self) -> bool:
        return self.name is not None and self.is_alive


@dataclass
class Workspace:
    """A workspace; `layout` is its JSON."""

    id: str
    name: str
    layout: Any
    active_session_id: str | None = None


class Contract:
    """The whole store. Dicts are in order of creation, which is the order of every list."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.workspaces: dict[str, Workspace] = {}
        self.trash: dict[str, Session] = {}  # in the order of deletion

    # Looking things up.

    def session(self, session_id: str) -> Session:
        """Return a session that may be changed: an archived one may not."""
        found = self.sessions.get(session_id)
        if found is None or found.status == "archived":
            raise Refused(SESSION_NOT_FOUND)
        return found

    def workspace(self, workspace_id: str) -> Workspace:
        if workspace_id not in self.workspaces:
            raise Refused(WORKSPACE_NOT_FOUND)
        return self.workspaces[workspace_id]

    def find(self, ref: str) -> str:
        """Return the id that a reference means: by id, by the name of one alive, by prefix, by an old name."""
        every = list(self.sessions.values())
        if ref in self.sessions:
            return ref
        ways = [
            [one for one in every if one.holds_name and one.name == ref],
            [one for one in every if len(ref) >= 4 and one.id.startswith(ref) and one.status != "archived"],
            [one for one in every if one.name == ref and one.status != "archived"][-1:],
            [one for one in every if len(ref) >= 4 and one.id.startswith(ref)],
            [one for one in every if one.name == ref][-1:],
        ]
        found = next((way for way in ways if way), [])
        if not found:
            raise Refused(SESSION_NOT_FOUND)
        if len(found) > 1:
            raise Refused(AMBIGUOUS)
        return found[0].id

    def listed(self, status: list[str] | None, session_type: str | None, workspace_id: str | None) -> list[Session]:
        if workspace_id is not None:
            self.workspace(workspace_id)
        return [
            one
            for one in self.sessions.values()
            if one.status in (status or LIVE)
            and session_type in (None, one.session_type)
            and workspace_id in (None, one.workspace_id)
        ]

    # Changing sessions. What the daemon decides (ids, times) is taken over from its answer.

    def may_create(self, name: str | None, workspace_id: str | None) -> None:
        self._refuse_taken(name, None)
        if workspace_id is not None:
            self.workspace(workspace_id)

    def change_status(self, session_id: str, status: str) -> bool:
        """Return whether the session had another status before."""
        found = self.session(session_id)
        if found.status == status:
            return False
        if (found.status, status) not in MOVES:
            raise Refused(INVALID_TRANSITION)
        if found.status == "terminated":
            self._refuse_taken(found.name, session_id)
        found.status = status
        return True

    def rename(self, session_id: str, name: str | None) -> None:
        found = self.session(session_id)
        if found.is_alive:
            self._refuse_taken(name, session_id)
        found.name = name

    def move(self, session_id: str, workspace_id: str | None) -> None:
        found = self.session(session_id)
        if workspace_id is not None:
            self.workspace(workspace_id)
        if workspace_id != found.workspace_id:
            self._leave_front(session_id)
        found.workspace_id = workspace_id

    def delete_session(self, session_id: str, *, purge: bool) -> None:
        if session_id in self.sessions:
            self._leave_front(session_id)
            self._put_into_trash(session_id)
        elif not purge or session_id not in self.trash:
            raise Refused(SESSION_NOT_FOUND)
        if purge:
            del self.trash[session_id]

    def undelete(self, session_id: str) -> None:
        if session_id not in self.trash:
            raise Refused(SESSION_NOT_FOUND)
        self._refuse_taken(self.trash[session_id].name, session_id)
        self.sessions[session_id] = self.trash.pop(session_id)
        self.sessions = dict(sorted(self.sessions.items(), key=lambda item: item[1].born))

    # Snapshots: oldest first here.

    def snapshot_owner(self, snapshot_id: str) -> tuple[Session, Snapshot]:
        for session in self.sessions.values():
            for snapshot in session.snapshots:
                if snapshot.id == snapshot_id and session.status != "archived":
                    return session, snapshot
        raise Refused(SNAPSHOT_NOT_FOUND)

    def delete_snapshot(self, snapshot_id: str) -> None:
        session, snapshot = self.snapshot_owner(snapshot_id)
        session.snapshots.remove(snapshot)

    def cleanup(self, keep: int) -> int:
        deleted = 0
        for session in self.sessions.values():
            if session.status != "archived":
                deleted += len(session.snapshots[:-keep])
                session.snapshots = session.snapshots[-keep:]
        return deleted

    # Workspaces.

    def may_name_workspace(self, name: str, workspace_id: str | None) -> None:
        if workspace_id is not None:
            self.workspace(workspace_id)
        if any(one.name == name and one.id != workspace_id for one in self.workspaces.values()):
            raise Refused(NAME_TAKEN)

    def set_active(self, workspace_id: str, session_id: str | None) -> None:
        workspace = self.workspace(workspace_id)
        if session_id is not None and self.session(session_id).workspace_id != workspace_id:
            raise Refused(SESSION_NOT_FOUND)
        workspace.active_session_id = session_id

    def delete_workspace(self, workspace_id: str, delete_sessions: bool) -> None:
        del self.workspaces[self.workspace(workspace_id).id]
        for session in list(self.sessions.values()):
            if session.workspace_id != workspace_id:
                continue
            session.workspace_id = None
            if delete_sessions and session.status != "archived":
                self._put_into_trash(session.id)
        for session in self.trash.values():
            if session.workspace_id == workspace_id:
                session.workspace_id = None

    # The whole store.

    def auto_save(self) -> int:
        """Return how many sessions have something to save, and save it."""
        unsaved = [one for one in self.sessions.values() if one.saved_active != one.last_active]
        for one in unsaved:
            one.saved_active = one.last_active
        return len(unsaved)

    def kill(self) -> None:
        """Forget what was in memory only."""
        for one in self.sessions.values():
            one.last_active = one.saved_active

    def archive(self, before: str) -> int:
        old = [one for one in self.sessions.values() if one.status == "terminated" and one.last_active < before]
        for one in old:
            self._leave_front(one.id)
            one.status = "archived"
        return len(old)

    def restore(self, session_id: str) -> None:
        found = self.sessions.get(session_id)
        if found is None or found.status != "archived":
            raise Refused(SESSION_NOT_FOUND)
        found.status = "terminated"

    def counts(self) -> dict[str, int]:
        """Return the members of SessionStats that the contract decides."""
        every = list(self.sessions.values())
        by_status = {
            f"{status}_sessions": sum(one.status == status for one in every)
            for status in ("active", "detached", "terminated", "archived")
        }
        snapshots = [snapshot for one in every for snapshot in one.snapshots]
        return {
            **by_status,
            "total_sessions": len(every),
            "deleted_sessions": len(self.trash),
            "total_workspaces": len(self.workspaces),
            "total_snapshots": len(snapshots),
            "snapshot_raw_bytes": sum(snapshot.raw_bytes for snapshot in snapshots),
        }

    def _refuse_taken(self, name: str | None, session_id: str | None) -> None:
        if name is not None and any(
            one.holds_name and one.name == name and one.id != session_id for one in self.sessions.values()
        ):
            raise Refused(NAME_TAKEN)

    def _put_into_trash(self, session_id: str) -> None:
        session = self.trash[session_id] = self.sessions.pop(session_id)
        session.saved_active = session.last_active

    def _leave_front(self, session_id: str) -> None:
        for workspace in self.workspaces.values():
            if workspace.active_session_id == session_id:
                workspace.active_session_id = None
