"""TurboJPEG through ctypes: a part is exactly that part of the whole, what is not plain is refused."""

from __future__ import annotations

import ctypes
import ctypes.util
import io
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnetlab.data import decoding, turbojpeg
from resnetlab.data.turbojpeg import Box, Jpeg, JpegError

needs_library = pytest.mark.skipif(turbojpeg.library() is None, reason="needs TurboJPEG 3, which is not installed")

SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2, "grey": 3, "4:4:0": 4, "4:1:1": 5}  # TJSAMP_*
OPTIONS = {"progressive": 12, "arithmetic": 14, "lossless": 15, "restart": 18}  # TJPARAM_*


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 H W 3: colours that change smoothly, with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 9
    waves = np.stack([np.sin(x + y), np.cos(x - y), np.sin(0.5 * x * y)], axis=2)
    return (127 + 90 * waves + rng.normal(0, 15, waves.shape)).clip(0, 255).astype(np.uint8)


def encode(pixels: np.ndarray, subsampling: str = "4:2:0", bits: int = 8, **options: int) -> bytes:
    """A JPEG by TurboJPEG, which writes more kinds than Pillow does."""
    lib: Any = turbojpeg.library()
    lib.tj3Set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    lib.tj3Free.argtypes = (ctypes.c_void_p,)
    lib.tj3Free.restype = None
    compress = lib.tj3Compress8 if bits == 8 else lib.tj3Compress12
    pointers = (ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t))
    compress.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int] * 4, *pointers)
    pixels = np.ascontiguousarray(pixels if bits == 8 else pixels.astype(np.int16) * 16)
    handle = lib.tj3Init(0)  # TJINIT_COMPRESS
    made, size = ctypes.c_void_p(), ctypes.c_size_t()
    try:
        parameters = {3: 90, 4: SUBSAMPLINGS[subsampling]} | {OPTIONS[name]: value for name, value in options.items()}
        assert all(lib.tj3Set(handle, key, value) == 0 for key, value in parameters.items())
        height, width = pixels.shape[:2]
        code = compress(handle, pixels.ctypes.data, width, 0, height, 0, ctypes.byref(made), ctypes.byref(size))
        assert code == 0, lib.tj3GetErrorStr(handle)
        return ctypes.string_at(made, size.value)
    finally:
        lib.tj3Free(made)
        lib.tj3Destroy(handle)


