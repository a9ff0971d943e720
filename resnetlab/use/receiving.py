"""Receiving an image over HTTP: limits that hold while a body comes, and what is refused with which status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from fastapi import HTTPException, Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from resnetlab.data.decoding import MOST_PIXELS

Result = TypeVar("Result")
CLIENT_GONE = 499  # nginx's number for a client that left; nobody sees it but the metrics
LINGER_SECONDS, LINGER_BYTES = 2.0, 64_000_000


@dataclass(frozen=True)
class Limits:
    """What a server takes of its clients."""

    bytes: int = 20_000_000  # of a body
    pixels: int = MOST_PIXELS  # of an image; more are never decoded
    requests: int = 64  # that have come and wait for their answer
    seconds: float = 30.0  # for a body to come, and again for the answer


class Unfinished(HTTPException):
    """A request that is refused before its body has come."""


class UnfinishedResponse(JSONResponse):
    """An answer before the body has come: it says that the connection ends, and throws away what still arrives.

    For a short while, and up to a number of bytes. A socket that is closed with bytes unread resets the connection,
    and a client that is still sending would not read why.
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
    """What the requests of this moment take together: bytes of bodies, and places among those that are worked on."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.bytes, self.requests = limits, 0, 0

    @contextlib.contextmanager
    def body(self) -> Iterator[Body]:
        """A body whose bytes count for as long as this lasts."""
        body = Body(self)
        try:
            yield body
        finally:
            body.release()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place, given back at the end. Raises 503 where all are taken."""
        if self.requests >= self.limits.requests:
            raise busy(HTTPException)
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1


class Body:
    """The body of a request, as far as it has come, and until it is not needed any more."""

    def __init__(self, room: Room) -> None:
        self.room, self.content = room, bytearray()

    def release(self) -> None:
        """Let its bytes go."""
        self.room.bytes -= len(self.content)
        self.content = bytearray()

    async def receive(self, request: Request) -> None:
        """Read it whole. Raises 413, 408 or 503 as soon as it is clear that it is too much or too slow."""
        limits = self.room.limits
        too_large = Unfinished(413, f"the body has more than the {limits.bytes:,} bytes that are taken")
        said = request.headers.get("content-length", "").lstrip("0")
        if said.isdecimal() and (len(said) > 18 or int(said) > limits.bytes):
            raise too_large
        try:
            async with asyncio.timeout(limits.seconds):
                async for chunk in request.stream():
                    if len(self.content) + len(chunk) > limits.bytes:
                        raise too_large
                    if self.room.bytes + len(chunk) > limits.requests * limits.bytes:
                        raise busy(Unfinished)
                    self.content += chunk
                    self.room.bytes += len(chunk)
        except TimeoutError:
            raise Unfinished(408, f"the body did not come within {limits.seconds:g} seconds") from None
        except ClientDisconnect:
            raise HTTPException(CLIENT_GONE, "the client has left") from None


def busy(kind: type[HTTPException]) -> HTTPException:
    """The answer where more is asked for than there is room for."""
    return kind(503, "too many requests at this moment: try again", {"Retry-After": "1"})


def check_type(request: Request) -> str:
    """The content type of a request, if one that can hold an image. Raises 415, 400."""
    given = request.headers.get("content-type", "")
    kind, parameters = parse_options_header(given)
    if kind == b"multipart/form-data":
        if not parameters.get(b"boundary"):
            raise Unfinished(400, "the multipart body has no boundary in its content type")
    elif not kind.startswith(b"image/"):
        raise Unfinished(415, "send multipart/form-data with the field 'image', or the image itself as image/*")
    return given


def image_of(content_type: str, body: bytes) -> bytes:
    """The encoded image in a body: of multipart/form-data the field "image", else all of it. Raises 400, 422.

    Neither a file's name nor the type that a client claims for it is looked at; what counts are its bytes.
    """
    kind, parameters = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        return body
    form = Form()
    try:
        parser = MultipartParser(
            parameters[b"boundary"],
            {
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_part_data": form.on_part_data,
                "on_part_end": form.on_part_end,
                "on_end": form.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        form.whole = False
    if not form.whole:
        raise HTTPException(400, "the multipart body is damaged, or has no end")
    if form.image is None:
        raise HTTPException(422, "the form has no field 'image'")
    return bytes(form.image)


class Form:
    """The field "image" of a form, gathered while it is parsed; the first if there are several."""

    def __init__(self) -> None:
        self.image: bytearray | None = None
        self.whole = False
        self._header, self._value, self._inside = bytearray(), bytearray(), False

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        """Part of a header's name."""
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Part of a header's value."""
        self._value += data[start:end]

    def on_header_end(self) -> None:
        """A header is whole: perhaps the one that names the field."""
        if self._header.lower() == b"content-disposition" and self.image is None:
            self._inside = parse_options_header(bytes(self._value))[1].get(b"name") == b"image"
            self.image = bytearray() if self._inside else None
        self._header, self._value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Part of a field."""
        if self._inside and self.image is not None:
            self.image += data[start:end]

    def on_part_end(self) -> None:
        """The field is whole."""
        self._inside = False

    def on_end(self) -> None:
        """The form is whole."""
        self.whole = True


async def while_wanted(request: Request, seconds: float, work: Awaitable[Result]) -> Result:
    """What `work` gives. After `seconds` it is cancelled with 504, and at once if the client leaves.

    The body must have been read: then the next thing that a client can do is leave.
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
