"""Removes the chunks of a PNG that its pixels don't need, so that a large or damaged text or profile does no harm.

Of the ancillary chunks (PNG, third edition, section 5.4), transparency and orientation are kept. Pillow reads all of
them, and rejects a file for a text or profile that expands to more than 1 MB, or for a wrong checksum.
"""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Texts that may hold the orientation: XMP, and EXIF as ImageMagick writes it.
ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
MOST_TEXT = 2**20  # bytes of an expanded text; Pillow's own limit
_LENGTH_AND_KIND = struct.Struct(">I4s")


def needed_chunks(content: bytes) -> bytes:
    """The part of a PNG that Pillow needs; anything else unchanged, and a damaged PNG unchanged from the damage on."""
    if not content.startswith(SIGNATURE):
        return content
    parts, at, kept_from = [], len(SIGNATURE), 0
    while at + 12 <= len(content):
        length, kind = _LENGTH_AND_KIND.unpack_from(content, at)
        end = at + 12 + length  # with the checksum
        if end > len(content) or not kind.isalpha():
            break
        if not _is_needed(content, at, kind, length):
            parts.append(content[kept_from:at])
            kept_from = end
        at = end
        if kind == b"IEND":
            break
    return b"".join([*parts, content[kept_from:]]) if parts else content


def _is_needed(content: bytes, at: int, kind: bytes, length: int) -> bool:
    if kind[:1].isupper() or kind == b"tRNS":
        return True
    start, end = at + 8, at + 8 + length
    if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
        return False
    if kind == b"eXIf":
        return True
    return content.startswith(ORIENTATION_TEXTS, start, end) and _unfolds(content[start:end], kind)


def _unfolds(text: bytes, kind: bytes) -> bool:
    """Whether the text of a chunk has at most MOST_TEXT bytes when zTXt or iTXt is expanded."""
    rest = text.partition(b"\0")[2]
    if kind == b"zTXt":
        folded = rest[1:]
    elif kind == b"iTXt" and rest[:1] == b"\1":
        folded = rest[2:].split(b"\0", 2)[-1]
    else:
        return True
    try:
        unfolding = zlib.decompressobj()
        unfolding.decompress(folded, MOST_TEXT)
    except zlib.error:
        return False
    return not unfolding.unconsumed_tail
