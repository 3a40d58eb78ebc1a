"""Chains of snapshots as reverse deltas: what to write so that every snapshot stays readable.

    newest                                                                     oldest
    keyframe <- delta <- delta ... <- delta    keyframe <- delta <- delta ... <- delta

A session's newest snapshot is self-contained (a keyframe). Each older one is compressed
against the one next newer (a delta), up to the next keyframe. So the newest is loaded by
itself, and nothing depends on the oldest.

No I/O: the functions take rows that were read and return a plan. `snapshots` carries the
plan out if the rows are still the same then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from orbitd.store import screen_codec
from orbitd.store.rows import DIGEST_BYTES, SNAPSHOT_HEAD_COLUMNS, DamagedRow, Row, SnapshotHead, snapshot_head_from_row
from orbitd.store.screen_codec import Damaged, Packed, Screen, Sizes

KEYFRAME_EVERY = 32

SNAPSHOT_COLUMNS = f"{SNAPSHOT_HEAD_COLUMNS}, terminal_buffer, scrollback, native_state"
HEAD_COLUMNS = len(SNAPSHOT_HEAD_COLUMNS.split(","))
"""How many columns stand before a snapshot's bytes."""

_NEVER = datetime.fromtimestamp(0, UTC)
_MAX_ORDINAL = (1 << 60) - 1


class SnapshotRow(Struct, frozen=True, kw_only=True):
    """A row of `session_snapshots` or `archived_snapshots`.

    Of the head of one that is not `intact` all but the number may be wrong: it is never returned, only the base of the
    one before it.
    """

    head: SnapshotHead
    packed: Packed
    intact: bool = True

    @property
    def sizes(self) -> Sizes:
        """The sizes of its parts before they were compressed."""
        head = self.head
        return Sizes(
            terminal_buffer=head.buffer_bytes, scrollback=head.scrollback_bytes, native_state=head.native_bytes
        )


class Unpacked(Struct, frozen=True, kw_only=True):
    """A row and the screen that its frames gave; None if they cannot be decompressed."""

    row: SnapshotRow
    screen: Screen | None

    def verified(self) -> Screen | None:
        """Return the screen if its checksum is that of the screen that was saved, and its row is intact, else None."""
        return self.screen if self.row.intact and _fits(self.screen, self.row) else None


class Rewrite(Struct, frozen=True, kw_only=True):
    """The new frames of a snapshot that stays."""

    seq: int
    keyframe: bool
    packed: Packed


class SavePlan(Struct, frozen=True, kw_only=True):
    """How to add a snapshot; valid while `previous_seq` is the session's newest."""

    previous_seq: int | None
    ordinal: int
    packed: Packed
    checksum: bytes
    rewrite: Rewrite | None


class DeletePlan(Struct, frozen=True, kw_only=True):
    """How to delete a snapshot; valid while the rows around it are `segment` (seq and keyframe, newest first)."""

    segment: tuple[tuple[int, bool], ...]
    rewrite: Rewrite | None


def snapshot_from_row(row: Row) -> SnapshotRow:
    """Decode a row of SNAPSHOT_COLUMNS; one that is damaged is not `intact`."""
    packed = Packed(
        terminal_buffer=row[HEAD_COLUMNS], scrollback=row[HEAD_COLUMNS + 1], native_state=row[HEAD_COLUMNS + 2]
    )
    try:
        return SnapshotRow(head=snapshot_head_from_row(row[:HEAD_COLUMNS]).item, packed=packed)
    except DamagedRow:
        head = SnapshotHead(
            seq=row[0],
            id=row[1],
            session_id=row[2],
            snapshot_at=_NEVER,
            format="opaque",
            cols=None,
            rows=None,
            cwd=None,
            ordinal=row[8] if isinstance(row[8], int) and 0 <= row[8] < _MAX_ORDINAL else 0,
            keyframe=1 if row[9] else 0,
            buffer_bytes=0,
            scrollback_bytes=None,
            native_bytes=None,
            raw_bytes=0,
            stored_bytes=0,
            checksum=row[15] if isinstance(row[15], bytes) else b"",
        )
        return SnapshotRow(head=head, packed=packed, intact=False)


def unpack_chain(rows: Iterable[SnapshotRow]) -> Iterator[Unpacked]:
    """Decompress rows.

    Args:
        rows: Newest first, without a gap; the first one is a keyframe.
    """
    # A screen whose checksum does not match is still the base of the next one: the bytes that
    # the next one refers to may be intact, and its own checksum decides that.
    base: Screen | None = None
    for row in rows:
        base = _unpack(row, base)
        yield Unpacked(row=row, screen=base)


