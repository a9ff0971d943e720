"""The checksum of an exported file, which stands in its metadata and shows damage that the file's format does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

KEY = "checksum"  # of the metadata
_UNSET = hashlib.sha256(b"to be set").hexdigest()  # as long as a checksum, and nowhere else in a file


def unset() -> dict[str, str]:
    """The metadata of a file whose content is not complete yet; `sealed` sets the checksum."""
    return {KEY: json.dumps(_UNSET)}


def sealed(content: Sequence[bytes]) -> tuple[bytes, ...]:
    """The content of a file, or of several that belong together, with its checksum in place of the unset one."""
    checksum = checksum_of(content, _UNSET).encode()
    return tuple(part.replace(_UNSET.encode(), checksum) for part in content)


def checksum_of(content: Sequence[bytes], stated: str) -> str:
    """The SHA-256 of the parts, one after another, with zeros in place of the checksum that they state."""
    hashed, digits = hashlib.sha256(), stated.encode(errors="replace")  # a damaged file may state anything
    for part in content:
        place = part.rfind(digits)
        if place < 0:
            hashed.update(part)
            continue
        hashed.update(memoryview(part)[:place])
        hashed.update(b"0" * len(digits))
        hashed.update(memoryview(part)[place + len(digits) :])
    return hashed.hexdigest()
