"""A matplotlib canvas as SVG that belongs in a page: its colours are CSS variables, its letters the page's own."""

from __future__ import annotations

import io
import re
from itertools import groupby
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Ochre to navy on light, ochre to pale blue on dark: lightness is monotonic, so the order survives colour
# blindness and grey print, and every colour stands out from its paper at 3:1 or more.
LIGHT = {
    "paper": "#fbfaf7",
    "ink": "#1d1f24",
    "muted": "#5a5f68",
    "grid": "#dedbd3",
    **{f"c{i}": c for i, c in enumerate(("#b5850c", "#b4513c", "#a3246b", "#5f2fb4", "#1a4292", "#071f33"))},
}
DARK = {
    "paper": "#15171b",
    "ink": "#e8e6e1",
    "muted": "#a4a8b0",
    "grid": "#33373e",
    **{f"c{i}": c for i, c in enumerate(("#ad7a10", "#dd5a55", "#ee6cb4", "#b79bff", "#a8c8ff", "#d9f5ff"))},
}
SANS = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'PingFang SC', 'Microsoft YaHei', "
    "'Noto Sans CJK SC', 'Noto Sans SC', sans-serif"
)
IN_LANGUAGE = "in-language-"  # begins the id of words that stand in the picture twice, English before Chinese

# matplotlib knows no CSS variables: each gets a colour that nothing else has, and is put back in the SVG.
STAND_INS = {name: f"#0a0b{i:02x}" for i, name in enumerate(LIGHT)}


def declarations(colours: dict[str, str]) -> str:
    """Colours as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def to_svg(canvas: Figure, prefix: str) -> ElementTree.Element:
    """The canvas as an SVG element without what would leak into a page: fixed fonts, colours and ids, global styles."""
    file = io.StringIO()
    canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    root = _lean(ElementTree.fromstring(file.getvalue()))
    root.attrib.pop("version")
    for element in root.iter():
        element.attrib = {_local(k): _restyled(v, prefix) for k, v in element.attrib.items()}
    used = set(re.findall(r"#([\w-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for element in root.iter():
        if (name := f"{prefix}-{element.attrib.pop('id', '')}") in used:
            element.set("id", name)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        if "d" in element.attrib:
            element.set("d", re.sub(r"\d+\.\d+", lambda m: f"{float(m[0]):.2f}", " ".join(element.attrib["d"].split())))
    root.set("stroke-linejoin", "round")
    return root


def readers_language(root: ElementTree.Element) -> ElementTree.Element:
    """A picture of its own, which shows the words in the language of its reader and not in both."""
    for parent in list(root.iter()):
        children: list[ElementTree.Element] = []
        for language, run in groupby(list(parent), lambda child: child.attrib.pop("lang", None)):
            if language is None:
                children += run
                continue
            words = ElementTree.Element("g")
            words.extend(run)
            if language == "zh":  # the English stands before it
                words.set("systemLanguage", language)
                choice = ElementTree.Element("switch")
                choice.extend([words, children.pop()])
                words = choice
            children.append(words)
        parent[:] = children
    return root


def to_file(canvas: Figure, kind: str, metadata: dict[str, str]) -> bytes:
    """The canvas as an English "png" (twice the size, for sharp letters) or "pdf", with the light colours."""
    canvas.draw_without_rendering()  # makes the ticks, so that theirs are found too
    colours = {stand_in: LIGHT[name] for name, stand_in in STAND_INS.items()}
    for artist in canvas.findobj():
        if artist.get_gid() == f"{IN_LANGUAGE}zh":
            artist.set_visible(False)
        for get, put in (("get_color", "set_color"), ("get_facecolor", "set_facecolor")):
            if hasattr(artist, get) and isinstance(colour := getattr(artist, get)(), str) and colour in colours:
                getattr(artist, put)(colours[colour])
    canvas.patch.set_visible(True)
    canvas.patch.set_facecolor(LIGHT["paper"])
    file = io.BytesIO()
    dates = {"CreationDate": None} if kind == "pdf" else {}
    canvas.savefig(file, format=kind, dpi=144, metadata=metadata | dates, facecolor=LIGHT["paper"])
    return file.getvalue()


def _lean(element: ElementTree.Element) -> ElementTree.Element:
    """Drop metadata, style sheets, and groups that only had a name; tags lose their namespace."""
    element.tag, element.tail = _local(element.tag), None
    children: list[ElementTree.Element] = []
    for child in map(_lean, element):
        if child.get("id", "").startswith(IN_LANGUAGE):
            for words in child:
                words.set("lang", child.attrib["id"].removeprefix(IN_LANGUAGE))
        nameless = child.tag == "g" and set(child.attrib) <= {"id"}
        hollow = child.tag == "defs" and not len(child)
        if child.tag not in ("metadata", "style") and not hollow:
            children += list(child) if nameless else [child]
    if len(children) or element.tag != "text":
        element.text = None
    element[:] = children
    return element


def _local(name: str) -> str:
    return name.rpartition("}")[2]  # also makes xlink:href the href that it is nowadays


def _restyled(value: str, prefix: str) -> str:
    for name, stand_in in STAND_INS.items():
        value = value.replace(stand_in, f"var(--{name})")
    value = re.sub(r"(font(?:-family)?:[^;]*?) ?'DejaVu Sans'", r"\1 var(--sans)", value)
    return re.sub(r"^#|(?<=url\()#", f"#{prefix}-", value)
