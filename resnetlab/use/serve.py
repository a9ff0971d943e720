"""A classifier behind HTTP: an API, described by its /openapi.json, and a page for people."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, replace
from functools import partial
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeVar

import torch
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from torch import Tensor

import resnetlab
from resnetlab.data.decoding import Part, finish
from resnetlab.errors import did_you_mean, printable, shown
from resnetlab.use.batching import Batcher
from resnetlab.use.classifier import Classifier
from resnetlab.use.decoders import Decoders
from resnetlab.use.decoding_process import HEADER_SECONDS, LIGHT, MEGAPIXEL_SECONDS, Task, accepted_formats
from resnetlab.use.explain import default_unit, grad_cam, units_of
from resnetlab.use.exported import Engine
from resnetlab.use.forms import Refused
from resnetlab.use.heat import COLOURS, CropArea, heat_image, overlay
from resnetlab.use.middleware import TEXT, Metrics, RequestMiddleware
from resnetlab.use.predict import likeliest
from resnetlab.use.recorded_accuracy import RecordedAccuracy
from resnetlab.use.request_body import (
    AGAIN,
    Limits,
    Room,
    Unfinished,
    UnfinishedResponse,
    check_query,
    check_type,
    while_wanted,
)

Result = TypeVar("Result")
PAGE = {"/": "index.html", "/style.css": "style.css", "/script.js": "script.js"}
MEDIA = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class ClassProbability(BaseModel):
    """A class, and how probable the network holds it to be."""

    name: str = Field(serialization_alias="class")
    probability: float


class Seen(BaseModel):
    """The part of the upright image that the network sees, in shares of the image's width and height."""

    left: float
    top: float
    width: float
    height: float


class Prediction(BaseModel):
    """The likeliest classes, the first first, and what they were found in."""

    classes: list[ClassProbability]
    crop: Seen


class Accuracy(BaseModel):
    """How many test images the network classified correctly, as its run or file states."""

    top1: float = Field(description="In %.")
    images: int | None = Field(description="How many test images there were, if that is known.")
    interval: tuple[float, float] | None = Field(description="The 95 % interval of top1, if images is known.")


class Health(BaseModel):
    """What is served."""

    status: str = "ok"
    network: str
    device: str
    engine: str  # that runs the network
    precision: str
    classes: tuple[str, ...]
    classes_named: bool = Field(description="Whether the file names its classes; else they are numbers from 0.")
    accuracy: Accuracy | None = Field(description="Null where neither the run nor the file states it.")
    units: tuple[str, ...]  # that /explain can look at; of an exported file none
    unit: str = Field(description="What /explain looks at by default: the last unit whose map has several positions.")
    heat_colours: tuple[str, ...] = Field(description="Those of /explain, evenly spaced from 0 to the most heat.")
    seen: float  # the part of an image's short side that the network sees, in the middle
    most_bytes: int  # of a body
    most_pixels: int  # of an image
    most_side: int  # of an image, in pixels
    formats: tuple[str, ...]  # of images


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


NO_HEAT = (
    "this server runs an exported file, which gives no heat maps: serve the run or weights that it was exported from"
)
ALWAYS = {421: "the Host header names a different server", 500: "internal server error"}
OF_IMAGES = {
    400: "a damaged multipart body",
    408: "the body did not arrive in time",
    413: "the body has too many bytes, or the image has too many pixels, too long a side, or needs too much memory",
    415: "neither multipart/form-data nor an image, or an image in a format that /health does not list",
    422: "a damaged image, one that takes too long to decode, or an invalid parameter",
    503: "more requests, bytes of bodies, or pixels of large images than the server accepts at once: try again",
    504: "no answer in time",
}
OF_FILES = {501: "this server runs an exported file, which has no units to look at"}
LIMITS = """The image is the body, as image/*, or the field "image" of a form. Its bytes decide its format: {formats}.

Limits: {bytes:,} bytes per body and {bodies:,} for all bodies together; {pixels:,} pixels per image, and sides of up to
{side:,}; {together:,} pixels for all images above {light:,} pixels that are being decoded; {requests:,} requests that
wait for their answer; {seconds:g} seconds for a body to arrive, and again for the answer; {header:g} seconds of CPU
time to decode an image, and {megapixel:g} more per megapixel."""
_FORM = {"type": "object", "required": ["image"], "properties": {"image": {"type": "string", "format": "binary"}}}
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}


