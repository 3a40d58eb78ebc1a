"""How far long work is, and whether its caller still wants it."""

from __future__ import annotations

from msgspec import Struct

from orbit_protocol.errors import Cancelled


class Step(Struct, frozen=True):
    """What long work does now, how many of them are done, and of how many; `total` is 0 where that is not known."""

    what: str
    done: int
    total: int


class Progress:
    """What long work and its caller share: it is set and read in any thread.

    Attributes:
        step: Where the work is; None before it has begun.
        is_cancelled: Whether it is to end.
    """

    def __init__(self) -> None:
        # References that are replaced as a whole, which the GIL makes atomic.
        self.step: Step | None = None
        self.is_cancelled = False

    def report(self, what: str, done: int = 0, total: int = 0) -> None:
        """Set how far the work is. Raises: Cancelled if it is to end."""
        self.step = Step(what, done, total)
        if self.is_cancelled:
            raise Cancelled("The work was cancelled")

    def cancel(self) -> None:
        """End the work at its next report."""
        self.is_cancelled = True
