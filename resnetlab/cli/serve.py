"""`resnetlab serve`."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import Annotated, Any

from cyclopts import Parameter

from resnetlab.api.fetching import fetch_sources
from resnetlab.cli.options import (
    READ,
    Device,
    EngineName,
    Net,
    Reading,
    RunWeightsOrExported,
    Which,
    WholeNumber,
    check,
)
from resnetlab.errors import UserError, printable

Host = Annotated[str, Parameter(help="The address to listen on.")]
Port = Annotated[int, WholeNumber, Parameter(help="The port to listen on; 0 chooses a free one.")]
Engine = Annotated[
    EngineName,
    Parameter(help="What runs the network; auto: torch at first, then the fastest here that gives the same answers."),
]
BatchSize = Annotated[int, WholeNumber, Parameter(help="Maximum number of images per batch.")]
Queue = Annotated[int, WholeNumber, Parameter(help="Maximum number of requests that wait for their answer.")]
Megabytes = Annotated[int, WholeNumber, Parameter(help="Maximum size of a request in MB.")]
Megapixels = Annotated[int, WholeNumber, Parameter(help="Maximum size of an image in megapixels, up to 89.")]
Timeout = Annotated[int, WholeNumber, Parameter(help="Seconds to wait for a request's body, and again for its answer.")]


def serve(
    source: RunWeightsOrExported,
    /,
    *,
    net: Net = None,
    which: Which = "last",
    reading: Reading = READ,
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
    """Serve a network over HTTP: a page to drop images on, and an API for predictions and explanations."""
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
    fetch_sources(source)
    with listen(host, port) as listener:  # the port is taken before the network is read
        where = engine_device(source, device, engine)
        classifier = Classifier.open(source, net=net, which=which, **vars(reading), device=where, told=tell)
        settings: dict[str, Any] = {"host": host, "engine": engine, "batch": batch_size}
        serve_classifier(classifier, listener, limits, **settings, ready=partial(print, flush=True), told=tell)


def tell(line: str) -> None:
    """Print a line about what happens beside the answers; rich's, which is slower to load, is not needed for it."""
    print(printable(line), file=sys.stderr, flush=True)


def check_installed() -> None:
    """Raise UserError where the packages of a server are missing."""
    try:
        for name in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
            import_module(name)
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs more packages: pip install 'resnetlab[serve]' ({error}).") from error
