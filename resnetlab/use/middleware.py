"""The middleware of every request: which hosts are answered, headers for browsers, counting, errors without details."""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resnetlab.use.metrics import Metrics

SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY.items()]


class RequestMiddleware:
    """ASGI middleware.

    `hosts` are the names by which a request may address this server, None for any: the page of a foreign site whose
    name is made to point to this machine (DNS rebinding) uses its own. `paths` are counted by name, all others
    together. An uncaught error becomes a 500 without details, with a traceback on stderr.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, paths: Collection[str], metrics: Metrics) -> None:
        self.app, self.hosts, self.paths, self.metrics = app, hosts, paths, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        if scope["method"] == "HEAD":  # what watches a server often asks so; the HTTP server leaves the body out
            scope = {**scope, "method": "GET"}

        async def note_and_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            # Starlette's TrustedHostMiddleware answers 400 in plain text, not 421, and can't read [::1].
            if self.hosts is None or _host(scope) in self.hosts:
                await self.app(scope, receive, note_and_send)
            else:
                refused = JSONResponse({"detail": "this server does not answer to that host name"}, 421)
                await refused(scope, receive, note_and_send)
        except Exception:
            # Starlette's handler of exceptions stands outside all middleware: its answer would lack count and headers.
            traceback.print_exc(file=sys.stderr)
            if not status:
                await JSONResponse({"detail": "internal server error"}, 500)(scope, receive, note_and_send)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.answered(path, status, time.perf_counter() - began)


def _host(scope: Scope) -> str:
    """The name in a request's Host header, without the port."""
    return re.sub(r":\d*$", "", Headers(scope=scope).get("host", "")).lower()
