"""Shows downloads, as bars on a terminal or lines in a log, and fetches the weights that a command names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from resnetlab.data.fetch import DownloadProgress

NAMES = "pretrained:NAME, torchvision:NAME, timm/NAME or hf:OWNER/NAME"  # of published weights


class Followed(NamedTuple):
    """The result of a download."""

    received: int  # bytes, over the network
    was_there: bool  # whether all files were there already


def follow(events: Iterable[DownloadProgress]) -> Followed:
    """Show the progress of a download until its end."""
    from rich.filesize import decimal

    from resnetlab.api.screen import has_bars, progress_bars, say

    received, was_there = 0, True
    with progress_bars() as bars:
        tasks: dict[str, Any] = {}
        tenths: dict[str, int] = {}
        for p in events:
            received = p.received
            was_there &= p.words == "already complete"
            tenth = 10 * p.done // max(p.size, 1)  # of a size that isn't known yet: 0
            if p.file not in tasks:
                tasks[p.file] = bars.add_task(p.file, total=p.size, words="")
                tenths[p.file] = tenth
            amount = f"{decimal(p.done)} of {decimal(p.size)}"
            bars.update(tasks[p.file], completed=p.done, total=p.size, words=amount)
            if p.words:
                say(f"{p.file}: {p.words}")
            elif tenth > tenths[p.file] and not has_bars():
                tenths[p.file] = tenth
                say(f"{p.file}: {amount}")
    return Followed(received, was_there)


def fetch_sources(*sources: str) -> None:
    """Fetch the published weights among the sources of a command, unless they are here; paths are left alone."""
    from resnetlab.weights.sources import fetch_weights

    for source in sources:
        follow(fetch_weights(source))
