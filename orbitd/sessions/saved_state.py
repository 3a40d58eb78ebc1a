"""The stored form of a terminal: a header with version and journal position, then the emulator's own state."""

from __future__ import annotations

import struct
import zlib

from msgspec import Struct

from orbitd.screens.model import StateCorrupt

_MAGIC = b"ORBITS\x01\n"
_HEADER = struct.Struct(">8sQI")


class SavedState(Struct, frozen=True, kw_only=True):
    """A terminal as it is stored.

    Attributes:
        native: What `Emulator.encode` returned; the library checks it when it is decoded.
        position: What `Journal.mark` returned at that moment: a replay begins there.
    """

    native: bytes
    position: int

    def to_bytes(self) -> bytes:
        """Return the stored form. The checksum is of the header only; the store has one of the whole."""
        start = _HEADER.pack(_MAGIC, self.position, 0)[:-4]
        return start + zlib.crc32(start).to_bytes(4, "big") + self.native

    @classmethod
    def from_bytes(cls, data: bytes) -> SavedState:
        """Parse what `to_bytes` returned.

        Raises:
            StateCorrupt: The data is something else, damaged, or of another version.
        """
        if len(data) < _HEADER.size or data[:8] != _MAGIC:
            raise StateCorrupt("this is no saved terminal of a version that can be read")
        _, position, checksum = _HEADER.unpack_from(data)
        if zlib.crc32(data[: _HEADER.size - 4]) != checksum:
            raise StateCorrupt("the saved terminal is damaged")
        return cls(native=data[_HEADER.size :], position=position)
