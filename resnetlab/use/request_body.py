"""Receiving an image over HTTP: limits while a body arrives, and which requests are refused with which status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from fastapi import HTTPException, Request
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from resnetlab.errors import shown
from resnetlab.machine import give_back_memory
from resnetlab.use.forms import FORM

Result = TypeVar("Result")
AGAIN = {"Retry-After": "1"}  # seconds, beside a 503
CLIENT_GONE = 499  # nginx's code for a client that left; only the metrics see it
LINGER_SECONDS, LINGER_BYTES = 2.0, 64_000_000

TIDY_SECONDS = 3.0  # from the end of a request until memory is given back; longer than LINGER_SECONDS


@dataclass(frozen=True)
class Limits:
    """The limits on requests."""

    bytes: int = 20_000_000  # of a body
    pixels: int = 25_000_000  # of an image, before and after it is resized
    side: int = 32_768  # pixels
    bodies: int = 256_000_000  # bytes of all bodies together; one body of maximum size always fits
    requests: int = 64  # requests that have arrived and wait for their answer
    seconds: float = 30.0  # for a body to arrive, and again for the answer


class Unfinished(HTTPException):
    """A request that is refused before its body has arrived."""


class UnfinishedResponse(JSONResponse):
    """An answer before the body has arrived: it closes the connection, and discards what still arrives.

    It does so for a short time and a limited number of bytes. Closing a socket with unread bytes would reset the
    connection, and a client that is still sending would not get to read the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers["connection"] = "close"
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                thrown_away = 0
                while thrown_away < LINGER_BYTES and (message := await receive()).get("more_body"):
                    thrown_away += len(message["body"])
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Room:
    """The resources of all current requests: bytes of bodies, and places among the requests being processed."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.bytes, self.requests = limits, 0, 0
        self._tidying: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def body(self) -> Iterator[Body]:
        """A context with a body, whose bytes count until its end."""
        body = Body(self)
        try:
            yield body
        finally:
            body.release()
            if self._tidying is None:
                self._tidying = asyncio.get_running_loop().call_later(TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        asyncio.get_running_loop().run_in_executor(None, give_back_memory)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A context that occupies a place. Raises 503 if all are taken."""
        if self.requests >= self.limits.requests:
            raise busy(HTTPException)
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1


class Body:
    """The body of a request, as far as it has arrived, until it is released."""

    def __init__(self, room: Room) -> None:
        self.room, self.content = room, bytearray()

    def release(self) -> None:
        """Let its bytes go."""
        self.room.bytes -= len(self.content)
        self.content = bytearray()

    async def receive(self, request: Request) -> None:
        """Read the whole body. Raises 413, 408 or 503 as soon as it is too large or too slow."""
        limits = self.room.limits
        too_large = Unfinished(413, f"the body has more than the allowed {limits.bytes:,} bytes")
        said = request.headers.get("content-length", "").lstrip("0")
        if said.isdecimal() and (len(said) > 18 or int(said) > limits.bytes):
            raise too_large
        try:
            async with asyncio.timeout(limits.seconds):
                async for chunk in request.stream():
                    if len(self.content) + len(chunk) > limits.bytes:
                        raise too_large
                    if self.room.bytes + len(chunk) > max(limits.bodies, limits.bytes):
                        raise busy(Unfinished)
                    self.content += chunk
                    self.room.bytes += len(chunk)
        except TimeoutError:
            raise Unfinished(408, f"the body did not arrive within {limits.seconds:g} seconds") from None
        except ClientDisconnect:
            raise HTTPException(CLIENT_GONE, "the client has left") from None


def busy(kind: type[HTTPException]) -> HTTPException:
    """The refusal of a request for which there is no room."""
    return kind(503, "too many requests at the moment: try again", AGAIN)


def check_query(request: Request, known: tuple[str, ...]) -> None:
    """Raise 422 for parameters that a path does not have, and for one that is given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            raise Unfinished(422, f"{shown(name)} is not a parameter; known: {', '.join(known)}")
        if names.count(name) > 1:
            raise Unfinished(422, f"{name} is given {names.count(name)} times; give it once")


def check_type(request: Request) -> str:
    """The content type of a request, if it can hold an image. Raises 415, 400."""
    if request.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        raise Unfinished(415, "the body is compressed (Content-Encoding); send the image as it is")
    given = request.headers.get("content-type", "")
    kind, parameters = parse_options_header(given)
    if kind == FORM:
        if not parameters.get(b"boundary"):
            raise Unfinished(400, "the content type of the multipart body has no boundary")
    elif not kind.startswith(b"image/"):
        raise Unfinished(415, "send multipart/form-data with the field 'image', or the image itself as image/*")
    return given


async def while_wanted(request: Request, seconds: float, work: Awaitable[Result]) -> Result:
    """The result of `work`, which is cancelled after `seconds` with 504, and at once if the client leaves.

    The body must have been read, so that the next message from the client can only be that it leaves.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise HTTPException(CLIENT_GONE, "the client has left")
        raise HTTPException(504, f"no answer within {seconds:g} seconds")
    finally:
        task.cancel()
        gone.cancel()
