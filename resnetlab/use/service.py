"""Serves a classifier over HTTP until a signal ends it, with decoding processes and a choice of engine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import nullcontext

from resnetlab.machine import give_back_memory
from resnetlab.use.classifier import Classifier
from resnetlab.use.decoders import BESIDE, Decoders
from resnetlab.use.engines import with_engine
from resnetlab.use.http_server import LOOPBACK, is_loopback, run, url_of
from resnetlab.use.request_body import Limits
from resnetlab.use.serve import make_app
from resnetlab.use.settling import settling


def serve_classifier(
    classifier: Classifier,
    listener: socket.socket,
    limits: Limits,
    *,
    host: str,
    engine: str = "auto",
    batch: int = 16,
    ready: Callable[[str], object],
    told: Callable[[str], object],
) -> None:
    """Answer requests until a signal (`http_server.run`); ready is called with the line that states the address.

    host: as the user gave it. If the listener is bound to a loopback address, which many names mean, only requests that
    use the server's own names are answered.
    engine: as in `with_engine`, or `auto`: PyTorch at first, then the fastest engine once it is known. told is called
    with lines that say which engine runs, and with warnings. Raises UserError as `with_engine` does.
    """
    settles = engine == "auto" and classifier.device == "cpu"  # the first engine answers until the fastest is found
    # With the address too: ready's line states it, and it may be another than the usual one, such as 127.0.1.1.
    hosts = {*LOOPBACK, host.lower(), listener.getsockname()[0]} if is_loopback(listener) else None
    with Decoders(limits.pixels + BESIDE) as decoders:
        # The app alone holds the first, so that its memory is free once it is replaced.
        first = with_engine(classifier, None if settles else engine, batch=batch, told=told)
        app = make_app(first, limits, decoders, batch=batch, hosts=hosts)
        del first
        give_back_memory()  # of the copies that made it
        background = settling(classifier, batch, app.state.run_by, told) if settles else nullcontext(lambda: None)
        with background as settle:

            def start() -> None:
                decoders.start()  # only now, so that they don't delay the server's start
                what = f"{classifier.name}, {len(classifier.classes)} classes, on {classifier.device}"
                ready(f"{what}: {url_of(listener)} (Ctrl-C stops it)")
                if hosts is None:
                    told("warning: others can reach this address, and the server has no login.")
                settle()

            run(app, listener, limits.seconds, start)
