"""What data may be named on the command line and in a recipe; imports nothing, so that help is quick."""

from __future__ import annotations

# How a kind of data is written, and what DIR is where it needs one. `open_data` reads each of them.
KINDS: dict[str, str | None] = {
    "digits": None,
    "cifar10": "the folder with its batches",
    "cifar100": "the folder with its batches",
    "mnist": "the folder with its IDX files",
    "fashion_mnist": "the folder with its IDX files",
}


def listed(words: list[str]) -> str:
    """Return the words as a sentence lists them: "a, b or c"."""
    return ", ".join(words[:-1]) + " or " + words[-1]


DATA_NAMES = listed([f"{kind}:DIR" if inside else kind for kind, inside in KINDS.items()])
