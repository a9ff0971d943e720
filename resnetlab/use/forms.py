"""The image in a request's body: all of it, or a field of a form."""

from __future__ import annotations

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

FORM = b"multipart/form-data"
CALLBACKS = ("on_header_field", "on_header_value", "on_header_end", "on_part_data", "on_part_end", "on_end")


class Refused(Exception):
    """A refused request: the status of the answer, and the reason in a line."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status, self.detail = status, detail


def image_of(content_type: str, body: bytes) -> bytes:
    """The encoded image in a body: the field "image" of multipart/form-data, or else the whole body. Raises 400, 422.

    The file name and the type that a client states are ignored; only the bytes count.
    """
    kind, parameters = parse_options_header(content_type)
    if kind != FORM:
        return body
    form = Form()  # Starlette's own form parsing writes parts above 1 MB to disk, in the process that answers
    try:
        callbacks = {name: getattr(form, name) for name in CALLBACKS}
        parser = MultipartParser(parameters[b"boundary"], callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError:
        form.whole = False
    if not form.whole:
        raise Refused(400, "the multipart body is damaged or incomplete")
    if form.image is None:
        raise Refused(422, "the form has no field 'image'")
    if form.images > 1:
        raise Refused(422, f"the form has {form.images} fields 'image'; send one image in each request")
    return bytes(form.image)


class Form:
    """The field "image" of a form, gathered by the parser's CALLBACKS; of several the first, and their number."""

    def __init__(self) -> None:
        self.image: bytearray | None = None
        self.images, self._counted = 0, False  # whether the part at hand is counted
        self.whole = False
        self._header, self._value, self._inside = bytearray(), bytearray(), False

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        """A header is whole: perhaps the one that names the field."""
        if self._header.lower() == b"content-disposition":
            is_image = parse_options_header(bytes(self._value))[1].get(b"name") == b"image"
            if is_image and not self._counted:
                self.images, self._counted = self.images + 1, True
                self._inside = self.images == 1
            if self._inside and self.image is None:
                self.image = bytearray()
        self._header, self._value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside and self.image is not None:
            self.image += data[start:end]

    def on_part_end(self) -> None:
        self._inside = self._counted = False

    def on_end(self) -> None:
        self.whole = True
