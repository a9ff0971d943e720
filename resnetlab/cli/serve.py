"""`resnetlab serve`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Literal

from cyclopts import Parameter

from resnetlab.cli.options import Device, ImageSize, Net, SourceOrExported, Which, WholeNumber, check
from resnetlab.errors import UserError, printable

Host = Annotated[str, Parameter(help="The address to listen on.")]
Port = Annotated[int, WholeNumber, Parameter(help="The port; 0 takes a free one.")]
Engine = Annotated[
    Literal["auto", "torch", "onnxruntime", "openvino"],
    Parameter(help="What runs it; auto: torch at first, then the fastest here that answers alike."),
]
BatchSize = Annotated[int, WholeNumber, Parameter(help="Images in a pass, at most.")]
Queue = Annotated[int, WholeNumber, Parameter(help="Requests that wait for their answer, at most.")]
Megabytes = Annotated[int, WholeNumber, Parameter(help="Largest request.")]
Megapixels = Annotated[int, WholeNumber, Parameter(help="Largest image; up to 89.")]
Timeout = Annotated[int, WholeNumber, Parameter(help="Seconds for a request to come, and to be answered.")]


def serve(
    source: SourceOrExported,
    /,
    *,
    net: Net = None,
    which: Which = "last",
    image_size: ImageSize = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    engine: Engine = "auto",
    device: Device = "auto",
    batch_size: BatchSize = 16,
    queue: Queue = 64,
    max_megabytes: Megabytes = 20,
    max_megapixels: Megapixels = 25,
    timeout: Timeout = 30,
) -> None:
    """Answer over HTTP: a page to drop images on, and an API to ask for classes and explanations."""
    counts = {"batch-size": batch_size, "queue": queue, "max-megabytes": max_megabytes, "timeout": timeout}
    check(which, **counts)
    check_installed()
    from resnetlab.data.decoding import MOST_PIXELS
    from resnetlab.use.classifier import Classifier
    from resnetlab.use.engines import engine_device
    from resnetlab.use.http_server import listen
    from resnetlab.use.request_body import Limits
    from resnetlab.use.service import serve_classifier

    if not 1 <= max_megapixels <= MOST_PIXELS // 10**6:
        raise UserError(f"max-megapixels={max_megapixels} must be 1 to {MOST_PIXELS // 10**6}: more are never decoded.")
    limits = Limits(bytes=max_megabytes * 10**6, pixels=max_megapixels * 10**6, requests=queue, seconds=timeout)
    with listen(host, port) as listener:  # the port is taken before the network is read
        where = engine_device(source, device, engine)
        classifier = Classifier.open(source, net=net, which=which, image_size=image_size, device=where, told=tell)
        serve_classifier(
            classifier, listener, limits, host=host, engine=engine, batch=batch_size, ready=_announce, told=tell
        )


def _announce(line: str) -> None:
    print(line, flush=True)


def tell(line: str) -> None:
    """Print a line of what goes on beside the answers; rich's, which is slower to load, is not needed for it."""
    print(printable(line), file=sys.stderr, flush=True)


def check_installed() -> None:
    """Raise UserError where the packages of a server are missing."""
    try:
        for name in ("fastapi", "python_multipart", "uvicorn"):
            import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs packages more: pip install 'resnetlab[serve]' ({error}).") from error
