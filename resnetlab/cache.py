"""Files of the cache whose names hold a hash of their content: a damaged one is removed, and can be made again."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from resnetlab.storage import cache_folder, content_of, keep_if_possible


def kept(stem: str, suffix: str) -> tuple[Path, bytes] | None:
    """The file that `keep` wrote, and its content; None if there is none that is whole."""
    with contextlib.suppress(OSError):  # a cache that can't be listed is none
        for path in sorted(cache_folder().glob(f"{stem}-*{suffix}")):
            with contextlib.suppress(OSError):
                content = content_of(path)
                if path == _path(stem, suffix, content):
                    return path, content
                path.unlink()
    return None


def keep(stem: str, suffix: str, content: bytes) -> tuple[Path, bool]:
    """Keep a file in the cache; returns its path, and whether it is there now, since all works without a cache, too."""
    path = _path(stem, suffix, content)
    return path, keep_if_possible(path, content)


def _path(stem: str, suffix: str, content: bytes) -> Path:
    return cache_folder() / f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
