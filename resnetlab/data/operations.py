"""Operations on batches of 8-bit images that equal Pillow's, each image with its own strength.

x is uint8 N C H W with C = 3 (RGB) or 1 (grey); a strength is a tensor of N. An image's result depends on
nothing but the image and its strength, and all images of a call are worked on together, on any device.
The arithmetic is Pillow's, so the results are equal bit for bit (on x86-64; where a compiler fuses multiply and
add, Pillow's own blends may differ by a level). Sides are below 16,384, as in Pillow's 16.16 fixed point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from resnetlab.machine import moved

Operation = Callable[[Tensor, Tensor], Tensor]


def apply_each(x: Tensor, choice: Tensor, strength: Tensor, operations: Sequence[Operation]) -> Tensor:
    """Apply to each image the operation of its choice (N whole numbers) with its strength (N).

    Choice and strength may be on the processor, though x is on a GPU; then nothing waits for the GPU.
    """
    result = torch.empty_like(x)
    sizes = choice.bincount(minlength=len(operations)).tolist()
    groups, strength = moved(choice.argsort(stable=True), x.device).split(sizes), moved(strength, x.device)
    for operation, images in zip(operations, groups, strict=True):
        if len(images):
            result.index_copy_(0, images, operation(x.index_select(0, images), strength[images]))
    return result


def identity(x: Tensor, _: Tensor) -> Tensor:
    """Leave the images as they are."""
    return x


def _exactly(number: float, like: Tensor) -> Tensor:
    """The number as a tensor: a quotient of two tensors is rounded once, as in C.

    With a plain number torch may multiply by a reciprocal, which rounds twice.
    """
    return torch.full((), number, dtype=like.dtype, device=like.device)


def luminance(x: Tensor) -> Tensor:
    """Grey levels N 1 H W, int32: Pillow's L of RGB (ITU-R 601-2 in 16-bit fixed point)."""
    if x.shape[1] == 1:
        return x.int()
    red, green, blue = x.int().split(1, 1)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def blend(base: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """From base (factor 0) to x (factor 1) and beyond, cut to 0 ... 255 and rounded down: Pillow's Image.blend."""
    base = base.float()
    mixed = x.float().sub_(base).mul_(factor.float()[:, None, None, None]).add_(base)  # in place: half the time
    return mixed.clamp_(0, 255).to(torch.uint8)


def look_up(x: Tensor, table: Tensor) -> Tensor:
    """Replace each level by its entry in its channel's table (uint8, N C 256)."""
    channels = torch.arange(0, table.numel(), 256, dtype=torch.int32, device=x.device).view(*x.shape[:2], 1, 1)
    return table.flatten().index_select(0, (x + channels).flatten()).view_as(x)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with black: ImageEnhance.Brightness."""
    return blend(x.new_zeros(()), x, factor)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean grey level, rounded: ImageEnhance.Contrast."""
    pixels = x.shape[2] * x.shape[3]
    mean = (2 * luminance(x).sum((1, 2, 3), keepdim=True) + pixels) // (2 * pixels)
    return blend(mean, x, factor)


def colour(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the grey image: ImageEnhance.Color. Grey images stay as they are."""
    return blend(luminance(x), x, factor)


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the smoothed image: ImageEnhance.Sharpness.

    Smooth is 3x3 of weights 1, the centre 5, over 13; the outermost pixels stay as they are.
    """
    smooth = x.clone()
    if min(x.shape[2:]) > 2:
        levels = x.short()
        rows = levels[:, :, :-2] + levels[:, :, 1:-1] + levels[:, :, 2:]
        total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * levels[:, :, 1:-1, 1:-1]
        smooth[:, :, 1:-1, 1:-1] = ((total.float() + 6.5) / 13).to(torch.uint8)  # 13 is odd: no ties
    return blend(smooth, x, factor)


def invert(x: Tensor) -> Tensor:
    """The negative: ImageOps.invert."""
    return 255 - x


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Invert the levels from the threshold on: ImageOps.solarize."""
    return torch.where(x < threshold[:, None, None, None], x, invert(x))


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest 1 to 8 bits of each level: ImageOps.posterize."""
    mask = 256 - 2 ** (8 - bits.long())
    return x & mask.to(torch.uint8)[:, None, None, None]


def autocontrast(x: Tensor) -> Tensor:
    """Stretch each channel so that its lowest level is 0 and its highest 255: ImageOps.autocontrast."""
    low, high = x.flatten(2).amin(2, keepdim=True).double(), x.flatten(2).amax(2, keepdim=True).double()
    levels = torch.arange(256, dtype=torch.float64, device=x.device)
    scale = _exactly(255, low) / (high - low).clamp(min=1)
    table = torch.where(high > low, (levels * scale + -low * scale).clamp(0, 255), levels)
    return look_up(x, table.to(torch.uint8))


def equalize(x: Tensor) -> Tensor:
    """Map each channel's levels so that they are about equally frequent: ImageOps.equalize."""
    n, channels, height, width = x.shape
    places = x + 256 * torch.arange(n * channels, dtype=torch.int32, device=x.device).view(n, channels, 1, 1)
    counts = _counted(places.flatten(), n * channels * 256).view(n, channels, 256)
    last = counts.gather(2, x.amax((2, 3)).long()[..., None])
    step = (height * width - last) // 255
    mapped = (step // 2 + counts.cumsum(2) - counts) // step.clamp(min=1)
    mapped = torch.where(step > 0, mapped.clamp(max=255), torch.arange(256, device=x.device))
    return look_up(x, mapped.to(torch.uint8))


def _counted(numbers: Tensor, size: int) -> Tensor:
    """How often each number below `size` occurs: int64."""
    if not numbers.is_cuda:
        return numbers.bincount(minlength=size)
    # There, bincount would make the program wait, to learn how large the numbers are.
    one = torch.ones((), dtype=torch.int64, device=numbers.device)
    return one.new_zeros(size).scatter_add_(0, numbers.long(), one.expand(len(numbers)))


def affine(x: Tensor, matrix: Tensor) -> Tensor:
    """Sample x at (a u + b v + c, d u + e v + f), nearest pixel, 0 outside: Image.transform(AFFINE, NEAREST).

    matrix: double N 6, (a, b, c, d, e, f); (u, v) are the centres of the output's pixels, so at halves.
    """
    height, width = x.shape[2:]
    a, b, c, d, e, f = matrix[:, :, None, None].unbind(1)

    def fixed(number: Tensor) -> Tensor:
        return (number * 65536 + 0.5).floor().int()

    u = torch.arange(width, dtype=torch.int32, device=x.device)
    v = torch.arange(height, dtype=torch.int32, device=x.device)[:, None]
    column = (fixed(c + a * 0.5 + b * 0.5) + fixed(a) * u + fixed(b) * v) >> 16
    row = (fixed(f + d * 0.5 + e * 0.5) + fixed(d) * u + fixed(e) * v) >> 16
    outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    places = (row * width + column).masked_fill_(outside, 0).long().flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, places).view_as(x).masked_fill_(outside[:, None], 0)


def _matrix(like: Tensor, *entries: Tensor | float) -> Tensor:
    """N 6 of six entries, each a number or a tensor of N."""
    double = like.double()
    return torch.stack([e.double() if isinstance(e, Tensor) else torch.full_like(double, e) for e in entries], 1)


def shear_x(x: Tensor, level: Tensor) -> Tensor:
    """Each row moves left by level times its height below the top edge."""
    return affine(x, _matrix(level, 1, level, 0, 0, 1, 0))


def shear_y(x: Tensor, level: Tensor) -> Tensor:
    """Each column moves up by level times its distance from the left edge."""
    return affine(x, _matrix(level, 1, 0, 0, level, 1, 0))


def translate_x(x: Tensor, pixels: Tensor) -> Tensor:
    """Move right by whole pixels; a fraction is dropped, as by int()."""
    return affine(x, _matrix(pixels, 1, 0, -pixels.trunc(), 0, 1, 0))


def translate_y(x: Tensor, pixels: Tensor) -> Tensor:
    """Move down by whole pixels; a fraction is dropped, as by int()."""
    return affine(x, _matrix(pixels, 1, 0, 0, 0, 1, -pixels.trunc()))


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn about the centre, counter-clockwise: Image.rotate."""
    height, width = x.shape[2:]
    angle = -degrees.double().deg2rad()
    cos, sin = angle.cos(), angle.sin()
    across = width / 2 - cos * (width / 2) - sin * (height / 2)
    down = height / 2 + sin * (width / 2) - cos * (height / 2)
    return affine(x, _matrix(angle, cos, sin, across, -sin, cos, down))
