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
    (rb"version https://git-lfs", "a Git LFS pointer", "fetch the file with 'git lfs pull'"),
)
_START = 1024  # bytes that are looked at


def not_read(content: bytes) -> str:
    """Why a file is no image that can be read, by how it starts, in words."""
    start = content[:_START]
    for pattern, words, advice in _KINDS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return f"{words}, whatever its name: {advice}"
    return "not an image in a known format, or its header is damaged"
