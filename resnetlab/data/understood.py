"""How a command interprets its data and its network, in one line that is shown before the work starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resnetlab.data.images import Data
from resnetlab.data.resizing import Resizing
from resnetlab.errors import counted, printable

MOST_CLASSES, SHOWN, LONGEST = 10, 5, 40  # of more classes the first ones are shown, of long names the beginning


@dataclass(frozen=True)
class Understood:
    """Classes and images of the data, and how the network's file says that images are prepared."""

    classes: tuple[str, ...]
    images: int | None = None  # of both sides; None without data
    tested: int = 0
    part: str = ""  # which part that is, in words
    held_out: int = 0  # of the others, for validation
    size: int | None = None  # side of the network's input, in pixels
    layout: str = ""  # whose parameter names the weights have
    normalisation: str = ""  # whose it is, in words
    size_assumed: bool = False  # whether neither the weights nor the user say the size
    named: bool = True  # whether the classes have names that a file or folder says
    resizing: Resizing | None = None  # what the weights' file or project states of it, where images are resized

    @classmethod
    def of(cls, data: Data, **network: Any) -> Understood:
        """Of data, and of a network if there is one: the fields from `held_out` on."""
        return cls(data.classes, len(data.train) + len(data.test), len(data.test), data.part, **network)

    def __str__(self) -> str:
        """The line."""
        names = f": {shortened(self.classes)}" if self.named else " without names"
        said = [counted(len(self.classes), "class", "classes") + names]
        if self.images is not None:
            tested = "all" if self.tested == self.images else f"{self.tested:,}"
            held_out = f" and {self.held_out:,} held out for validation" if self.held_out else ""
            part = f" ({self.part})" if self.part else ""
            said.append(f"{counted(self.images, 'image')}, {tested} tested{part}{held_out}")
        assumed = ", assumed, since the file does not state it (--image-size sets another)" if self.size_assumed else ""
        resized = f", {self.resizing.words(self.size)}" if self.size and self.resizing else ""
        said += [f"{self.size} pixels{assumed}{resized}"] if self.size else []
        said += [f"parameter names: {self.layout}"] if self.layout else []
        said += [f"normalisation: {self.normalisation}"] if self.normalisation else []
        return "; ".join(said)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values, without what is not known."""
        data = {"images": self.images, "tested": self.tested, "part": self.part, "held_out": self.held_out}
        network: dict[str, Any] = {"image_size": self.size, "layout": self.layout, "normalisation": self.normalisation}
        if self.size and self.resizing:
            network |= {"resize_short_side": self.resizing.short_side(self.size)}
            network |= {"interpolation": self.resizing.interpolation}
        return {
            "classes": len(self.classes),
            "class_names": list(self.classes) if self.named else None,
            **(data if self.images is not None else {}),
            **{key: value for key, value in network.items() if value},
        }


def shortened(names: tuple[str, ...]) -> str:
    """Names of classes as a line shows them: all of a few, the first of many."""
    some = names if len(names) <= MOST_CLASSES else names[:SHOWN]
    words = ", ".join(printable(name if len(name) <= LONGEST else name[: LONGEST - 3] + "...") for name in some)
    return words if len(some) == len(names) else f"{words} and {len(names) - len(some):,} more"
