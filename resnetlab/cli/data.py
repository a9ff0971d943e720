"""`resnetlab data`: fetch, pack, verify, audit, stats."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from resnetlab.cli.options import Json, WholeNumber, print_json
from resnetlab.data.open import DATA_NAMES, PUBLISHED, data_names, listed
from resnetlab.errors import UserError, counted, printable

if TYPE_CHECKING:
    from resnetlab.data.audit import Audit
    from resnetlab.data.images import Data
    from resnetlab.data.pack import Contents

LISTED = 10  # lines of each list of an audit

app = cyclopts.App(name="data", help="Download, pack, verify, audit and measure data sets.")


@app.command
def fetch(
    name: Annotated[str, Parameter(help=f"The data set: {listed(list(PUBLISHED))}.")],
    dest: Annotated[Path, Parameter(help="The folder to download it to.")],
    /,
    *,
    json: Json = False,
) -> None:
    """Download a data set and verify it; the same command resumes a download, and leaves a complete one alone."""
    from rich.filesize import decimal

    from resnetlab.api.fetching import follow
    from resnetlab.data.fetch import fetch as fetch_data

    started = time.monotonic()
    received, was_there = follow(fetch_data(name, dest))
    seconds = time.monotonic() - started
    if json:
        files = [file.name for file in PUBLISHED[name].files]
        answer = {"name": name, "folder": str(dest), "files": files, "bytes": received, "seconds": seconds}
        print_json(answer)
        return
    happened = "already complete" if was_there else f"complete, {decimal(received)} downloaded in {seconds:.1f} s"
    print(f"{name}: {happened}\nto train with it: --data {shlex.quote(f'{name}:{dest}')}")


Workers = Annotated[int | None, WholeNumber, Parameter(help="Number of processes; default: one per core.")]
FilesText = Annotated[str, Parameter(help=f"The data set, of image files: {data_names(of_files=True)}.")]

ShortSide = Annotated[
    int | None, WholeNumber, Parameter(help="Resize larger images to this many pixels on the short side, as JPEGs.")
]
Quality = Annotated[int | None, WholeNumber, Parameter(help="Quality of those JPEGs, 1 to 95; default: 90.")]
Unreadable = Annotated[str, Parameter(help="For an unreadable image: error stops, skip leaves it out.")]


@app.command
def pack(
    data: FilesText,
    dest: Annotated[Path, Parameter(help="A new or empty folder for the pack.")],
    /,
    *,
    short_side: ShortSide = None,
    quality: Quality = None,
    unreadable: Unreadable = "error",
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Pack a data set of image files into a few large files, which are fast to copy, read and verify.

    Files are copied unchanged, without decoding. With --short-side every image is decoded, and larger ones are resized.
    """
    from resnetlab.api.screen import counting, say
    from resnetlab.data.open import open_data
    from resnetlab.data.pack import pack as pack_data

    if quality is not None and short_side is None:
        raise UserError(f"quality={quality} has no effect without --short-side, since files are then copied unchanged.")
    started, opened = time.monotonic(), open_data(data, "read")
    options: dict[str, Any] = {"unreadable": unreadable, "workers": workers, "told": say}
    options |= {"short_side": short_side, "quality": 90 if quality is None else quality}
    with counting("packing") as progress:
        contents, was_there = pack_data(opened, dest, progress=progress, **options)
    seconds = time.monotonic() - started
    if json:
        print_json(_pack_answer(contents, dest, opened, seconds))
    else:
        happened = "already packed" if was_there else f"packed in {seconds:.1f} s"
        _show_pack(contents, f"{opened.title}: {happened}", dest)


def _pack_answer(contents: Contents, dest: Path, data: Data, seconds: float) -> dict[str, Any]:
    from resnetlab.data.understood import Understood

    return {
        "folder": str(dest),
        "train": contents.train,
        "test": contents.test,
        "shards": [shard.file for shard in contents.shards],
        "bytes": sum(shard.bytes for shard in contents.shards),
        "skipped": [vars(image) for image in contents.skipped],
        "seconds": seconds,
        "understood": Understood.of(data).to_dict(),
    }