def by_pillow(content: bytes, scale: int) -> np.ndarray | None:
    """The whole image at 1/scale; None where Pillow would choose another scale."""
    image = Image.open(io.BytesIO(content))
    width, height = image.size
    if scale > 1:
        image.draft(image.mode, (max(1, width // scale), max(1, height // scale)))
    if min(width, height) < scale or image.size != (-(-width // scale), -(-height // scale)):
        return None
    return np.asarray(image.convert("RGB"))


@needs_library
@settings(max_examples=400)
@given(data=st.data(), height=st.integers(1, 70), width=st.integers(1, 70), scale=st.sampled_from([1, 1, 2, 4, 8]))
def test_a_part_is_that_part_of_the_whole(data: st.DataObject, height: int, width: int, scale: int) -> None:
    subsampling = data.draw(st.sampled_from(sorted(SUBSAMPLINGS)))
    options = data.draw(st.sampled_from([{}, {"progressive": 1}, {"arithmetic": 1}, {"restart": 1}]))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    content = encode(picture(height, width), subsampling, **options)
    with Jpeg(content) as jpeg:
        assert (jpeg.height, jpeg.width) == (height, width)
        whole, *place = jpeg.decode(Box(0, 0, height, width), scale)
    assert place == [0, 0]
    assert whole.shape == (-(-height // scale), -(-width // scale), 3)
    wanted = by_pillow(content, scale)
    if wanted is not None:
        assert np.array_equal(whole, wanted)
    with Jpeg(content) as jpeg:
        try:
            part, down, right = jpeg.decode(box, scale)
        except JpegError:
            assert subsampling == "4:1:1"  # its regions start at multiples of 32
            return
    assert (part.dtype, part.shape[2]) == (np.uint8, 3)
    y, x = box.top / scale - down, box.left / scale - right  # the part's place in the whole
    assert (y, x) == (int(y), int(x))
    # All that the box touches is there and is right; beyond it, chroma may lack its neighbours.
    first, last = box.top // scale, -(-(box.top + box.height) // scale)
    start, stop = box.left // scale, -(-(box.left + box.width) // scale)
    inside = part[first - int(y) : last - int(y), start - int(x) : stop - int(x)]
    assert np.array_equal(inside, whole[first:last, start:stop])


@needs_library
def test_a_large_part_is_that_part_of_the_whole() -> None:
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:4:0", "grey"):
        content = encode(picture(501, 333), subsampling)
        whole = by_pillow(content, 1)
        assert whole is not None
        lines = Box(0, 18, 501, 1), Box(9, 0, 1, 333)
        for box in (Box(0, 0, 501, 333), Box(17, 33, 400, 290), Box(500, 332, 1, 1), *lines):
            with Jpeg(content) as jpeg:
                part, y, x = jpeg.decode(box)
            part = part[int(y) : int(y) + box.height, int(x) : int(x) + box.width]
            assert np.array_equal(part, whole[box.top : box.top + box.height, box.left : box.left + box.width])


@needs_library
@pytest.mark.parametrize("sampling", [0x22, 0x21, 0x12])
def test_grey_with_sampling_factors(sampling: int) -> None:
    """A single component is stored in blocks of 8 whatever its factors say."""
    content = bytearray(encode(picture(50, 61), "grey"))
    content[content.index(b"\xff\xc0") + 11] = sampling
    wanted = by_pillow(bytes(content), 1)
    assert wanted is not None
    with Jpeg(bytes(content)) as jpeg:
        part, y, x = jpeg.decode(Box(20, 37, 15, 20))
    assert np.array_equal(part[int(y) : int(y) + 15, int(x) : int(x) + 20], wanted[20:35, 37:57])


# Of a width of -2 the margins make 0, which the library takes as "all there is", for which there is no room.
@needs_library
@pytest.mark.parametrize("scale", [1, 8])
@pytest.mark.parametrize(
    "box",
    [
        *(Box(52, 0, 1, 60), Box(0, 66, 50, 1), Box(-1, 0, 5, 5), Box(0, -1, 5, 5), Box(0, 0, 51, 60)),
        *(Box(0, 0, 50, 65), Box(5, 5, 0, 5), Box(5, 5, 5, 0), Box(0, 0, 50, -2), Box(-5, 0, 3, 60)),
        *(Box(2**31, 0, 1, 1), Box(0, 0, 2**31, 2**31)),
    ],
)
def test_a_box_outside_is_the_callers_mistake(box: Box, scale: int) -> None:
    with Jpeg(encode(picture(50, 64))) as jpeg, pytest.raises(ValueError, match="is not inside an image of 50x64"):
        jpeg.decode(box, scale)


def pillow_jpeg(mode: str) -> bytes:
    made = io.BytesIO()
    Image.fromarray(picture(30, 40)).convert(mode).save(made, "JPEG")
    return made.getvalue()


@needs_library
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"not a JPEG", bytes(1000)),
        pytest.param(lambda: encode(picture(30, 40))[:100], id="header cut"),
        pytest.param(lambda: encode(picture(30, 40))[:-300], id="pixels cut"),
        pytest.param(lambda: encode(picture(30, 40), progressive=1)[:-300], id="progressive cut"),
        pytest.param(lambda: encode(picture(30, 40), bits=12), id="12 bits"),
        pytest.param(lambda: encode(picture(30, 40), "4:4:4", lossless=1), id="lossless"),
        pytest.param(lambda: pillow_jpeg("CMYK"), id="CMYK"),
    ],
)
def test_what_is_not_plain_is_refused_and_freed(content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content() if callable(content) else content
    real, calls = turbojpeg.library(), Counter[str]()

    class Counting:
        def __getattr__(self, name: str) -> Any:
            calls[name] += 1
            return getattr(real, name)

    monkeypatch.setattr(turbojpeg, "library", Counting)
    with pytest.raises(JpegError), Jpeg(content) as jpeg:
        jpeg.decode(Box(3, 3, jpeg.height - 3, jpeg.width - 3))
    assert calls["tj3Init"] == calls["tj3Destroy"] == 1


@needs_library
def test_what_is_refused_goes_to_pillow() -> None:
    """Lossless with 8 bits it reads, 12 bits it does not."""
    pixels = picture(30, 40)
    assert np.array_equal(decoding.decode(encode(pixels, "4:4:4", lossless=1)), pixels)
    with pytest.raises(decoding.Unreadable):
        decoding.decode(encode(pixels, bits=12))


@needs_library
def test_closing_twice_is_harmless_and_a_closed_one_refuses() -> None:
    jpeg = Jpeg(encode(picture(8, 8)))
    jpeg.close()
    jpeg.close()
    with pytest.raises(JpegError):
        jpeg.decode(Box(0, 0, 8, 8))


def test_without_a_library_there_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbojpeg, "library", lambda: None)
    with pytest.raises(JpegError, match="no TurboJPEG"):
        Jpeg(pillow_jpeg("RGB"))


def test_libraries_that_do_not_load_or_are_too_old_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ctypes.util.find_library("c")  # it lacks tj3Init, as TurboJPEG 2 does
    tried = ["/no/such/libturbojpeg.so", *([old] if old else [])]
    monkeypatch.setattr(turbojpeg, "_paths", lambda: iter(tried))
    assert turbojpeg.library.__wrapped__() is None


@needs_library
def test_the_system_is_searched_only_where_the_wheel_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search starts programs, in each process."""
    searched: list[str] = []
    monkeypatch.setattr(ctypes.util, "find_library", searched.append)
    first = next(turbojpeg._paths(), None)
    assert searched == ([] if first else ["turbojpeg"])
    assert all(isinstance(path, str) for path in turbojpeg._paths())