def _problems(*tables: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Problem, "description": words} for table in tables for code, words in table.items()}


class Api:
    """The handlers of the paths, with one classifier, its queue, and the limits on all requests together."""

    def __init__(self, classifier: Classifier, limits: Limits, decoders: Decoders, batch: int) -> None:
        self.classifier = replace(classifier, classes=tuple(map(printable, classifier.classes)))
        self.limits, self.decoders = limits, decoders
        self.metrics, self.room = Metrics(), Room(limits)
        self.batcher = Batcher(self.classifier.probabilities, batch, self.metrics.passed)
        self.units = units_of(classifier.network) if classifier.network else {}

    def run_by(self, engine: Engine) -> None:
        """Run the network by another engine from the next pass on; may be called from any thread."""
        self.classifier = replace(self.classifier, engine=engine)
        self.batcher.classify = self.classifier.probabilities

    def described(self) -> str:
        """The limits, for a reader of the API."""
        return LIMITS.format(
            **asdict(self.limits),
            formats=", ".join(accepted_formats()),
            together=self.decoders.most_pixels,
            light=LIGHT,
            header=HEADER_SECONDS,
            megapixel=MEGAPIXEL_SECONDS,
        )

    async def _answered(self, request: Request, work: Callable[[Tensor, CropArea], Awaitable[Result]]) -> Result:
        """The result of `work` on a request's image and the part of it that is used, within all limits."""
        with self.room.body() as body:
            kind = check_type(request)
            await body.receive(request)

            async def decoded_and_worked_on() -> Result:
                network, limits = self.classifier, self.limits
                interpolation = network.resizing.interpolation
                task = Task(kind, len(body.content), network.short_side, interpolation, limits.pixels, limits.side)
                prepared = await self.decoders.decoded(task, body.content, self._prepared)
                body.release()
                return await work(*prepared)

            with self.room.place():
                return await while_wanted(request, self.limits.seconds, decoded_and_worked_on())

    def _prepared(self, part: Part) -> tuple[Tensor, CropArea]:
        image = finish(part)
        return self.classifier.crop(image), self.classifier.crop_area(image)

    async def predict(
        self, request: Request, top: Annotated[int, Query(ge=1, le=100_000, description="The number of classes.")] = 5
    ) -> Response:
        """POST /predict."""
        check_query(request, ("top",))

        async def classified(pixels: Tensor, crop: CropArea) -> Prediction:
            found = likeliest(await self.batcher.classified(pixels), self.classifier.classes, top)
            classes = [ClassProbability(name=name, probability=value) for name, value in found]
            return Prediction(classes=classes, crop=Seen(**crop._asdict()))

        prediction = await self._answered(request, classified)
        # A model would be validated and copied before it is written.
        return Response(prediction.model_dump_json(by_alias=True), media_type="application/json")

    async def explain(
        self,
        request: Request,
        label: Annotated[str | None, Query(description="The class; default: the likeliest one.")] = None,
        unit: Annotated[
            str | None, Query(description="The unit of the network, e.g. layer3.0; default: see /health.")
        ] = None,
        view: Annotated[
            Literal["overlay", "heat"],
            Query(
                description="overlay: the part of the image that the network sees, under the heat map; heat: the map "
                "alone, whose pixel values, 0 to 255, are the heat, and whose palette are the colours. It lies over "
                "the part of the image that /predict calls crop."
            ),
        ] = "overlay",
    ) -> Response:
        """POST /explain."""
        check_query(request, ("label", "unit", "view"))
        if not self.units:
            raise Unfinished(501, NO_HEAT)
        for what, value, known in (("label", label, self.classifier.classes), ("unit", unit, tuple(self.units))):
            if value is not None and value not in known:
                raise Unfinished(422, f"{what} {shown(value)} is not listed by /health.{did_you_mean(value, known)}")

        async def picture(pixels: Tensor, _: CropArea) -> bytes:
            heat = await self.batcher.alone(partial(_heat, self.classifier, pixels, label, unit))
            return await asyncio.to_thread(_png, pixels, heat, view)

        return Response(await self._answered(request, picture), media_type="image/png")

    async def health(self) -> Health:  # a docstring would become its description
        classifier, limits = self.classifier, self.limits
        return Health(
            network=classifier.name,
            device=classifier.device,
            engine=classifier.engine.name if classifier.engine else "torch",
            precision=classifier.engine.precision if classifier.engine else "float32",
            classes=classifier.classes,
            classes_named=classifier.named,
            accuracy=_accuracy(classifier.accuracy),
            heat_colours=COLOURS,
            units=tuple(self.units),
            unit=default_unit(self.classifier.net, self.classifier.size) if self.units else "",
            seen=classifier.seen,
            most_bytes=limits.bytes,
            most_pixels=limits.pixels,
            most_side=limits.side,
            formats=accepted_formats(),
        )

    async def counts(self) -> Response:
        return Response(self.metrics.text(self.batcher.waiting), media_type=TEXT)


