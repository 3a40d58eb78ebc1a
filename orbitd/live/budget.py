"""How much history all live screens may keep in memory together.

Each session's share is measured when it has had some output, when its clients change and
when somebody asks; nothing is polled. Over the budget, the oldest lines go of the session
that has been without a client for the longest, then of the next; those with clients come
last. A sixteenth is freed beyond what has to be, so that a program that goes on writing
does not bring the next turn with its next line.
"""

from __future__ import annotations

from collections.abc import Iterable

from orbitd.live.session import LiveSession

STEP_BYTES = 64 * 1024


class Budget:
    """The history of all live sessions.

    Args:
        total_bytes: What they may take together.
        sessions: All that there are now.
    """

    def __init__(self, total_bytes: int, sessions: Iterable[LiveSession]) -> None:
        self._total_bytes = total_bytes
        self._sessions = sessions
        self._shares: dict[str, int] = {}
        self._measured_at: dict[str, int] = {}
        self.used_bytes = 0

    def changed(self, session: LiveSession) -> None:
        """Measure a session if it has had so much output that this is worth the time."""
        if session.screen.position - self._measured_at.get(session.id, 0) >= STEP_BYTES:
            self.measure(session)

    def measure(self, session: LiveSession) -> None:
        """Take note of a session's history now, and make room if that is too much."""
        self._measured_at[session.id] = session.screen.position
        self._note(session)
        if self.used_bytes > self._total_bytes:
            self._make_room()

    def forget(self, session: LiveSession) -> None:
        """Take note that a session has ended."""
        self.used_bytes -= self._shares.pop(session.id, 0)
        self._measured_at.pop(session.id, None)

    def _note(self, session: LiveSession) -> None:
        now = session.screen.history_bytes
        if now is not None:  # else what is known of it still holds
            self.used_bytes += now - self._shares.get(session.id, 0)
            self._shares[session.id] = now

    def _make_room(self) -> None:
        goal = self._total_bytes - self._total_bytes // 16
        for session in sorted(self._sessions, key=_expendable):
            if self.used_bytes <= goal:
                return
            own = self._shares.get(session.id, 0)
            if own and session.screen.history_bytes is not None:
                session.screen.trim(max(0, own - (self.used_bytes - goal)))
                self._note(session)


def _expendable(session: LiveSession) -> tuple[bool, float]:
    return bool(session.attachments), session.detached_since