def plan_save(previous: SnapshotRow | None, screen: Screen) -> SavePlan:
    """Plan to add a screen after `previous`, the session's newest snapshot."""
    packed = screen_codec.pack(screen, None)
    ordinal = 1 if previous is None else previous.head.ordinal + 1
    rewrite = None
    # Every 32nd stays a keyframe: that bounds how many frames are read for one old snapshot,
    # and how many snapshots one damaged frame costs.
    if previous is not None and previous.intact and previous.head.ordinal % KEYFRAME_EVERY:
        rewrite = _as_delta(Unpacked(row=previous, screen=_unpack(previous, None)), screen)
    return SavePlan(
        previous_seq=None if previous is None else previous.head.seq,
        ordinal=ordinal,
        packed=packed,
        checksum=screen_codec.checksum(screen),
        rewrite=rewrite,
    )


def plan_delete(rows: Sequence[SnapshotRow], seq: int) -> DeletePlan:
    """Plan to delete one snapshot of a segment.

    Args:
        rows: The segment, newest first: a keyframe and every delta that depends on it.
        seq: The number of one of them.
    """
    place = next(index for index, row in enumerate(rows) if row.head.seq == seq)
    newer: Unpacked | None = None
    rewrite: Rewrite | None = None
    for index, unpacked in enumerate(unpack_chain(rows)):
        if index < place:
            newer = unpacked  # at the end, the one that is next newer than the deleted one
        elif index > place and (screen := unpacked.verified()) is not None:
            # All the older ones depend on the deleted one. The first of them whose checksum matches
            # is compressed again, and those behind it stay valid, as its bytes are the same. It can
            # be a delta against `newer` only if it is the deleted one's neighbour: with a damaged
            # row in between, `unpack_chain` would use that as the base. If none matches, nothing
            # readable depends on the deleted one.
            base = newer.verified() if newer is not None and index == place + 1 else None
            rewrite = _as_delta(unpacked, base) if base is not None else None
            if rewrite is None:
                packed = screen_codec.pack(screen, None)
                rewrite = _checked(
                    Rewrite(seq=unpacked.row.head.seq, keyframe=True, packed=packed), unpacked.row.sizes, None, screen
                )
            break
    segment = tuple((row.head.seq, bool(row.head.keyframe)) for row in rows)
    return DeletePlan(segment=segment, rewrite=rewrite)


def _unpack(row: SnapshotRow, base: Screen | None) -> Screen | None:
    if row.intact:
        return _try_unpack(row.packed, row.sizes, bool(row.head.keyframe), base)
    # Its sizes and whether it is a keyframe may be what is damaged, so the frames are asked, and both ways tried: the
    # older snapshots behind it need its bytes, and are good if theirs fit their own checksums.
    try:
        sizes = screen_codec.sizes_of(row.packed)
    except Damaged:
        return None
    is_keyframe = bool(row.head.keyframe)
    tried = [_try_unpack(row.packed, sizes, keyframe, base) for keyframe in (is_keyframe, not is_keyframe)]
    return next((screen for screen in tried if _fits(screen, row)), tried[0])


def _try_unpack(packed: Packed, sizes: Sizes, keyframe: bool, base: Screen | None) -> Screen | None:
    if base is None and not keyframe:
        return None
    try:
        return screen_codec.unpack(packed, sizes, None if keyframe else base)
    except Damaged:
        return None


def _fits(screen: Screen | None, row: SnapshotRow) -> bool:
    return screen is not None and screen_codec.checksum(screen) == row.head.checksum[:DIGEST_BYTES]


def _as_delta(unpacked: Unpacked, base: Screen) -> Rewrite | None:
    """Compress a snapshot against a base; return None if it is damaged, or if a keyframe would not get smaller."""
    screen = unpacked.verified()
    if screen is None:
        return None  # frames that cannot be verified are kept as they are
    packed = screen_codec.pack(screen, base)
    if unpacked.row.head.keyframe and packed.size >= unpacked.row.head.stored_bytes:
        return None
    return _checked(Rewrite(seq=unpacked.row.head.seq, keyframe=False, packed=packed), unpacked.row.sizes, base, screen)


def _checked(rewrite: Rewrite, sizes: Sizes, base: Screen | None, screen: Screen) -> Rewrite:
    """Return the new frames after decompressing them: they replace the only copy of a screen."""
    assert screen_codec.unpack(rewrite.packed, sizes, base) == screen
    return rewrite
