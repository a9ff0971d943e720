"""`resnetlab serve`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

from cyclopts import Parameter

from resnetlab.cli.train import Device, WholeNumber, find_device
from resnetlab.cli.use import WHICH, ImageSize, Net, Source, Which, opened
from resnetlab.errors import UserError, check_choice


def serve(
    source: Source,
    /,
    *,
    net: Net = None,
    which: Which = "last",
    image_size: ImageSize = None,
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, WholeNumber, Parameter(help="The port; 0 takes a free one.")] = 8000,
    device: Device = "auto",
    batch_size: Annotated[int, WholeNumber, Parameter(help="Images in a pass, at most.")] = 16,
    queue: Annotated[int, WholeNumber, Parameter(help="Requests that wait for their answer, at most.")] = 64,
    max_megabytes: Annotated[int, WholeNumber, Parameter(help="Largest request.")] = 20,
    max_megapixels: Annotated[int, WholeNumber, Parameter(help="Largest image; up to 89.")] = 25,
    timeout: Annotated[int, WholeNumber, Parameter(help="Seconds for a request to come, and to be answered.")] = 30,
) -> None:
    """Answer over HTTP: a page to drop images on, and an API to ask for classes and explanations."""
    check_choice("which", which, WHICH)
    counts = {"batch-size": batch_size, "queue": queue, "max-megabytes": max_megabytes, "timeout": timeout}
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name}={value} must be 1 or more.")
    check_installed()
    from resnetlab.data.decoding import MOST_PIXELS
    from resnetlab.use.decoders import BESIDE, Decoders
    from resnetlab.use.listening import LOOPBACK, is_loopback, listen, run, url_of
    from resnetlab.use.serve import Limits, make_app

    if not 1 <= max_megapixels <= MOST_PIXELS // 10**6:
        raise UserError(f"max-megapixels={max_megapixels} must be 1 to {MOST_PIXELS // 10**6}: more are never decoded.")
    pixels = max_megapixels * 10**6
    with listen(host, port) as listener, Decoders(pixels + BESIDE) as decoders:  # before the network is read
        where = find_device(device)
        classifier = opened(source, net=net, which=which, image_size=image_size, device=where)
        limits = Limits(bytes=max_megabytes * 10**6, pixels=pixels, requests=queue, seconds=timeout)
        hosts = {*LOOPBACK, host.lower()} if is_loopback(host) else None
        app = make_app(classifier, limits, decoders, batch=batch_size, hosts=hosts)

        def ready() -> None:
            decoders.start()  # not before, when they would take time from what must be ready first
            what = f"{classifier.name}, {len(classifier.classes)} classes, on {classifier.device}"
            print(f"{what}: {url_of(listener)} (Ctrl-C ends it)", flush=True)
            if hosts is None:
                print("warning: others can reach this address, and there is no login.", file=sys.stderr)

        run(app, listener, timeout, ready)


def check_installed() -> None:
    """Raise UserError where the packages of a server are missing."""
    try:
        for name in ("fastapi", "python_multipart", "uvicorn"):
            import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs packages more: pip install 'resnetlab[serve]' ({error}).") from error
