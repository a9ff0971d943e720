"""The audit of a data set of files: unreadable, duplicate and unusual images; `report` makes a page of it."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from resnetlab.data import decoding
from resnetlab.data.files import Files
from resnetlab.data.images import Data
from resnetlab.data.near_duplicates import NEAR, NEAR_FINE, difference_hash, nearest_looks
from resnetlab.data.oddities import HUGE, NARROW, STRETCHED, TINY, levels_of, mode_words, oddities
from resnetlab.data.workers import KILLED, check_workers, over_images
from resnetlab.errors import UserError, counted

FEW = 20  # training images: classes with fewer are listed
UNEVEN = 3  # ratio of largest to smallest class from which on the audit advises to balance the classes


@dataclass(frozen=True)
class Image:
    """An image of the data set, and why it is listed."""

    side: str  # "train" or "test"
    index: int  # among the images of its side
    name: str
    class_name: str
    words: str = ""


@dataclass(frozen=True)
class Copies:
    """Copies of one image: files with the same bytes, or with the same pixels."""

    same: str  # "bytes" or "pixels"
    images: tuple[Image, ...]

    @property
    def across(self) -> bool:
        """Whether there are copies among both the training and the test images."""
        return len({image.side for image in self.images}) == 2

    @property
    def contradictory(self) -> bool:
        """Whether the copies are labelled differently."""
        return len({image.class_name for image in self.images}) > 1


@dataclass(frozen=True)
class Near:
    """A test image, and the training image that looks most similar to it."""

    test: Image
    train: Image
    distance: int  # bits of 256


@dataclass(frozen=True)
class ClassCount:
    """How many images a class has, readable or not."""

    name: str
    train: int
    test: int


@dataclass(frozen=True)
class Sizes:
    """Pixels of the readable images: shortest side, median of the shorter side, longest side."""

    shortest: int
    median: float
    longest: int


@dataclass(frozen=True)
class Audit:
    """The findings of an audit. Each list is complete, in the order of the data set."""

    name: str
    train: int  # images
    test: int
    readable: int
    classes: tuple[ClassCount, ...]
    imbalance: float | None  # the largest class over the smallest, of training images; None if one is empty
    few: tuple[str, ...]  # classes
    unreadable: tuple[Image, ...]
    copies: tuple[Copies, ...]
    near: tuple[Near, ...]
    formats: tuple[tuple[str, str, int], ...]  # format, mode, images
    sizes: Sizes | None  # None if nothing is readable
    grey: int  # images without colour
    rotated: int  # images that EXIF turns upright
    mismatched: tuple[Image, ...]
    tiny: tuple[Image, ...]
    huge: tuple[Image, ...]
    stretched: tuple[Image, ...]
    narrow: tuple[Image, ...]

    @property
    def leaked(self) -> int:
        """The number of test images that are training images too."""
        return sum(image.side == "test" for copies in self.copies if copies.across for image in copies.images)

    @property
    def contradictory(self) -> int:
        """The number of images whose copies are labelled differently."""
        return sum(len(copies.images) for copies in self.copies if copies.contradictory)

    def within(self, side: str) -> int:
        """The number of surplus copies within one side."""
        counts = (sum(image.side == side for image in copies.images) for copies in self.copies)
        return sum(count - 1 for count in counts if count > 1)

    @property
    def verdict(self) -> str:
        """The problems that would distort a training, in one line."""
        counts = (
            (self.leaked, "test image", f"of {self.test:,} also among the training images"),
            (len(self.near), "test image", f"of {self.test:,} nearly identical to a training image"),
            (self.contradictory, "image", "with conflicting labels"),
            (len(self.unreadable), "file", f"of {self.train + self.test:,} unreadable"),
            (len(self.narrow), "image", "with few levels"),
        )
        words = "; ".join(f"{counted(count, what)} {trouble}" for count, what, trouble in counts if count)
        return f"{words}." if words else "Every file can be read, and no test image is among the training images."

    @property
    def advice(self) -> str:
        """What to do in training about classes of uneven size; "" if they are even enough."""
        trained = [each for each in self.classes if each.train]
        largest = max(trained, key=lambda each: each.train, default=None)
        smallest = min(trained, key=lambda each: each.train, default=None)
        if not largest or not smallest or largest.train < UNEVEN * smallest.train:
            return ""
        return (
            f"The classes are uneven, {largest.train:,} training images of {largest.name} and {smallest.train:,} of "
            f"{smallest.name}: a network tends to predict the larger ones too often. To count all alike, train with "
            "--balance class_weights, or with --balance sampling."
        )

    @property
    def evenness(self) -> str:
        """The ratio of the largest to the smallest class, by training images, in words."""
        if self.imbalance is None:
            return "a class has no training images"
        if round(self.imbalance, 1) == 1:
            return f"all classes are {'' if self.imbalance == 1 else 'about '}the same size in training"
        return f"the largest class has {self.imbalance:,.1f} times the training images of the smallest"

    def summary(self) -> list[tuple[str, str]]:
        """The counts: what was counted and the words, line by line."""
        all_images = self.train + self.test
        classes = f"{counted(len(self.classes), 'class', 'classes')} of {_span(c.train for c in self.classes)} training"
        classes += f" and {_span(c.test for c in self.classes)} test images; {self.evenness}"
        sizes = self.sizes
        rows = [
            ("images", f"{self.train:,} training, {self.test:,} test; {self.readable:,} of {all_images:,} readable"),
            ("classes", classes),
            ("small classes", f"{counted(len(self.few), 'class', 'classes')} of fewer than {FEW} training images"),
            ("in training and test", f"{self.leaked:,} of {self.test:,} test images"),
            ("near-duplicates", f"{len(self.near):,} of {self.test:,} test images, of a training image"),
            ("duplicates", f"{self.within('train'):,} within training, {self.within('test'):,} within test"),
            ("conflicting labels", counted(self.contradictory, "image")),
            ("formats", ", ".join(f"{format} {mode_words(mode)} {count:,}" for format, mode, count in self.formats)),
            ("without colour", f"{self.grey:,} of {self.readable:,}"),
            ("rotated by EXIF", f"{self.rotated:,} of {self.readable:,}"),
            ("wrong extension", counted(len(self.mismatched), "file")),
            (f"tiny, below {TINY} pixels", counted(len(self.tiny), "image")),
            (f"huge, above {HUGE // 1_000_000} megapixels", counted(len(self.huge), "image")),
            (f"longer than {STRETCHED}:1", counted(len(self.stretched), "image")),
            ("a quarter of the levels or less", counted(len(self.narrow), "image")),
        ]
        if sizes:
            words = f"sides of {sizes.shortest:,} to {sizes.longest:,} pixels; the shorter side has a median of "
            rows.insert(1, ("sizes", f"{words}{sizes.median:,g}"))
        return rows

    def lists(self) -> list[tuple[str, list[str]]]:
        """Lists of images and classes to look at, with their titles, one item per line."""

        def told(image: Image) -> str:
            return f"{image.side} {image.name}" + (f": {image.words}" if image.words else "")

        groups = {True: [], False: []}  # type: dict[bool, list[str]]
        for copies in self.copies:
            if copies.across or copies.contradictory:
                groups[copies.across].append(f"the same {copies.same}: " + ", ".join(map(told, copies.images)))
        near = [f"{told(each.test)} and {told(each.train)}: {each.distance} of 256 bits differ" for each in self.near]
        found = {
            "unreadable": [told(image) for image in self.unreadable],
            "in training and test": groups[True],
            "near-duplicates in training and test": near,
            "conflicting labels within training or test": groups[False],
            "wrong extension": [told(image) for image in self.mismatched],
            "a quarter of the levels or less": [told(image) for image in self.narrow],
            f"classes with fewer than {FEW} training images": list(self.few),
        }
        return [(title, lines) for title, lines in found.items() if lines]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; each group of copies states whether it spans both sides and is labelled differently."""
        values = asdict(self)
        for group, copies in zip(values["copies"], self.copies, strict=True):
            group |= {"across": copies.across, "contradictory": copies.contradictory}
        return values | {
            "leaked": self.leaked,
            "contradictory": self.contradictory,
            "within": {side: self.within(side) for side in ("train", "test")},
            "verdict": self.verdict,
            "advice": self.advice,
            "thresholds": {
                "near": [NEAR, NEAR_FINE],
                "few": FEW,
                "uneven": UNEVEN,
                "tiny": TINY,
                "huge": HUGE,
                "stretched": STRETCHED,
                "narrow": NARROW,
            },
        }


