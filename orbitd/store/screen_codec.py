"""Screens to zstd frames and back. No I/O; slow for large screens, so called in a thread.

A screen is compressed by itself or against a base. The base's bytes are then the
compressor's dictionary, and only what the base does not hold takes room, as with
`zstd --patch-from`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import zstandard
from msgspec import Struct

MAX_SCREEN_BYTES = 64 * 1024 * 1024
"""A screen and its base fit into one window of 2^_MAX_WINDOW_LOG bytes."""

# 27 (128 MiB) is the largest window that zstd's decoders accept without being configured to
# (ZSTD_WINDOWLOG_LIMIT_DEFAULT in zstd.h); 10 is the smallest that the format has (RFC 8878, 3.1.1.1.2).
_MAX_WINDOW_LOG = 27
_MIN_WINDOW_LOG = 10
_MAX_TABLE_LOG = 23
_SMALL = 1024 * 1024
_LEVEL_SMALL = 9
_LEVEL_LARGE = 3
_CHECKSUM_BYTES = 16
_MAX_BLOCK = 128 * 1024
_threads = threading.local()


class Damaged(Exception):
    """The frames cannot be decompressed."""


class Screen(Struct, frozen=True, kw_only=True):
    """The bytes of a snapshot. A part that is None is absent, which is not the same as empty."""

    terminal_buffer: bytes
    scrollback: bytes | None = None
    native_state: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(len(part) for part in _parts(self) if part is not None)


class Packed(Struct, frozen=True, kw_only=True):
    """A screen as zstd frames, one for each part that is not absent."""

    terminal_buffer: bytes
    scrollback: bytes | None
    native_state: bytes | None

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return sum(len(part) for part in _parts(self) if part is not None)


class Sizes(Struct, frozen=True, kw_only=True):
    """Bytes of each part of a screen, uncompressed; None for an absent part."""

    terminal_buffer: int
    scrollback: int | None
    native_state: int | None


def checksum(screen: Screen) -> bytes:
    """Return a BLAKE2b digest (16 bytes) of a screen."""
    digest = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    for part in _parts(screen):
        # The length in front: without it, bytes moved from one part to the next would not show.
        digest.update(b"-" if part is None else b"%d:" % len(part))
        digest.update(part or b"")
    return digest.digest()


def pack(screen: Screen, base: Screen | None) -> Packed:
    """Compress a screen, by itself or against a base."""
    dictionary = _dictionary(base)
    compressor = zstandard.ZstdCompressor(
        dict_data=dictionary,
        compression_params=_parameters(
            size=max(len(part or b"") for part in _parts(screen)),
            dict_size=0 if dictionary is None else len(dictionary.as_bytes()),
        ),
    )
    return Packed(
        terminal_buffer=compressor.compress(screen.terminal_buffer),
        scrollback=None if screen.scrollback is None else compressor.compress(screen.scrollback),
        native_state=None if screen.native_state is None else compressor.compress(screen.native_state),
    )


def unpack(packed: Packed, sizes: Sizes, base: Screen | None) -> Screen:
    """Decompress what `pack` made with the same base.

    Raises:
        Damaged: A frame cannot be decompressed, or its size is not that of `sizes`. No more memory than that is used.
    """
    decompress = _decompress_after(base)
    return Screen(
        terminal_buffer=_unpack_frame(decompress, packed.terminal_buffer, sizes.terminal_buffer),
        scrollback=_unpack_part(decompress, packed.scrollback, sizes.scrollback),
        native_state=_unpack_part(decompress, packed.native_state, sizes.native_state),
    )


def _decompress_after(base: Screen | None) -> Callable[[bytes], bytes]:
    """Return what decompresses a frame whose dictionary is this base."""
    joined = _joined(base)
    if len(joined) > _MAX_BLOCK:
        dictionary = zstandard.ZstdCompressionDict(joined, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        return zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << _MAX_WINDOW_LOG).decompress
    # A decompressor is made with its dictionary, which takes longer than to decompress a small screen: measured, 17 us
    # of 21. A chain of frames, each the dictionary of the next one, needs no new one: the dictionary goes in front
    # as a frame of one raw block (RFC 8878, 3.1.1: a single segment, its size in four bytes; 3.1.1.2: the last block).
    decompressor: zstandard.ZstdDecompressor | None = getattr(_threads, "decompressor", None)
    if decompressor is None:  # one a thread: it is not to be used by two at once
        decompressor = _threads.decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _MAX_WINDOW_LOG)
    if not joined:
        return decompressor.decompress
    size, block = len(joined).to_bytes(4, "little"), (len(joined) << 3 | 1).to_bytes(3, "little")
    raw_frame = b"".join((b"\x28\xb5\x2f\xfd\xa0", size, block, joined))
    chained = decompressor.decompress_content_dict_chain
    return lambda frame: chained([raw_frame, frame])


def _unpack_part(decompress: Callable[[bytes], bytes], frame: bytes | None, size: int | None) -> bytes | None:
    if frame is None and size is None:
        return None
    if frame is None or size is None:
        raise Damaged("a part is missing")
    return _unpack_frame(decompress, frame, size)


def sizes_of(packed: Packed) -> Sizes:
    """Return the sizes that the frames themselves have, for a row whose sizes cannot be trusted. Raises: Damaged."""
    return Sizes(
        terminal_buffer=_frame_size(packed.terminal_buffer),
        scrollback=None if packed.scrollback is None else _frame_size(packed.scrollback),
        native_state=None if packed.native_state is None else _frame_size(packed.native_state),
    )


def _frame_size(frame: bytes) -> int:
    if not isinstance(frame, bytes):
        raise Damaged("a frame is no blob")
    try:
        size = int(zstandard.frame_content_size(frame))
    except zstandard.ZstdError as error:
        raise Damaged(str(error)) from error
    if not 0 <= size <= MAX_SCREEN_BYTES:
        raise Damaged("a frame has a size that is never saved")
    return size


def _unpack_frame(decompress: Callable[[bytes], bytes], frame: bytes, size: int) -> bytes:
    if not isinstance(frame, bytes):  # a flipped bit in the record's header makes text of a blob
        raise Damaged("a frame is no blob")
    try:
        # decompress() allocates the size that the frame's header has: compared first, so that a
        # damaged header cannot ask for gigabytes.
        if zstandard.frame_content_size(frame) != size:
            raise Damaged("a frame has another size than was saved")
        return decompress(frame)
    except (zstandard.ZstdError, ValueError) as error:  # a ValueError is a chain's word for a frame that is none
        raise Damaged(str(error)) from error


def _parameters(size: int, dict_size: int) -> zstandard.ZstdCompressionParameters:
    """Choose level, window and tables for parts of up to `size` bytes."""
    level = _LEVEL_SMALL if size + dict_size <= _SMALL or dict_size else _LEVEL_LARGE
    # No checksum of zstd's own: the row has one. No dictionary id: a raw-content dictionary has none.
    options: dict[str, int] = {"write_checksum": 0, "write_dict_id": 0}
    if dict_size > _SMALL:
        # The dictionary stands in front of the content in the window, so both together must fit for
        # its beginning to be in reach; and the match tables need an entry for each of its places, but no more:
        # to clear and fault in tables of twice as many takes longer than to compress a screen.
        # The defaults are sized for the content alone: measured on 15 MiB that cannot be compressed
        # alone, 12 MB instead of 1.5 kB.
        options["window_log"] = max(_MIN_WINDOW_LOG, min((size + dict_size).bit_length(), _MAX_WINDOW_LOG))
        options["hash_log"] = options["chain_log"] = min(max(size, dict_size).bit_length(), _MAX_TABLE_LOG)
    return zstandard.ZstdCompressionParameters.from_level(level, source_size=size, dict_size=dict_size, **options)


def _dictionary(base: Screen | None) -> zstandard.ZstdCompressionDict | None:
    """Return a base as a dictionary; the same bytes must be given to compress and to decompress."""
    joined = _joined(base)
    # Raw content (RFC 8878, 5): any bytes at all, even some that begin with the magic number of
    # a trained dictionary, which zstd would otherwise parse.
    return zstandard.ZstdCompressionDict(joined, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if joined else None


def _joined(base: Screen | None) -> bytes:
    """Return the bytes that are a base's dictionary."""
    if base is None:
        return b""
    # The part that is likeliest to come again stands last, where its distance is shortest.
    return b"".join((base.native_state or b"", base.scrollback or b"", base.terminal_buffer))


def _parts(of: Screen | Packed) -> tuple[bytes, bytes | None, bytes | None]:
    return of.terminal_buffer, of.scrollback, of.native_state
