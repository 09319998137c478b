"""Makes a PNG of few colours smaller: a palette in place of three bytes a pixel."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

__all__ = ["shrink"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 6: 4}  # by the type of colour: without alpha, and with it
_MOST = 256

Colour = tuple[int, int, int]


def shrink(png: bytes) -> bytes:
    """*png* with 256 colours at most: the most frequent ones, and the nearest to each.

    Of 8 bits a channel, not interlaced, as browsers write it. Alpha is dropped.
    """
    chunks = list(_chunks(png))
    header = next(data for kind, data in chunks if kind == b"IHDR")
    width, height, _, colour = struct.unpack(">IIBB", header[:10])
    packed = b"".join(data for kind, data in chunks if kind == b"IDAT")
    step = _CHANNELS[colour]
    pixels: list[Colour] = []
    for row in _rows(zlib.decompress(packed), width * step, height, step):
        pixels += zip(row[::step], row[1::step], row[2::step], strict=True)
    counted = Counter(pixels)
    palette = [each for each, _ in counted.most_common(_MOST)]
    places = {each: _nearest(each, palette) for each in counted}
    indexed = bytearray()
    for start in range(0, len(pixels), width):
        indexed.append(0)  # no filter
        indexed += bytes(places[each] for each in pixels[start : start + width])
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(part for each in palette for part in each)),
            _chunk(b"IDAT", zlib.compress(bytes(indexed), 9)),
            _chunk(b"IEND", b""),
        )
    )


def _nearest(colour: Colour, palette: list[Colour]) -> int:
    def distance(place: int) -> int:
        return sum((a - b) ** 2 for a, b in zip(colour, palette[place], strict=True))

    return min(range(len(palette)), key=distance)


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(png):
        length = int.from_bytes(png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += length + 12


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def _rows(data: bytes, length: int, height: int, step: int) -> Iterator[bytearray]:
    """Undo the filter of each row."""
    before = bytearray(length)
    for start in range(0, height * (length + 1), length + 1):
        row = bytearray(data[start + 1 : start + 1 + length])
        _undo(data[start], row, before, step)
        yield row
        before = row


def _undo(kind: int, row: bytearray, above: bytearray, step: int) -> None:
    for at, value in enumerate(row):
        left = row[at - step] if at >= step else 0
        corner = above[at - step] if at >= step else 0
        added = (0, left, above[at], (left + above[at]) // 2)
        more = _paeth(left, above[at], corner) if kind == 4 else added[kind]
        row[at] = (value + more) & 255


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    by_distance = ((abs(guess - x), i, x) for i, x in enumerate((left, above, corner)))
    return min(by_distance)[2]
