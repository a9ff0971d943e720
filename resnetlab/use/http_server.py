"""Listening: a socket, and uvicorn on it until a signal ends it."""

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

HEAD_SECONDS = 10.0  # for a request's head to come
READ_SECONDS = 30.0  # for a client to read what waits to be sent
CONNECTIONS = 1_000  # at once, and twice as many while they are young
YOUNG_SECONDS = 1.0
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # as a Host header has them


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def url_of(listener: socket.socket) -> str:
    """The address that a browser takes."""
    host, port = listener.getsockname()[:2]
    host = {"::": "::1", "0.0.0.0": "127.0.0.1"}.get(host, host)  # all addresses, of which this machine's own is one
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UserError."""
    if not 0 <= port <= 65535:
        raise UserError(f"port={port} is not a port: choose 1 to 65535, or 0 for a free one.")
    where = f"host {shown(host)}, port {port}"
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
    """Answer requests until SIGTERM, which ends the process with 0, or Ctrl-C, a KeyboardInterrupt.

    Both let the requests of that moment end, for `seconds` at most. `ready` is called when signals are heard.
    """
    _allow_many_connections()
    for library in ("uvicorn.error", "python_multipart"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # they complain of what clients send
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn puts its own before it, and raises it again after
    server_of(app, seconds, ready).run(sockets=[listener])


def server_of(app: Any, seconds: float, ready: Callable[[], None]) -> Server:
    """uvicorn as we use it: nothing that a client sends is believed or logged, and no other protocol is spoken."""
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
    """uvicorn's, which says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


class Protocol(H11Protocol):
    """uvicorn's, with limits that it lacks: a time for a head to come, and to read an answer; a number of connections.

    Where there are too many connections, those end that have long been idle, or else those whose body has long been
    coming, or else the new one.
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
        """End old connections until they are not too many; where another has done so, nothing is to do."""
        if len(self.connections) <= CONNECTIONS:
            return
        others = (other for other in self.connections if isinstance(other, Protocol) and other is not self)
        old = sorted((other for other in others if other.is_old), key=lambda other: other._since)
        ends = [other for other in old if other.idle] + [other for other in old if other.is_coming]
        for other in ends[: len(self.connections) - CONNECTIONS]:
            other.end()

    @property
    def is_old(self) -> bool:
        """Whether it has had the time to send a request."""
        return self.loop.time() - self._since >= YOUNG_SECONDS

    @property
    def is_coming(self) -> bool:
        """Whether a request's body is being waited for."""
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
        """The clock runs from the first byte, or the connection, until a head is there."""
        if not self.idle:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _allow_many_connections() -> None:
    """As many open files as the system allows: each connection is one, and shells often give 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
