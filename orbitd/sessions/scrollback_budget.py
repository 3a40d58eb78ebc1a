"""How much history all live screens may keep in memory together.

A session is measured after `STEP_BYTES` of output, when its clients change, and when the
total is asked for; nothing is polled. Over the budget, the oldest lines are dropped: first
of the session that has been without a client for the longest, then of the next; those with
clients come last. A sixteenth more than necessary is dropped, so that a program that goes
on writing does not cause the next round with its next line.
"""

from __future__ import annotations

from collections.abc import Iterable

from orbitd.sessions.session import LiveSession

STEP_BYTES = 64 * 1024


class ScrollbackBudget:
    """The history of all live sessions.

    Args:
        total_bytes: What they may take together.
        sessions: Iterates over all live sessions of the moment.
    """

    def __init__(self, total_bytes: int, sessions: Iterable[LiveSession]) -> None:
        self._total_bytes = total_bytes
        self._sessions = sessions
        self._shares: dict[str, int] = {}
        self._measured_at: dict[str, int] = {}
        self.used_bytes = 0

    def on_output(self, session: LiveSession) -> None:
        """Measure a session if it has had `STEP_BYTES` of output since the last time."""
        if session.screen.position - self._measured_at.get(session.id, 0) >= STEP_BYTES:
            self.measure(session)

    def measure(self, session: LiveSession) -> None:
        """Measure a session's history, and drop some of all if that is too much."""
        self._measured_at[session.id] = session.screen.position
        self._update_share(session)
        if self.used_bytes > self._total_bytes:
            self._trim()

    def remove(self, session: LiveSession) -> None:
        """Remove a session that has ended."""
        self.used_bytes -= self._shares.pop(session.id, 0)
        self._measured_at.pop(session.id, None)

    def _update_share(self, session: LiveSession) -> None:
        size = session.screen.history_bytes
        if size is not None:  # else the alternate screen hides the history, and the last measurement holds
            self.used_bytes += size - self._shares.get(session.id, 0)
            self._shares[session.id] = size

    def _trim(self) -> None:
        goal = self._total_bytes - self._total_bytes // 16
        for session in sorted(self._sessions, key=lambda each: (bool(each.attachments), each.detached_since)):
            if self.used_bytes <= goal:
                return
            share = self._shares.get(session.id, 0)
            # A screen whose history is hidden by the alternate screen is passed over: it cannot be measured after.
            if share and session.screen.history_bytes is not None:
                session.screen.trim(max(0, share - (self.used_bytes - goal)))
                self._update_share(session)