def _show_pack(contents: Contents, what: str, dest: Path) -> None:
    from rich.filesize import decimal

    for image in contents.skipped:
        print(f"left out: {image.side} {printable(image.name)}: {printable(image.reason)}")
    size, use = sum(shard.bytes for shard in contents.shards), "train with" if contents.train else "evaluate on"
    print(
        f"{printable(what)}: {contents.train:,} training and {contents.test:,} test images, "
        f"{decimal(size)} in {len(contents.shards)} tar{'s' * (len(contents.shards) != 1)}\n"
        f"to {use} it: --data {shlex.quote(f'pack:{dest}')}"
    )


@app.command
def verify(folder: Annotated[Path, Parameter(help="The folder of the pack.")], /, *, json: Json = False) -> None:
    """Read every byte of a pack and compare it with the checksums; exit with code 2 if anything is damaged."""
    from resnetlab.api.screen import counting
    from resnetlab.data.pack import verify as verify_pack

    with counting("verifying") as progress:
        damage = verify_pack(folder, progress)
    if json:
        print_json({"folder": str(folder), "damage": damage})
    elif damage:
        print("\n".join(map(printable, damage)))
    if damage:
        raise UserError(
            f"{folder}: a damaged pack, {counted(len(damage), 'fault')}; remove it and pack the data "
            "again, or copy the files again."
        )
    if not json:
        print(f"{folder}: all shards and images are undamaged")


@app.command
def audit(
    data: FilesText,
    /,
    *,
    html: Annotated[Path | None, Parameter(help="Also write the findings, with pictures, to this HTML file.")] = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Read all training and test images; report unreadable, duplicate and unusual ones, and test images in training."""
    from resnetlab.api.screen import counting, say
    from resnetlab.data.audit import audit as audit_data
    from resnetlab.data.open import open_data
    from resnetlab.data.understood import Understood
    from resnetlab.data.workers import check_workers
    from resnetlab.report.audit_page import check_place, write_page

    if html:
        check_place(html)
    opened, processes = open_data(data, "read"), check_workers(workers)
    say(str(Understood.of(opened)))
    with counting("auditing") as progress:
        found = audit_data(opened, workers=processes, progress=progress)
    if json:
        print_json(found.to_dict())
    else:
        _show(found)
    if html:
        write_page(found, opened, html)
        if not json:
            print(html)


def _show(found: Audit) -> None:
    from rich.table import Table
    from rich.text import Text

    from resnetlab.api.screen import console

    table = Table(show_header=False)
    for what, words in found.summary():
        table.add_row(what, Text(words))
    console().print(table)
    for title, lines in found.lists():
        console().print(f"\n{title}")
        for line in lines[:LISTED]:
            console().print(f"  {printable(line)}", soft_wrap=True)
        if len(lines) > LISTED:
            console().print(f"  and {len(lines) - LISTED:,} more; --json has all")
    for words in filter(None, (f"{found.name}: {found.verdict}", found.advice)):
        console().print(f"\n{printable(words)}", soft_wrap=True)


@app.command
def stats(
    data: Annotated[str, Parameter(help=f"The data set: {DATA_NAMES}.")],
    /,
    *,
    image_size: Annotated[int, WholeNumber, Parameter(help="Side length in pixels of images from files.")] = 224,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Measure each channel's mean and standard deviation over the training images (0 to 1); cached for training."""
    from resnetlab.api.screen import counting, say
    from resnetlab.data.open import open_data
    from resnetlab.data.statistics import measure
    from resnetlab.data.understood import Understood
    from resnetlab.data.workers import check_workers

    if not 8 <= image_size <= 4096:
        raise UserError(f"image_size={image_size} must be 8 to 4096 pixels.")
    opened = open_data(data, "read")
    if not len(opened.train):
        raise UserError(f"{data}: has no training images to measure, {opened.part}.")
    processes = check_workers(workers)
    say(str(Understood.of(opened)))
    with counting("measuring") as count:
        found = measure(opened.train, image_size, workers=processes, progress=count)
    mean, std = (t.float().tolist() for t in found.by_channel())
    if json:
        print_json({"mean": mean, "std": std, "images": found.images, "of": len(opened.train)})
        return
    share = "all" if found.images == len(opened.train) else f"{found.images:,} of"
    print(f"mean {_spaced(mean)}\nstd  {_spaced(std)}\nof {share} {len(opened.train):,} training images")


def _spaced(values: list[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)
