"""Lines of text as they are stored: blocks of about a megabyte at most, compressed. No I/O.

A block has its lines in the order in which they were taken. Those that have left the screen into the history have
numbers, which grow; those of a full-screen program, or of a screen that was cleared, have none. The text and what is
known of its lines (`Run`) are compressed apart: a search reads the text alone until it finds something.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import zstandard
from msgspec import Struct

BLOCK_BYTES = 1 << 20
"""The text of a block, about: what a build prints comes again, but some hundred kilobytes later."""

MAX_BLOCK_BYTES = 64 << 20
"""No block is longer, whatever its row says: one line may be as long as a history."""

LEVEL = 3
"""Of the compression: 6 takes three times as long, for some hundredths of the size."""

LONG = zstandard.ZstdCompressionParameters.from_level(LEVEL, window_log=22, enable_ldm=True, ldm_hash_rate_log=6)
"""For what is long: it finds what a build has printed a megabyte before, for which level 6 takes twice as long."""

_LONG_FROM = 256 << 10

NO_NUMBER = -1


class Line(Struct, frozen=True, kw_only=True):
    """A line.

    Attributes:
        number: In the session's history, from 0; `NO_NUMBER` for one that is not of it.
        at: When it was shown, in milliseconds since the epoch.
        text: Without a line end.
    """

    number: int
    at: int
    text: str


class Run(Struct, frozen=True, array_like=True):
    """Neighbouring lines of one time: their count, the number of the first or `NO_NUMBER`, and the time."""

    count: int
    first: int
    at: int


class TextBlock(Struct, frozen=True, kw_only=True):
    """A block as it is stored.

    Attributes:
        first_line: The lowest number in it, or where none has one, the number that the next line would have had.
        next_line: The highest number and one, or likewise.
        from_at: The earliest time, in milliseconds since the epoch.
        to_at: The latest time.
        raw_bytes: Of the text, before it was compressed.
        text: The lines in UTF-8 with a line feed behind each, as zstd.
        runs: A list of `Run` as MessagePack, as zstd.
    """

    first_line: int
    next_line: int
    from_at: int
    to_at: int
    raw_bytes: int
    text: bytes
    runs: bytes


_runs_decoder = msgspec.msgpack.Decoder(list[Run])
_encoder = msgspec.msgpack.Encoder()


def pack(lines: Iterable[Line], next_line: int) -> TextBlock | None:
    """Return the block of some lines, or None where there are none.

    Args:
        lines: In their order.
        next_line: The number that the next line of the history would have, before these.
    """
    runs, texts = list[Run](), list[str]()
    for line in lines:
        texts.append(line.text)
        add_run(runs, Run(1, line.number, line.at))
    return pack_text("".join(f"{text}\n" for text in texts).encode("utf-8", "replace"), runs, next_line)


def pack_text(text: bytes, runs: list[Run], next_line: int) -> TextBlock | None:
    """Return the same of lines in UTF-8, with a line feed behind each, and of what is known of them."""
    if not runs:
        return None
    numbered = [run for run in runs if run.first != NO_NUMBER]
    compressor = zstandard.ZstdCompressor(level=LEVEL)
    is_long = len(text) >= _LONG_FROM
    text_compressor = zstandard.ZstdCompressor(compression_params=LONG) if is_long else compressor
    return TextBlock(
        first_line=min((run.first for run in numbered), default=next_line),
        next_line=max([next_line, *(run.first + run.count for run in numbered)]),
        from_at=min((run.at for run in runs if run.at), default=0),
        to_at=max(run.at for run in runs),
        raw_bytes=len(text),
        text=text_compressor.compress(text),
        runs=compressor.compress(_encoder.encode(runs)),
    )


def join(first: TextBlock, second: TextBlock) -> TextBlock:
    """Return the lines of two blocks in one, which begins where the first does.

    Raises:
        zstandard.ZstdError, msgspec.DecodeError: One is damaged.
        ValueError: Lines and runs do not fit.
    """
    text, runs = unpack_text(first.text) + unpack_text(second.text), unpack_runs(first.runs)
    for run in unpack_runs(second.runs):
        add_run(runs, run)
    if text.count(b"\n") != sum(run.count for run in runs):
        raise ValueError("blocks of more or fewer lines than in their runs")
    joined = pack_text(text, runs, first.first_line)
    if joined is None:
        raise ValueError("blocks without a line")
    return joined


def add_run(runs: list[Run], run: Run) -> None:
    """Add a run to others: to the last one, if it goes on there."""
    last = runs[-1] if runs else None
    if last is not None and last.at == run.at and _follows(last, run.first):
        runs[-1] = Run(last.count + run.count, last.first, last.at)
    else:
        runs.append(run)


def _follows(run: Run, number: int) -> bool:
    return number == (NO_NUMBER if run.first == NO_NUMBER else run.first + run.count)


def decompressed(data: bytes, most: int, decompressor: zstandard.ZstdDecompressor | None = None) -> bytes:
    """Return what a zstd frame holds.

    Args:
        data: The frame.
        most: How many bytes that may be.
        decompressor: With the frame's dictionary, where it has one.

    Raises:
        zstandard.ZstdError: The frame is damaged, or holds more.
    """
    # `max_output_size` counts for frames only that do not say how long they are.
    if zstandard.frame_content_size(data) > most:
        raise zstandard.ZstdError(f"a frame of more than {most} bytes")
    return (decompressor or zstandard.ZstdDecompressor()).decompress(data, max_output_size=most)


def unpack_text(text: bytes) -> bytes:
    """Return the lines of a block in UTF-8, with a line feed behind each.

    Raises:
        zstandard.ZstdError: The block is damaged.
    """
    return decompressed(text, MAX_BLOCK_BYTES)


def unpack_runs(runs: bytes) -> list[Run]:
    """Return what is known of the lines of a block.

    Raises:
        zstandard.ZstdError, msgspec.DecodeError: The block is damaged.
    """
    return _runs_decoder.decode(decompressed(runs, MAX_BLOCK_BYTES))


def numbers_and_times(runs: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """Yield number and time of each line."""
    for run in runs:
        for index in range(run.count):
            yield (run.first if run.first == NO_NUMBER else run.first + index), run.at


def unpack(text: bytes, runs: bytes) -> list[Line]:
    """Return the lines of a block. Raises: as `unpack_text` and `unpack_runs`; ValueError, if the two do not fit."""
    texts = unpack_text(text).decode("utf-8", "replace").split("\n")[:-1]
    known = unpack_runs(runs)
    if len(texts) != sum(run.count for run in known):
        raise ValueError(f"a block of {len(texts)} lines, and {sum(run.count for run in known)} in its runs")
    lines = zip(texts, numbers_and_times(known), strict=True)
    return [Line(number=number, at=at, text=each) for each, (number, at) in lines]
