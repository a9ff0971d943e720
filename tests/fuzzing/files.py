"""Whole files for readers, and what is read of them."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mutations
import numpy as np
from PIL import Image


class Reader(NamedTuple):
    """Whole files by their names, of which one is damaged at a time, and what is done with the folder they lie in."""

    files: Callable[[], dict[str, bytes]]
    read: Callable[[Path], object]
    mutate: mutations.Mutation = mutations.of_bytes
    damaged: tuple[str, ...] = ()  # which of the files; all, unless given
    count: int = 50  # how often


def picture(seed: int, form: str = "JPEG") -> bytes:
    """A small encoded image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, form)
    return made.getvalue()


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


@contextlib.contextmanager
def as_files(files: dict[str, bytes]) -> Iterator[Path]:
    """A folder with these files, for as long as it lasts."""
    with tempfile.TemporaryDirectory() as name:
        for path, content in files.items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(content)
        yield Path(name)


def written(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def card_of(content: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors start."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), end


def with_card(content: bytes, change: Callable[[Any], Any]) -> bytes:
    """A safetensors file whose description, JSON within its header, is changed."""
    header, end = card_of(content)
    changed = change(json.loads(header["__metadata__"]["resnetlab"]))
    header["__metadata__"]["resnetlab"] = json.dumps(changed)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + content[end:]
