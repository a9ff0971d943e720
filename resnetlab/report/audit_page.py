"""The page of an audit: one self-contained HTML file with small pictures of the findings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from resnetlab.data.audit import FEW, Audit, Copies, Image
from resnetlab.data.files import Files
from resnetlab.data.images import Data
from resnetlab.data.oddities import HUGE, STRETCHED, TINY, mode_words
from resnetlab.data.thumbnail import thumbnail
from resnetlab.errors import UserError, printable
from resnetlab.report.page import render
from resnetlab.storage import content_of, is_there, write_atomically

MARK = "<title>resnetlab: audit of "  # in every page, and hardly in another file
SHOWN = 24  # rows of pictures in a section
CLASSES_SHOWN = 50
# The galleries in the order of the page: title and explanation.
GALLERIES = {
    "across": (
        "Test images among the training images",
        "A network may have memorised these: they make the test error too low.",
    ),
    "near": (
        "Test images nearly identical to a training image",
        "Their patterns of light and dark hardly differ: one may be the other, saved again or resized. Cropped, "
        "rotated or mirrored copies are not found this way.",
    ),
    "unreadable": ("Unreadable files", "Training stops at these, or leaves them out with --unreadable skip."),
    "contradictory": (
        "Images with conflicting labels",
        "Copies within the training or the test images whose classes differ.",
    ),
    "within": ("Duplicates", "The same image twice within training or test, with the same label."),
    "mismatched": (
        "Files with a wrong extension",
        "resnetlab reads them by their content; other programs may rely on the extension.",
    ),
    "tiny": ("Tiny images", f"Their shorter side has fewer than {TINY} pixels."),
    "huge": ("Huge images", f"They have more than {HUGE // 1_000_000} million pixels, and are slow to decode."),
    "stretched": (
        "Long images",
        f"One side is more than {STRETCHED} times the other; a crop shows little of the image.",
    ),
    "narrow": (
        "Images with few levels",
        "No colour spans more than a quarter of its levels: one colour, a label map instead of a picture, fog, "
        "or fewer bits than the file can hold (12 in 16), which should be scaled up first.",
    ),
}


@dataclass(frozen=True)
class Picture:
    """An image as the page shows it."""

    title: str  # its name, printable
    words: str
    source: str  # a data URI; "" if there is no picture


@dataclass(frozen=True)
class Gallery:
    """A list of the page: rows of pictures, of which the first SHOWN are shown."""

    id: str
    title: str
    words: str
    count: int  # of what the title names; a row shows two of a group of copies, which may have more
    entries: int  # all rows
    rows: list[tuple[str, list[Picture]]]  # the words of a row, and its pictures


def check_place(path: Path) -> None:
    """Raise UserError unless the page may be written there, into an existing folder or over an earlier page."""
    try:
        if path.is_dir() or not path.parent.is_dir():
            raise UserError(f"{path}: can't be written; give a file in an existing folder.")
        ours = not is_there(path) or MARK.encode() in content_of(path)
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror}); choose another file for --html.") from error
    if not ours:
        raise UserError(f"{path}: already exists and is not the page of an audit; choose another file for --html.")


def write_page(found: Audit, data: Data, path: Path) -> None:
    """Write the page, completely or not at all. Raises UserError if it can't be written, and as `check_place` does."""
    check_place(path)
    try:
        write_atomically(path, html(found, data).encode())
    except OSError as error:
        raise UserError(
            f"{path}: can't write the page ({error.strerror or error}); choose another file for --html."
        ) from error


def html(found: Audit, data: Data) -> str:
    """The audit as one self-contained page; the images that it shows are read once more."""
    largest = sorted(found.classes, key=lambda each: (-each.train, each.name))
    half = CLASSES_SHOWN // 2
    shown = largest if len(largest) <= CLASSES_SHOWN else [*largest[:half], *largest[-half:]]
    return render(
        "audit",
        heading=found.name,
        found=found,
        galleries=[gallery for gallery in _galleries(found, data) if gallery.count],
        classes=shown,
        most=max((max(each.train, each.test) for each in found.classes), default=0) or 1,
        few=FEW,
        tiny=TINY,
        cap=SHOWN,
        mode_words=mode_words,
    )


def _galleries(found: Audit, data: Data) -> list[Gallery]:
    every, counts, made = _entries(found), _counts(found), []
    for id, (title, words) in GALLERIES.items():
        entries, drawn = every[id], id != "unreadable"
        rows = [(said, [_picture(data, image, drawn=drawn) for image in images]) for said, images in entries[:SHOWN]]
        made.append(Gallery(id, title, words, counts.get(id, len(entries)), len(entries), rows))
    return made


def _counts(found: Audit) -> dict[str, int]:
    """What the titles of the galleries of copies count, as `Audit` does: images, not groups."""
    within = [copies for copies in found.copies if not copies.across]
    return {
        "across": found.leaked,
        "contradictory": sum(len(copies.images) for copies in within if copies.contradictory),
        "within": sum(len(copies.images) - 1 for copies in within if not copies.contradictory),
    }


def _entries(found: Audit) -> dict[str, list[tuple[str, list[Image]]]]:
    """The rows of each gallery: the words and the images."""
    within = [copies for copies in found.copies if not copies.across]
    return {
        "across": [_pair(copies) for copies in found.copies if copies.across],
        "near": [(f"{near.distance} of 256 bits differ", [near.train, near.test]) for near in found.near],
        "unreadable": _alone(found.unreadable),
        "contradictory": [_pair(copies) for copies in within if copies.contradictory],
        "within": [_pair(copies) for copies in within if not copies.contradictory],
        "mismatched": _alone(found.mismatched),
        "tiny": _alone(found.tiny),
        "huge": _alone(found.huge),
        "stretched": _alone(found.stretched),
        "narrow": _alone(found.narrow),
    }


def _pair(copies: Copies) -> tuple[str, list[Image]]:
    """Two of the copies, from each side and class one if possible, and the words about them."""
    first, *others = copies.images
    pair = [first, min(others, key=lambda image: (image.side == first.side, image.class_name == first.class_name))]
    more = f", {len(copies.images)} copies" if len(copies.images) > 2 else ""
    return f"the same {copies.same}{more}" + (", with conflicting labels" if copies.contradictory else ""), pair


def _alone(images: tuple[Image, ...]) -> list[tuple[str, list[Image]]]:
    return [("", [image]) for image in images]


def _picture(data: Data, image: Image, *, drawn: bool) -> Picture:
    files = data.train if image.side == "train" else data.test
    assert isinstance(files, Files)
    words = f"{'training' if image.side == 'train' else 'test'}, {printable(image.class_name)}"
    if image.words:
        words = f"{words}: {printable(image.words)}"
    return Picture(printable(image.name), words, thumbnail(files, image.index) if drawn else "")
