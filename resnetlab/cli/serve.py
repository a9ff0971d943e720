"""`resnetlab serve`."""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from importlib import import_module
from typing import Annotated, Literal

from cyclopts import Parameter

from resnetlab.cli.train import Device, WholeNumber
from resnetlab.cli.use import WHICH, ImageSize, Net, SourceOrExported, Which, engine_device, opened, run_by
from resnetlab.errors import UserError, check_choice, printable


def serve(
    source: SourceOrExported,
    /,
    *,
    net: Net = None,
    which: Which = "last",
    image_size: ImageSize = None,
    host: Annotated[str, Parameter(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, WholeNumber, Parameter(help="The port; 0 takes a free one.")] = 8000,
    engine: Annotated[
        Literal["auto", "torch", "onnxruntime", "openvino"],
        Parameter(help="What runs it; auto: torch at first, then the fastest here that answers alike."),
    ] = "auto",
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
    from resnetlab.use.http_server import LOOPBACK, is_loopback, listen, run, url_of
    from resnetlab.use.serve import Limits, make_app
    from resnetlab.use.settling import settling

    if not 1 <= max_megapixels <= MOST_PIXELS // 10**6:
        raise UserError(f"max-megapixels={max_megapixels} must be 1 to {MOST_PIXELS // 10**6}: more are never decoded.")
    pixels = max_megapixels * 10**6
    # The port is taken before the network is read.
    with listen(host, port) as listener, Decoders(pixels + BESIDE) as decoders, ExitStack() as stack:
        where = engine_device(source, device, engine)
        classifier = opened(source, net=net, which=which, image_size=image_size, device=where)
        at_once = engine == "auto" and where == "cpu"  # what is opened answers until the fastest is found
        first = run_by(classifier, None if at_once else engine, batch_size)
        limits = Limits(bytes=max_megabytes * 10**6, pixels=pixels, requests=queue, seconds=timeout)
        hosts = {*LOOPBACK, host.lower()} if is_loopback(host) else None
        app = make_app(first, limits, decoders, batch=batch_size, hosts=hosts)
        background = settling(classifier, batch_size, app.state.run_by, tell) if at_once else nullcontext(lambda: None)
        settle = stack.enter_context(background)

        def ready() -> None:
            decoders.start()  # not before, when they would take time from what must be ready first
            what = f"{classifier.name}, {len(classifier.classes)} classes, on {classifier.device}"
            print(f"{what}: {url_of(listener)} (Ctrl-C ends it)", flush=True)
            if hosts is None:
                print("warning: others can reach this address, and there is no login.", file=sys.stderr)
            settle()

        run(app, listener, timeout, ready)


def tell(line: str) -> None:
    """Print a line of what goes on beside the answers."""
    print(printable(line), file=sys.stderr, flush=True)


def check_installed() -> None:
    """Raise UserError where the packages of a server are missing."""
    try:
        for name in ("fastapi", "python_multipart", "uvicorn"):
            import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs packages more: pip install 'resnetlab[serve]' ({error}).") from error