def make_app(
    classifier: Classifier,
    limits: Limits,
    decoders: Decoders,
    *,
    batch: int = 16,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """The ASGI application. `hosts`: the names it may be called by, in the Host header; None for any.

    Its `state.run_by(engine)` is `Api.run_by`.
    """
    # Without redirects from /health/ to /health, which would name this server's own address to those behind a proxy.
    app = FastAPI(
        title="resnetlab", version=resnetlab.__version__, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    api = Api(classifier, limits, decoders, batch)
    app.state.run_by = api.run_by
    _add_paths(app, api)
    for path, name in PAGE.items():
        content = files("resnetlab.use").joinpath("page", name).read_bytes()
        media = MEDIA[name.rpartition(".")[2]]
        app.add_api_route(path, partial(_file, content, media), include_in_schema=False)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(Unfinished, _unfinished)
    app.add_exception_handler(RequestValidationError, _invalid)
    paths = ["/predict", "/explain", "/health", "/metrics", "/openapi.json", *PAGE]
    app.add_middleware(RequestMiddleware, hosts=hosts, paths=paths, metrics=api.metrics)
    return app


def _add_paths(app: FastAPI, api: Api) -> None:
    picture = {"content": {"image/png": {}}, "description": "The picture"}
    of_image: dict[str, Any] = {"description": api.described(), "openapi_extra": {"requestBody": BODY}}
    app.post(
        "/predict",
        summary="The likeliest classes of an image",
        response_model=Prediction,
        responses=_problems(ALWAYS, OF_IMAGES),
        **of_image,
    )(api.predict)
    app.post(
        "/explain",
        summary="A heat map of where in an image the network found a class (Grad-CAM)",
        response_class=Response,
        responses={200: picture, **_problems(ALWAYS, OF_IMAGES, OF_FILES)},
        **of_image,
    )(api.explain)
    app.get("/health", summary="What is served", response_model=Health, responses=_problems(ALWAYS))(api.health)
    app.get(
        "/metrics",
        summary="Metrics in Prometheus' text format",
        response_class=PlainTextResponse,
        responses=_problems(ALWAYS),
    )(api.counts)


def _heat(classifier: Classifier, pixels: Tensor, label: str | None, unit: str | None) -> Tensor:
    """Grad-CAM of one image, H W."""
    images = pixels[None]
    target = classifier.classes.index(label) if label is not None else int(classifier.probabilities(images)[0].argmax())
    return grad_cam(classifier.net, classifier.input(images), torch.tensor([target], device=classifier.device), unit)[0]


def _png(pixels: Tensor, heat: Tensor, view: str) -> bytes:
    written = io.BytesIO()
    (heat_image(heat) if view == "heat" else overlay(pixels, heat)).save(written, "PNG")
    return written.getvalue()


def _accuracy(recorded: RecordedAccuracy | None) -> Accuracy | None:
    if recorded is None:
        return None
    return Accuracy(top1=recorded.top1, images=recorded.images, interval=recorded.interval)


async def _file(content: bytes, media: str) -> Response:
    return Response(content, media_type=media)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"detail": error.detail}, error.status, AGAIN if error.status == 503 else None)


async def _unfinished(request: Request, error: Exception) -> Response:
    assert isinstance(error, Unfinished)
    return UnfinishedResponse({"detail": error.detail}, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """The answer to an invalid parameter, in a line."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return UnfinishedResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)
