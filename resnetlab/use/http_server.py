"""The HTTP server: a listening socket, and uvicorn on it until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from resnetlab.errors import UserError, shown

HEAD_SECONDS = 10.0  # for a request's head to arrive
READ_SECONDS = 30.0  # for a client to read an answer that waits to be sent
CONNECTIONS = 1_000  # at once; twice as many while they are young
YOUNG_SECONDS = 1.0
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # as in a Host header


def is_loopback(listener: socket.socket) -> bool:
    """Whether it can be reached from this machine only, by the address that it is bound to."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """The address for a browser."""
    host, port = listener.getsockname()[:2]
    host = {"::": "::1", "0.0.0.0": "127.0.0.1"}.get(host, host)  # all addresses, of which this machine's own is one
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UserError."""
    if not 0 <= port <= 65535:
        raise UserError(f"port={port} is not a port: choose 1 to 65535, or 0 for a free one.")
    where = f"host {shown(host)}, port {port}"
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host  # as an IPv6 address stands in a URL
    if not host.strip():
        raise UserError(f"{where}: no address given; use 127.0.0.1 for this machine only, or :: for all addresses.")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = address[0] == "::" and socket.has_dualstack_ipv6()  # IPv4 too: who asks for all means all
        return socket.create_server(address[:2], family=family, backlog=2048, dualstack_ipv6=both)
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(f"{where}: this host name is unknown; choose another --host.") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"{where}: can't listen there ({reason}); choose another --port or --host.") from error


def run(app: Any, listener: socket.socket, seconds: float, ready: Callable[[], None]) -> None:
    """Answer requests until SIGTERM, which ends the process with exit code 0, or Ctrl-C, a KeyboardInterrupt.

    Both let current requests finish, for at most `seconds`. `ready` is called once signals are handled.
    """
    _allow_many_connections()
    for library in ("uvicorn.error", "python_multipart"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # they complain about what clients send
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn handles the signal first, and raises it again
    server_of(app, seconds, ready).run(sockets=[listener])


def server_of(app: Any, seconds: float, ready: Callable[[], None]) -> Server:
    """uvicorn with our settings: nothing that a client sends is trusted or logged, and HTTP is the only protocol."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(seconds) + 1,
    )
    return Server(config, ready)


class Server(uvicorn.Server):
    """uvicorn's server, with a call when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


class Protocol(H11Protocol):
    """uvicorn's protocol with limits that it lacks: on the time for a head to arrive and for an answer to be read, and
    on the number of connections.

    If there are too many connections, those that have been idle for long are closed first, then those that have been
    sending a body for long, then the new one.
    """

    _deadline: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        self._since = self.loop.time()
        if len(self.connections) > 2 * CONNECTIONS:
            self.end()
        elif len(self.connections) > CONNECTIONS:
            self.loop.call_later(YOUNG_SECONDS, self._make_room)

    def _make_room(self) -> None:
        """Close old connections until there are not too many; another connection may have done so already."""
        if len(self.connections) <= CONNECTIONS:
            return
        others = (other for other in self.connections if isinstance(other, Protocol) and other is not self)
        old = sorted((other for other in others if other.is_old), key=lambda other: other._since)
        ends = [other for other in old if other.idle] + [other for other in old if other.is_coming]
        for other in ends[: len(self.connections) - CONNECTIONS]:
            other.end()

    @property
    def is_old(self) -> bool:
        """Whether it has had enough time to send a request."""
        return self.loop.time() - self._since >= YOUNG_SECONDS

    @property
    def is_coming(self) -> bool:
        """Whether a request's body is still arriving."""
        return self.cycle is not None and not self.cycle.response_complete and self.cycle.more_body

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def end(self) -> None:
        """End the connection at once."""
        self.connections.discard(self)
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading is None:
            self._reading = self.loop.call_later(READ_SECONDS, self.end)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        if self._reading is not None:
            self._reading.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Run the clock from the connection, or the first byte, until a head has arrived."""
        if not self.idle:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _allow_many_connections() -> None:
    """Allow as many open files as the system permits: each connection is one, and shells often allow only 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
