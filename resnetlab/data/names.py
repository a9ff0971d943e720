"""What data may be named on the command line and in a recipe; imports nothing, so that help is quick."""

from __future__ import annotations

# How a kind of data is written, and what DIR is where it needs one. `open_data` reads each of them.
KINDS: dict[str, str | None] = {
    "digits": None,
    "cifar10": "the folder with its batches",
    "cifar100": "the folder with its batches",
    "mnist": "the folder with its IDX files",
    "fashion_mnist": "the folder with its IDX files",
    "imagenet": "the folder with the tars of ILSVRC2012, or with its images in train and val",
    "hf": "the folder that a Hugging Face DatasetDict was saved to",
    "folder": "the folder of images, which holds train/CLASS and val/CLASS, or CLASS",
    "pack": "the folder that resnetlab data pack made",
}


def listed(words: list[str]) -> str:
    """Return the words as a sentence lists them: "a, b or c"."""
    return ", ".join(words[:-1]) + " or " + words[-1]


DATA_NAMES = listed(
    [*(f"{kind}:DIR" if inside else kind for kind, inside in KINDS.items()), "just DIR, a folder of images"]
)
