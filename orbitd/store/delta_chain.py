"""Chains of snapshots as reverse deltas: what to write so that every one stays readable.

The newest snapshot of a session is self-contained (a keyframe); each older one is packed
against the one next newer, up to the next keyframe. So the latest loads at once and the
oldest goes without touching another. Everything here is a pure function of rows that were
read: it makes a plan; `snapshots` carries the plan out if the rows are still the same.

Nothing good is ever given up: a form is only replaced by one that was unpacked again and
compared, and bytes that cannot be verified stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from orbit_protocol.types import SnapshotFormat
from orbitd.store import codec
from orbitd.store.codec import Damaged, Packed, Screen, Sizes

KEYFRAME_EVERY = 32


class Entry(Struct, frozen=True, kw_only=True):
    """A snapshot's row."""

    seq: int
    id: str
    session_id: str
    snapshot_at: datetime
    format: SnapshotFormat
    cols: int | None
    rows: int | None
    cwd: str | None
    ordinal: int
    keyframe: bool
    sizes: Sizes
    stored_bytes: int
    checksum: bytes
    packed: Packed


class Opened(Struct, frozen=True, kw_only=True):
    """A row and its screen; None where it cannot be unpacked at all."""

    entry: Entry
    screen: Screen | None

    def good(self) -> Screen | None:
        """Return the screen if it is the one that was saved."""
        if self.screen is not None and codec.checksum(self.screen) == self.entry.checksum:
            return self.screen
        return None


class Rewrite(Struct, frozen=True, kw_only=True):
    """A snapshot's new form."""

    id: str
    keyframe: bool
    packed: Packed


class SavePlan(Struct, frozen=True, kw_only=True):
    """How to add a snapshot; holds while `previous_id` is the session's newest."""

    previous_id: str | None
    ordinal: int
    packed: Packed
    checksum: bytes
    rewrite: Rewrite | None


class DeletePlan(Struct, frozen=True, kw_only=True):
    """How to delete a snapshot; holds while the rows around it are `segment` (id and keyframe, newest first)."""

    segment: tuple[tuple[str, bool], ...]
    rewrite: Rewrite | None


def unroll(entries: Iterable[Entry]) -> Iterator[Opened]:
    """Unpack rows, newest first; the first must be a keyframe, and none between may be left out.

    What is not good still serves as the base of the next: the bytes that the next needs of
    it may be whole, and its own checksum tells.
    """
    base: Screen | None = None
    for entry in entries:
        base = _open(entry, base)
        yield Opened(entry=entry, screen=base)


def plan_save(previous: Entry | None, screen: Screen) -> SavePlan:
    """Plan to add a screen after `previous`, the newest there is."""
    packed = codec.pack(screen, None)
    ordinal = 1 if previous is None else previous.ordinal + 1
    rewrite = None
    if previous is not None and previous.ordinal % KEYFRAME_EVERY:
        rewrite = _as_delta(Opened(entry=previous, screen=_open(previous, None)), screen)
    return SavePlan(
        previous_id=None if previous is None else previous.id,
        ordinal=ordinal,
        packed=packed,
        checksum=codec.checksum(screen),
        rewrite=rewrite,
    )


def plan_delete(entries: Sequence[Entry], snapshot_id: str) -> DeletePlan:
    """Plan to delete one of `entries`: newest first, from a keyframe to before the next older one.

    Those older than it need it, directly or not. The first good one among them is packed
    anew: against the next newer one, or self-contained where there is none or it cannot
    be trusted. If none is good, nothing is lost by the deletion.
    """
    newer: Opened | None = None
    rewrite: Rewrite | None = None
    for distance, opened in _after(entries, snapshot_id):
        if distance < 0:
            newer = opened
        elif (screen := opened.good()) is not None:
            base = newer.good() if newer is not None and distance == 1 else None
            rewrite = (_as_delta(opened, base) if base is not None else None) or _as_keyframe(opened, screen)
            break
    segment = tuple((entry.id, entry.keyframe) for entry in entries)
    return DeletePlan(segment=segment, rewrite=rewrite)


def _after(entries: Sequence[Entry], snapshot_id: str) -> Iterator[tuple[int, Opened]]:
    """Unpack all but one; with each, how far behind that one it stands."""
    place = next(index for index, entry in enumerate(entries) if entry.id == snapshot_id)
    return ((index - place, opened) for index, opened in enumerate(unroll(entries)) if index != place)


def _open(entry: Entry, base: Screen | None) -> Screen | None:
    if base is None and not entry.keyframe:
        return None
    try:
        return codec.unpack(entry.packed, entry.sizes, None if entry.keyframe else base)
    except Damaged:
        return None


def _as_delta(opened: Opened, base: Screen) -> Rewrite | None:
    """Pack against a base; None where the screen is not good, or nothing is gained."""
    screen = opened.good()
    if screen is None:
        return None
    packed = codec.pack(screen, base)
    if opened.entry.keyframe and packed.size >= opened.entry.stored_bytes:
        return None
    return _verified(Rewrite(id=opened.entry.id, keyframe=False, packed=packed), opened.entry.sizes, base, screen)


def _as_keyframe(opened: Opened, screen: Screen) -> Rewrite | None:
    packed = codec.pack(screen, None)
    return _verified(Rewrite(id=opened.entry.id, keyframe=True, packed=packed), opened.entry.sizes, None, screen)


def _verified(rewrite: Rewrite, sizes: Sizes, base: Screen | None, screen: Screen) -> Rewrite:
    """Return the new form if it gives the screen back, before it replaces a form that does."""
    assert codec.unpack(rewrite.packed, sizes, base) == screen
    return rewrite
