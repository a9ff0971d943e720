"""Dependencies: every pin is in its range, none is known to be unsafe, all have licences that ours goes with."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
INSTALLED_BY_MAKE = ("export", "openvino", "serve", "parquet", "docs", "dev")
RUNNING = ("export", "openvino", "serve", "parquet")  # what a user of these extras installs, beside the dependencies

# The first versions without defects that content of others could reach, as published by the end of 2025: code in
# weights (CVE-2025-32434), a buffer of an image (CVE-2025-48379), forms (CVE-2024-53981), ranges of a file
# (CVE-2025-62727), chunks of a request (CVE-2025-43859), nested messages (CVE-2025-4565), templates (CVE-2025-27516).
SAFE_FROM = {
    "torch": "2.6.0",
    "pillow": "11.3.0",
    "python-multipart": "0.0.18",
    "starlette": "0.49.1",
    "h11": "0.16.0",
    "protobuf": "6.31.1",
    "jinja2": "3.1.6",
}
LICENCES = re.compile(r"\b(MIT|BSD|Apache|PSF|Python Software Foundation|ISC|HPND|MIT-CMU|Zlib|CC0|0BSD|MPL)\b", re.I)
# Its wheel states none; nothing of it is used but the library inside, libjpeg-turbo (IJG, BSD-3-Clause, zlib).
UNSTATED = {"turbojpeg"}


def requirements(extras: tuple[str, ...]) -> list[Requirement]:
    """The dependencies and those of the extras, but ourselves."""
    groups = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in groups[extra])]
    return [r for r in map(Requirement, texts) if r.name != "resnetlab"]


def all_below(names: set[str]) -> set[str]:
    """The installed packages of these names and those that they need."""
    found, waiting = set[str](), list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        waiting += [r.name for r in map(Requirement, needs) if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.parametrize("need", requirements(INSTALLED_BY_MAKE), ids=str)
def test_pins_are_in_their_ranges(need: Requirement) -> None:
    assert PINS[canonicalize_name(need.name)] in need.specifier


@pytest.mark.parametrize("name", SAFE_FROM)
def test_no_pin_is_known_to_be_unsafe(name: str) -> None:
    assert PINS[name] >= Version(SAFE_FROM[name])


@pytest.mark.parametrize("name", sorted(all_below({r.name for r in requirements(RUNNING)}) - UNSTATED))
def test_licences_go_with_ours(name: str) -> None:
    about = metadata.metadata(name)
    said = [about.get("License-Expression"), about.get("License"), *(about.get_all("Classifier") or [])]
    licences = [text for text in said if text and (text in said[:2] or text.startswith("License ::"))]
    assert any(LICENCES.search(text) for text in licences), f"{name}: {licences}"