def _span(counts: Iterable[int]) -> str:
    listed = list(counts)
    low, high = min(listed), max(listed)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


class _Look(NamedTuple):
    """A worker's report on an image; for an unreadable one, the reason and the hash of its bytes."""

    trouble: str
    bytes_hash: bytes = b""
    pixels_hash: bytes = b""
    look_hash: np.ndarray | int = 0
    flat: bool = False
    grey: bool = False
    header: decoding.Header | None = None
    levels: tuple[int, int, int] = (0, 255, 255)


# The data kept for each image: 82 bytes.
_KEPT = np.dtype(
    [
        ("bytes", "V16"),
        ("pixels", "V16"),
        ("look", "u8", 5),
        ("readable", "?"),
        ("flat", "?"),
        ("short", "i4"),
        ("long", "i4"),
    ]
)


def audit(
    data: Data, *, workers: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Audit:
    """Read and decode every image of both sides. `progress` is called with the images done and in all.

    Memory: about 100 bytes per image, plus the images being decoded.
    Raises UserError for a data set in memory.
    """
    if not isinstance(data.train, Files) or not isinstance(data.test, Files):
        raise UserError(f"{data.title} is loaded into memory; only data sets of image files can be audited.")
    workers = check_workers(workers)
    sides = {"train": data.train, "test": data.test}
    kept = {side: np.zeros(len(files), _KEPT) for side, files in sides.items()}
    lists: dict[str, list[Image]] = {
        key: [] for key in ("unreadable", "mismatched", "tiny", "huge", "stretched", "narrow")
    }
    formats: Counter[tuple[str, str]] = Counter()
    grey = rotated = done = 0
    for side, files in sides.items():
        with contextlib.closing(over_images(_look, files, workers)) as looks:
            for i, found in enumerate(looks):
                look = found or _Look(KILLED)
                row = kept[side][i]
                row["bytes"] = look.bytes_hash
                if look.header is None:
                    lists["unreadable"].append(_image(data, side, i, look.trouble))
                else:
                    h = look.header
                    row["pixels"], row["look"], row["flat"] = look.pixels_hash, look.look_hash, look.flat
                    row["readable"], (row["short"], row["long"]) = True, sorted((h.height, h.width))
                    formats[h.format, h.mode] += 1
                    grey += look.grey
                    rotated += h.orientation != 1
                    for key, words in oddities(files.name(i), h, look.levels):
                        lists[key].append(_image(data, side, i, words))
                done += 1
                progress(done, len(data.train) + len(data.test))
    copies = _copies(data, kept)
    counts = [np.bincount(files.labels.numpy(), minlength=len(data.classes)).tolist() for files in sides.values()]
    classes = tuple(ClassCount(*each) for each in zip(data.classes, *counts, strict=True))
    train_counts = [each.train for each in classes]
    readable = {side: rows[rows["readable"]] for side, rows in kept.items()}
    shorts, longs = (np.concatenate([rows[key] for rows in readable.values()]) for key in ("short", "long"))
    return Audit(
        name=data.title,
        train=len(data.train),
        test=len(data.test),
        readable=len(shorts),
        classes=classes,
        imbalance=max(train_counts) / min(train_counts) if all(train_counts) else None,
        few=tuple(each.name for each in classes if each.train < FEW) if len(data.train) else (),
        copies=copies,
        near=_near(data, kept, copies),
        formats=tuple((*key, count) for key, count in formats.most_common()),
        sizes=Sizes(int(shorts.min()), float(np.median(shorts)), int(longs.max())) if len(shorts) else None,
        grey=grey,
        rotated=rotated,
        **{key: tuple(images) for key, images in lists.items()},
    )


def _image(data: Data, side: str, i: int, words: str = "") -> Image:
    files = data.train if side == "train" else data.test
    assert isinstance(files, Files)
    return Image(side, i, files.name(i), data.classes[int(files.labels[i])], words)


def _look(files: Files, i: int) -> _Look:
    content = b""
    try:
        content = files.read(i)
        if not content:
            return _Look("empty, 0 bytes")
        header = decoding.read_header(content)
        pixels = decoding.decode(content)  # H W 3
    except (decoding.Unreadable, OSError, MemoryError) as error:
        return _Look(decoding.reason(error), _hash(content) if content else b"")
    look_hash, flat = difference_hash(pixels)
    return _Look(
        trouble="",
        bytes_hash=_hash(content),
        pixels_hash=_hash(str(pixels.shape).encode(), np.ascontiguousarray(pixels)),
        look_hash=look_hash,
        flat=flat,
        grey=bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()),
        header=header,
        levels=levels_of(pixels),
    )


