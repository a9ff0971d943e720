"""Formats that files among images often have, and that are not read: named, so that it is clear what to do."""

from __future__ import annotations

import re

_SAVE = "save the picture as JPEG or PNG"
_KINDS = (  # the start of a file, what it is then, and what to do
    (rb".{4}ftyp(heic|heix|hevc|hevx|heim|heis|mif1|msf1)", "a HEIC image", _SAVE),
    (rb".{4}ftyp(?!avi[fs])|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a video", "save frames of it as JPEG or PNG"),
    (rb"8BPS", "a Photoshop file", _SAVE),
    (rb"%PDF", "a PDF", _SAVE),
    (rb"(\xef\xbb\xbf)?\s*(<!DOCTYPE html|<html)", "a web page", _SAVE),
    (rb"(\xef\xbb\xbf)?\s*<(.*<)?svg\b", "an SVG drawing", _SAVE),
    (rb"\x00\x00\x00\x0cJXL |\xff\x0a", "a JPEG XL image", _SAVE),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image", _SAVE),
    (
        rb"II[*+]\x00|MM\x00[*+]",
        "a kind of TIFF that is not read, or a damaged one",
        "save it with 8 or 16 unsigned bits, or as PNG",
    ),
    (rb"version https://git-lfs", "a Git LFS pointer", "fetch the file with 'git lfs pull'"),
)
_START = 1024  # bytes that are looked at


def not_read(content: bytes) -> str:
    """Why a file is no image that can be read, in words."""
    return named(content) or "not an image in a known format, or its header is damaged"


def named(content: bytes) -> str:
    """What a file of another format is, by how it starts, and what to do; "" if it is none that is known."""
    start = content[:_START]
    for pattern, words, advice in _KINDS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return f"{words}, whatever its name: {advice}"
    return ""
