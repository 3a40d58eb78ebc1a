"""Screens to zstd frames and back. Pure: bytes in, bytes out, to be called off the event loop.

A screen packs by itself, or against a base: then the base's bytes are the compressor's
raw-content dictionary (RFC 8878, 5; `zstd --patch-from` does the same) and only what is
new in the screen takes room.
"""

from __future__ import annotations

import hashlib

import zstandard
from msgspec import Struct

MAX_SCREEN_BYTES = 64 * 1024 * 1024
"""A screen and its base fit into one window together: 2^27 bytes, the most that decoders take unasked."""

_MAX_WINDOW_LOG = 27
_MIN_WINDOW_LOG = 10
_MAX_TABLE_LOG = 23
_SMALL = 1024 * 1024
_LEVEL_SMALL = 9
_LEVEL_LARGE = 3
_CHECKSUM_BYTES = 16


class Damaged(Exception):
    """The frames cannot be read."""


class Screen(Struct, frozen=True, kw_only=True):
    """The bytes of a snapshot. None and empty are different things."""

    terminal_buffer: bytes
    scrollback: bytes | None = None
    native_state: bytes | None = None

    @property
    def size(self) -> int:
        """All bytes together."""
        return sum(len(part) for part in _parts(self) if part is not None)


class Packed(Struct, frozen=True, kw_only=True):
    """A screen as zstd frames, one for each part that there is."""

    terminal_buffer: bytes
    scrollback: bytes | None
    native_state: bytes | None

    @property
    def size(self) -> int:
        """All bytes together."""
        return sum(len(part) for part in _parts(self) if part is not None)


class Sizes(Struct, frozen=True, kw_only=True):
    """How many bytes each part of a screen has; None where it has none."""

    terminal_buffer: int
    scrollback: int | None
    native_state: int | None


def checksum(screen: Screen) -> bytes:
    """Return a digest of the parts and of where one ends and the next begins."""
    digest = hashlib.blake2b(digest_size=_CHECKSUM_BYTES)
    for part in _parts(screen):
        digest.update(b"-" if part is None else b"%d:" % len(part))
        digest.update(part or b"")
    return digest.digest()


def pack(screen: Screen, base: Screen | None) -> Packed:
    """Compress a screen, by itself or against a base."""
    compressor = _compressor(max(len(part or b"") for part in _parts(screen)), _dictionary(base))
    return Packed(
        terminal_buffer=compressor.compress(screen.terminal_buffer),
        scrollback=None if screen.scrollback is None else compressor.compress(screen.scrollback),
        native_state=None if screen.native_state is None else compressor.compress(screen.native_state),
    )


def unpack(packed: Packed, sizes: Sizes, base: Screen | None) -> Screen:
    """Decompress what `pack` made with the same base.

    Raises:
        Damaged: A frame cannot be read or has another size than it should; never more memory than `sizes`.
    """
    dictionary = _dictionary(base)
    decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << _MAX_WINDOW_LOG)
    return Screen(
        terminal_buffer=_unpack_frame(decompressor, packed.terminal_buffer, sizes.terminal_buffer),
        scrollback=_unpack_part(decompressor, packed.scrollback, sizes.scrollback),
        native_state=_unpack_part(decompressor, packed.native_state, sizes.native_state),
    )


def _unpack_part(decompressor: zstandard.ZstdDecompressor, frame: bytes | None, size: int | None) -> bytes | None:
    if frame is None and size is None:
        return None
    if frame is None or size is None:
        raise Damaged("a part is missing")
    return _unpack_frame(decompressor, frame, size)


def _unpack_frame(decompressor: zstandard.ZstdDecompressor, frame: bytes, size: int) -> bytes:
    try:
        if zstandard.frame_content_size(frame) != size:
            raise Damaged("a frame has another size than was saved")
        return decompressor.decompress(frame)
    except zstandard.ZstdError as error:
        raise Damaged(str(error)) from error


def _compressor(size: int, dictionary: zstandard.ZstdCompressionDict | None) -> zstandard.ZstdCompressor:
    base = 0 if dictionary is None else len(dictionary.as_bytes())
    level = _LEVEL_SMALL if size + base <= _SMALL or dictionary is not None else _LEVEL_LARGE
    options = {"write_checksum": False, "write_dict_id": False}
    if base > _SMALL:
        # The defaults see neither all of a large base nor remember each of its places: measured on
        # 15 MiB that cannot be compressed alone, 12 MB instead of 1.5 kB.
        reach = _clamp((size + base).bit_length(), _MIN_WINDOW_LOG, _MAX_WINDOW_LOG)
        table = min(reach, _MAX_TABLE_LOG)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=size, dict_size=base, window_log=reach, hash_log=table, chain_log=table, **options
        )
    else:
        parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=size, dict_size=base, **options)
    return zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters)


def _dictionary(base: Screen | None) -> zstandard.ZstdCompressionDict | None:
    """Join a base's parts; what is likeliest to be met again stands last, nearest to the screen."""
    if base is None or base.size == 0:
        return None
    joined = b"".join((base.native_state or b"", base.scrollback or b"", base.terminal_buffer))
    return zstandard.ZstdCompressionDict(joined, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _parts(of: Screen | Packed) -> tuple[bytes, bytes | None, bytes | None]:
    return of.terminal_buffer, of.scrollback, of.native_state


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))
