"""Every kind of pixel that a format can hold, in files made by hand: the table of docs/data.md, line by line."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from resnetlab.data.decoding import Unreadable, decode, read_header

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
SEPARATE = 2  # planes
ORDERS = {"little": "<", "big": ">"}


def tiff(order: str, samples: bytes, width: int, photometric: int, bits: Sequence[int], **tags: Sequence[int]) -> bytes:
    """A TIFF of one row; tags: `format` (339), `extra` (338), `colours` (320), `turned` (274), `planes` (284)."""
    numbers = {"format": 339, "extra": 338, "colours": 320, "turned": 274, "planes": 284}
    strips = len(bits) if tags.get("planes") == [SEPARATE] else 1
    length = len(samples) // strips
    entries: dict[int, tuple[str, Sequence[int]]] = {
        256: ("H", [width]), 257: ("H", [1]), 258: ("H", bits), 259: ("H", [1]), 262: ("H", [photometric]),
        273: ("I", [0] * strips), 277: ("H", [len(bits)]), 278: ("H", [1]), 279: ("I", [length] * strips),
    }  # fmt: skip
    entries |= {numbers[name]: ("H", values) for name, values in tags.items()}
    behind = 8 + 2 + 12 * len(entries) + 4
    packed = {tag: struct.pack(f"{order}{len(values)}{kind}", *values) for tag, (kind, values) in entries.items()}
    first = behind + sum(len(value) for value in packed.values() if len(value) > 4)
    packed[273] = struct.pack(f"{order}{strips}I", *(first + length * i for i in range(strips)))
    long = b"".join(packed[tag] for tag in sorted(packed) if len(packed[tag]) > 4)
    directory, at = b"", behind
    for tag in sorted(entries):
        kind, values = entries[tag]
        value = packed[tag]
        if len(value) > 4:
            value, at = struct.pack(order + "I", at), at + len(value)
        directory += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return head + directory + bytes(4) + long + samples


def png(width: int, bits: int, colour: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*each) for each in chunks) + pixels + chunk(b"IEND", b"")


def greys(content: bytes) -> list[int]:
    """The levels of a row without colour."""
    found = decode(content)
    assert (found == found[..., :1]).all()
    return found[0, :, 0].tolist()


def colours(content: bytes) -> list[list[int]]:
    return decode(content)[0].tolist()


LEVELS = [0, 100, 4095, 32768, 65279, 65535]


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
class TestTiff:
    def test_grey_of_1_to_8_bits(self, order: str) -> None:
        for bits, row, wanted in (
            (1, b"\xa0", [255, 0, 255, 0]),
            (2, b"\x1b", [0, 85, 170, 255]),
            (4, b"\x05\xaf", [0, 85, 170, 255]),
            (8, bytes([0, 85, 170, 255]), [0, 85, 170, 255]),
        ):
            assert greys(tiff(order, row, 4, BLACK_IS_ZERO, [bits])) == wanted
            assert greys(tiff(order, row, 4, WHITE_IS_ZERO, [bits])) == [255 - level for level in wanted]

    def test_grey_of_16_bits(self, order: str) -> None:
        samples = np.array(LEVELS, order + "u2").tobytes()
        wanted = [round(level / 257) for level in LEVELS]
        assert greys(tiff(order, samples, 6, BLACK_IS_ZERO, [16])) == wanted
        if order == "<":  # Pillow reads no other
            assert greys(tiff(order, samples, 6, WHITE_IS_ZERO, [16])) == [255 - level for level in wanted]

    def test_colour_of_16_bits_loses_its_lower_byte(self, order: str) -> None:
        samples = np.array(LEVELS, order + "u2").tobytes()
        assert colours(tiff(order, samples, 2, RGB, [16] * 3)) == [[0, 0, 15], [128, 254, 255]]

    def test_alpha_stands_before_white_multiplied_or_not(self, order: str) -> None:
        straight, multiplied = bytes([200, 100, 0, 102]), bytes([80, 40, 0, 102])
        wanted = [round(level * 0.4 + 255 * 0.6) for level in (200, 100, 0)]
        for samples, kind in ((straight, 2), (multiplied, 1)):
            assert colours(tiff(order, samples, 1, RGB, [8] * 4, extra=[kind])) == [pytest.approx(wanted, abs=1)]
        assert colours(tiff(order, straight, 1, RGB, [8] * 4, extra=[0])) == [[200, 100, 0]]  # is no alpha
        grey = bytes([200, 102]), bytes([80, 102])
        for samples, kind in ((grey[0], 2), (grey[1], 1)):
            assert greys(tiff(order, samples, 1, BLACK_IS_ZERO, [8] * 2, extra=[kind])) == [pytest.approx(233, abs=1)]
        assert greys(tiff(order, grey[0], 1, BLACK_IS_ZERO, [8] * 2, extra=[0])) == [200]

    def test_separate_planes(self, order: str) -> None:
        """Of 8 bits they are read; of 16 Pillow would take the bytes for pixels."""
        planes = np.array([[0, 100, 255], [10, 20, 30], [200, 0, 7]], np.uint8)
        content = tiff(order, planes.tobytes(), 3, RGB, [8] * 3, planes=[SEPARATE])
        assert colours(content) == planes.T.tolist()
        deep = (planes.astype(np.uint16) * 257).astype(order + "u2").tobytes()
        with pytest.raises(Unreadable, match="its channels lie one after another with more than 8 bits; save it with"):
            decode(tiff(order, deep, 3, RGB, [16] * 3, planes=[SEPARATE]))

    def test_palette(self, order: str) -> None:
        table = [257 * i for i in range(256)] + [0] * 256 + [257 * (255 - i) for i in range(256)]
        assert colours(tiff(order, bytes([0, 99, 255]), 3, PALETTE, [8], colours=table)) == [
            [0, 0, 255], [99, 0, 156], [255, 0, 0],
        ]  # fmt: skip

    def test_ink_is_subtracted_from_white(self, order: str) -> None:
        """RGB = (255 - ink)(255 - black) / 255, whatever a profile says."""
        inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255), (100, 50, 20, 10), (1, 2, 3, 200)]
        wanted = [[(255 - ink) * (255 - k) / 255 for ink in (c, m, y)] for c, m, y, k in inks]
        samples = bytes(np.array(inks, np.uint8))
        assert np.abs(np.array(colours(tiff(order, samples, 5, CMYK, [8] * 4))) - wanted).max() <= 1
        deep = (np.array(inks, np.uint16) * 257).astype(order + "u2").tobytes()
        assert np.abs(np.array(colours(tiff(order, deep, 5, CMYK, [16] * 4))) - wanted).max() <= 1

    def test_lab(self, order: str) -> None:
        """CIE L*a*b* of D50, adapted by Bradford to sRGB's D65."""
        lab = [(0.0, 0, 0), (50.2, 0, 0), (100.0, 0, 0), (53.3, 60, 40), (60.0, -40, 30), (40.0, 10, -30)]
        samples = b"".join(struct.pack("Bbb", round(light * 2.55), a, b) for light, a, b in lab)
        found = np.array(colours(tiff(order, samples, len(lab), CIELAB, [8] * 3)))
        assert np.abs(found - [srgb_of_lab(*each) for each in lab]).max() <= 3

    @pytest.mark.parametrize(
        ("kind", "bits", "words"),
        [
            (SIGNED, 8, "signed integers"),
            (SIGNED, 16, "signed integers"),
            (SIGNED, 32, "signed integers"),
            (FLOAT, 32, "floating-point numbers"),
        ],
    )
    def test_what_has_no_known_range_is_refused(self, order: str, kind: int, bits: int, words: str) -> None:
        content = tiff(order, bytes(2 * bits // 8), 2, BLACK_IS_ZERO, [bits], format=[kind])
        with pytest.raises(Unreadable, match=f"its pixels are {words}, whose range is not known; save it with 8 or 16"):
            decode(content)

    def test_another_kind_of_tiff_is_called_so(self, order: str) -> None:
        content = tiff(order, bytes(24), 2, RGB, [32] * 3, format=[FLOAT] * 3)
        with pytest.raises(
            Unreadable, match="^a kind of TIFF that is not read, or a damaged one, whatever its name: save"
        ):
            decode(content)

    def test_a_format_that_is_named_unsigned_is_read(self, order: str) -> None:
        assert greys(tiff(order, bytes([7, 9]), 2, BLACK_IS_ZERO, [8], format=[UNSIGNED])) == [7, 9]


def srgb_of_lab(light: float, a: float, b: float) -> list[float]:
    """sRGB, 0 to 255, of CIE L*a*b* (ICC's D50), by the formulas of CIE 15 and IEC 61966-2-1."""
    y = (light + 16) / 116
    xyz = np.array([v**3 if v > 6 / 29 else 3 * (6 / 29) ** 2 * (v - 4 / 29) for v in (y + a / 500, y, y - b / 200)])
    to_linear = np.array(  # of XYZ under D50, adapted
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    )
    linear = (to_linear @ (xyz * [0.9642, 1.0, 0.8249])).clip(0, 1)
    return [255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055) for v in linear]


def test_tiff_of_12_bits_knows_its_white() -> None:
    """Pillow gives its levels as 16 bits, 0 to 4095."""
    levels = [0, 4095, 2048, 16]
    packed = int("".join(f"{level:012b}" for level in levels), 2).to_bytes(6, "big")
    assert greys(tiff("<", packed, 4, BLACK_IS_ZERO, [12])) == [round(level / 4095 * 255) for level in levels]


def test_tiff_of_32_unsigned_bits_is_refused() -> None:
    with pytest.raises(Unreadable, match="its pixels are 32-bit integers, whose range is not known"):
        decode(tiff("<", bytes(8), 2, BLACK_IS_ZERO, [32]))


def test_12_bits_in_16_are_taken_as_16() -> None:
    """Nothing in the file tells; an image is never stretched by what it holds."""
    samples = np.array([0, 4095, 2048], "<u2").tobytes()
    assert greys(tiff("<", samples, 3, BLACK_IS_ZERO, [16])) == [0, 16, 8]
    assert greys(png(3, 16, 0, np.array([0, 4095, 2048], ">u2").tobytes())) == [0, 16, 8]


class TestPng:
    def test_grey_of_1_to_16_bits(self) -> None:
        assert greys(png(4, 1, 0, b"\x50")) == [0, 255, 0, 255]
        assert greys(png(4, 2, 0, b"\x1b")) == [0, 85, 170, 255]
        assert greys(png(4, 4, 0, b"\x05\xaf")) == [0, 85, 170, 255]
        assert greys(png(6, 16, 0, np.array(LEVELS, ">u2").tobytes())) == [round(level / 257) for level in LEVELS]

    @pytest.mark.parametrize(
        ("bits", "row", "level", "wanted"),
        [
            (1, b"\x50", 0, [255, 255, 255, 255]),
            (2, b"\x1b", 2, [0, 85, 255, 255]),
            (4, b"\x05\xaf", 5, [0, 255, 170, 255]),
            (8, bytes([0, 85, 170, 255]), 85, [0, 255, 170, 255]),
            (16, np.array([0, 1000, 1001, 65535], ">u2").tobytes(), 1000, [0, 255, 4, 255]),
        ],
    )
    def test_a_level_that_is_transparent_is_white(self, bits: int, row: bytes, level: int, wanted: list[int]) -> None:
        assert greys(png(4, bits, 0, row, (b"tRNS", struct.pack(">H", level)))) == wanted

    def test_a_colour_that_is_transparent_is_white(self) -> None:
        chosen = (b"tRNS", struct.pack(">3H", 1, 2, 3))
        assert colours(png(2, 8, 2, bytes([1, 2, 3, 1, 2, 4]), chosen)) == [[255, 255, 255], [1, 2, 4]]
        deep = np.array([0x1234, 0x2345, 0x3456, 0x1234, 0x2345, 0x3556], ">u2").tobytes()
        chosen = (b"tRNS", struct.pack(">3H", 0x1234, 0x2345, 0x3456))
        assert colours(png(2, 16, 2, deep, chosen)) == [[255, 255, 255], [0x12, 0x23, 0x35]]

    def test_palette(self) -> None:
        palette = (b"PLTE", bytes([10, 20, 30, 110, 120, 130, 250, 0, 0]))
        assert colours(png(3, 2, 3, b"\x18", palette)) == [[10, 20, 30], [110, 120, 130], [250, 0, 0]]
        alpha = (b"tRNS", bytes([0, 51]))  # and 255 for the others
        half = [pytest.approx(level * 0.2 + 255 * 0.8, abs=1) for level in (110, 120, 130)]
        assert colours(png(3, 2, 3, b"\x18", palette, alpha)) == [[255, 255, 255], half, [250, 0, 0]]

    def test_alpha_of_8_and_16_bits(self) -> None:
        assert greys(png(2, 8, 4, bytes([200, 102, 7, 255]))) == [pytest.approx(233, abs=1), 7]
        deep = np.array([200 * 257, 102 * 257, 7 * 257, 65535], ">u2").tobytes()
        assert greys(png(2, 16, 4, deep)) == [pytest.approx(233, abs=1), 7]

    def test_gamma_and_profile_change_nothing(self) -> None:
        more = (b"gAMA", struct.pack(">I", 100_000)), (b"iCCP", b"linear\0\0" + zlib.compress(b"a profile"))
        assert greys(png(3, 8, 0, bytes([0, 100, 255]), *more)) == [0, 100, 255]


@pytest.mark.parametrize("greatest", [1, 100, 255, 1000, 4095, 65535])
def test_the_greatest_value_that_a_pgm_or_ppm_names_is_white(greatest: int) -> None:
    levels = [0, greatest // 3, greatest // 2, greatest]
    wanted = [math.floor(level / greatest * 255 + 0.5) for level in levels]
    packed = np.array(levels, ">u2" if greatest > 255 else "u1")
    head = b"4 1 %d\n" % greatest
    assert np.abs(np.array(greys(b"P5 " + head + packed.tobytes())) - wanted).max() <= 1
    assert np.abs(np.array(greys(b"P6 " + head + packed.repeat(3).tobytes())) - wanted).max() <= 1
    assert (
        np.abs(np.array(greys(b"P2 " + head + b" ".join(b"%d" % level for level in levels) + b"\n")) - wanted).max()
        <= 1
    )


def test_bitmaps_of_one_bit_have_black_ones() -> None:
    assert greys(b"P4 4 1\n\xa0") == [0, 255, 0, 255]
    assert greys(b"P1 4 1\n1 0 1 0\n") == [0, 255, 0, 255]


def test_floats_of_a_pfm_are_refused() -> None:
    with pytest.raises(Unreadable, match="floating-point numbers, whose range is not known"):
        decode(b"Pf\n1 1\n-1.0\n" + struct.pack("<f", 0.5))


def test_cmyk_jpegs_are_inverted_as_adobe_writes_them() -> None:
    """The file holds 255 less the ink."""
    ink = Image.new("CMYK", (16, 16), (200, 60, 0, 40))
    made = io.BytesIO()
    ink.save(made, "JPEG", quality=100)
    content = made.getvalue()
    assert b"Adobe" in content
    assert read_header(content).mode == "CMYK"
    wanted = [(255 - c) * (255 - 40) / 255 for c in (200, 60, 0)]
    assert np.abs(decode(content).reshape(-1, 3) - wanted).max() <= 3


def test_a_profile_of_another_space_changes_nothing() -> None:
    """Colours are numbers here, as for torchvision and OpenCV: a profile is passed over."""
    from PIL import ImageCms

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for name, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        made = io.BytesIO()
        image.save(made, name, icc_profile=profile, **options)
        assert np.array_equal(decode(made.getvalue()), np.asarray(image))
