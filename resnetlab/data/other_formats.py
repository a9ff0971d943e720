"""Formats that files among images often have, and that are not read: named, so that it is clear what to do."""

from __future__ import annotations

import re

_KINDS = (  # the start of a file, and what it is then
    (rb".{4}ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)", "a HEIC image"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF", "a PDF"),
    (rb"(\xef\xbb\xbf)?\s*(<!DOCTYPE html|<html)", "a web page"),
    (rb"(\xef\xbb\xbf)?\s*<(.*<)?svg\b", "an SVG drawing"),
    (rb"\x00\x00\x00\x0cJXL |\xff\x0a", "a JPEG XL image"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image"),
)
_START = 1024  # bytes that are looked at


def not_read(content: bytes) -> str:
    """Why a file is no image that can be read, by how it starts, in words."""
    start = content[:_START]
    for pattern, words in _KINDS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return f"{words}, whatever its name: save the picture as JPEG or PNG"
    return "not an image in a known format, or its header is damaged"