def _hash(*contents: Any) -> bytes:
    hashed = hashlib.blake2b(digest_size=16)
    for content in contents:
        hashed.update(content)
    return hashed.digest()


def _copies(data: Data, kept: dict[str, np.ndarray]) -> tuple[Copies, ...]:
    """Groups of images with the same pixels, or, if they are unreadable, with the same bytes."""
    both = np.concatenate([kept["train"], kept["test"]])
    train = len(kept["train"])
    key = np.where(both["readable"], both["pixels"], both["bytes"])
    known = np.flatnonzero(key != np.zeros(1, "V16"))  # empty files, and those that kill the decoder, have no hash
    _, group, sizes = np.unique(key[known], return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    found = []
    for rows in np.split(known[order], np.cumsum(sizes)[:-1]):
        if len(rows) > 1:
            same = "bytes" if len(np.unique(both["bytes"][rows])) == 1 else "pixels"
            places = [("train", int(r)) if r < train else ("test", int(r) - train) for r in rows]
            found.append((int(rows[0]), Copies(same, tuple(_image(data, side, i) for side, i in places))))
    return tuple(copies for _, copies in sorted(found, key=lambda each: each[0]))


def _near(data: Data, kept: dict[str, np.ndarray], copies: tuple[Copies, ...]) -> tuple[Near, ...]:
    """For each test image that is not a copy, the most similar training image, if one is similar enough."""
    leaked = {image.index for each in copies if each.across for image in each.images if image.side == "test"}
    usable = {side: np.flatnonzero(rows["readable"] & ~rows["flat"]) for side, rows in kept.items()}
    asked = np.array([i for i in usable["test"].tolist() if i not in leaked], dtype=np.int64)
    among = usable["train"]
    nearest, distance = nearest_looks(kept["test"]["look"][asked], kept["train"]["look"][among])
    return tuple(
        Near(_image(data, "test", int(asked[k])), _image(data, "train", int(among[nearest[k]])), int(distance[k]))
        for k in np.flatnonzero(nearest >= 0).tolist()
    )
