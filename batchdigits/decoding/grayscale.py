"""Turn samples of any depth, colour and transparency into a grey page.

Grey is what eyes call light and dark. Where it would show nothing, what was drawn is in the transparency, or in
colours of the same lightness.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray
from PIL import Image

from batchdigits.decoding.pages import reduced
from batchdigits.records import GreyImage

Samples = NDArray[np.generic]  # [H, W] or [H, W, C], of any real type

_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})  # of Pillow: more than 8 bits a sample
_INTEGER_TOPS = tuple(2.0**bits - 1 for bits in (8, 10, 12, 14, 15, 16))
_FLOAT_TOPS = (1.0, 255.0, 65535.0)
_MOST = 1e100  # that a sample says
_BLOCK_BYTES = 16 * 2**20  # of samples that are turned into floats at a time
_SAME_COLOUR = 16  # levels that a single colour differs by in itself, at most
_LEAST_CONTRAST = 8.0  # levels: standard deviation of grey below which colours are asked
_LEAST_GAIN = 2.0  # how much more the axis of colour has to vary than grey does
_LEAST_PIXELS = 16  # that an axis can be taken from
_LOOKED_AT_ROWS = 64  # of a page, at least, that tell whether it is flat
_LOOKED_AT = 16384  # pixels that it is taken from, about
_PAPER = 220.0  # level that paper gets on an axis of colour


def grey_of_pillow(image: Image.Image) -> GreyImage:
    """Turn a loaded image of any mode into grey [H, W]: alpha over white, deep samples scaled and not clipped."""
    if image.mode in _DEEP_MODES:
        samples = np.asarray(image)
        grey = in_bytes(samples)
        grey[samples == image.info.get("transparency", -1)] = 255
        return grey
    if image.has_transparency_data:
        return grey_of_channels(np.asarray(image.convert("RGBA")))
    mode = "L" if image.mode in ("1", "L") or _has_grey_palette(image) else "RGB"
    return grey_of(np.asarray(image if image.mode == mode else image.convert(mode)))


def _has_grey_palette(image: Image.Image) -> bool:
    """Tell whether all colours of an image with a palette are grey, so that none need be asked."""
    if image.mode != "P" or image.palette is None or image.palette.mode != "RGB":
        return False
    colours = image.palette.palette
    return bool(colours[::3] == colours[1::3] == colours[2::3])


def grey_of_channels(pixels: GreyImage) -> GreyImage:
    """Turn uint8[H, W] or uint8[H, W, C] into grey [H, W]; of two or four channels the last is alpha."""
    channels = pixels.shape[-1]
    if pixels.ndim == 2 or channels == 3:
        return grey_of(pixels)
    colour = cv2.extractChannel(pixels, 0) if channels == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    return grey_of(np.asarray(colour, np.uint8), np.asarray(cv2.extractChannel(pixels, channels - 1), np.uint8))


def grey_of(colour: GreyImage, alpha: GreyImage | None = None) -> GreyImage:
    """Turn pixels into grey.

    Args:
        colour: uint8[H, W] or uint8[H, W, 3] in the order red, green, blue.
        alpha: uint8[H, W], 0 transparent to 255 opaque, by which `colour` was not multiplied.

    Returns:
        uint8[H, W]. Over white; reduced to `pages.MAX_SIDE` where only colours tell ink from paper.
    """
    if alpha is not None:
        alpha = np.ascontiguousarray(alpha)
        lowest, highest = cv2.minMaxLoc(alpha)[:2]
        if highest > 0 and lowest < 255:  # transparency that hides everything is none
            planes = [colour.copy()] if colour.ndim == 2 else cv2.split(colour)
            if lowest < highest and _is_of_one_colour(planes, alpha, highest):
                return 255 - alpha
            colour = _over_white(planes, alpha)
    if colour.ndim == 2:
        return np.ascontiguousarray(colour)
    grey = np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY), np.uint8)
    return by_colour(colour, grey) if is_flat(grey) else grey


def is_flat(grey: GreyImage) -> bool:
    """Tell whether there is so little contrast in uint8[H, W] that colours have to be asked.

    By the variance of some rows from their two norms: `cv2.meanStdDev` takes twice as long for a small page.
    """
    step = len(grey) // _LOOKED_AT_ROWS
    some = grey[::step] if step > 1 else grey
    count = some.size
    summed, squared = cv2.norm(some, cv2.NORM_L1), cv2.norm(some, cv2.NORM_L2SQR)
    return squared * count - summed * summed < (_LEAST_CONTRAST * count) ** 2


def by_colour(colour: GreyImage, grey: GreyImage) -> GreyImage:
    """Tell ink from paper by the axis along which colours vary most, where that says more than their lightness.

    Args:
        colour: uint8[H, W, 3].
        grey: uint8[H, W], the lightness of it.

    Returns:
        `grey`, or uint8[H, W] at most `pages.MAX_SIDE` long, in which the rarer colour is dark.
    """
    pixels = reduced(np.ascontiguousarray(colour))
    points = pixels.reshape(-1, 3)
    if len(points) < _LEAST_PIXELS:
        return grey
    some = points[:: max(1, len(points) // _LOOKED_AT)].astype(np.float32)
    variances, axes = np.linalg.eigh(np.cov(some, rowvar=False))
    if np.sqrt(variances[-1]) < max(_LEAST_CONTRAST, _LEAST_GAIN * float(grey.std())):
        return grey
    along = (points - some.mean(axis=0)) @ axes[:, -1].astype(np.float32)  # [H * W]
    if np.mean(along**3) > 0:  # the rarer colour is far from the mean, on the bright side
        along = -along
    along += _PAPER - np.median(along)
    return np.asarray(np.clip(np.rint(along), 0, 255), np.uint8).reshape(pixels.shape[:2])


def in_bytes(samples: Samples, bits: int | None = None) -> GreyImage:
    """Scale samples to 8 bits.

    Samples of more than 8 bits do not tell how many they use: their range is 0 to the first usual top that none
    exceeds, or else their own. What is no number, or beyond all measure, counts as 0.

    Args:
        samples: [H, W] or [H, W, C], of any real type.
        bits: Of a sample, where there are fewer than 8.

    Returns:
        uint8 of the same shape.
    """
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype == np.uint8:
        top = 2 ** min(bits or 8, 8) - 1
        pixels = samples.view(np.uint8)
        return pixels if top == 255 else np.asarray(np.rint(np.arange(top + 1) * (255 / top)), np.uint8)[pixels & top]
    if samples.dtype == np.uint16:
        most = float(samples.max(initial=0))
        top = next(top for top in _INTEGER_TOPS if most <= top)
        flat = np.ascontiguousarray(samples, np.uint16).reshape(len(samples), -1)
        return np.asarray(cv2.convertScaleAbs(flat, alpha=255 / top), np.uint8).reshape(samples.shape)
    rows = max(1, _BLOCK_BYTES // max(1, samples[0].nbytes))
    blocks = [slice(top, top + rows) for top in range(0, len(samples), rows)]
    ends = [(part.min(initial=0), part.max(initial=0)) for part in (_finite(samples[block]) for block in blocks)]
    lowest, highest = min(low for low, _ in ends), max(high for _, high in ends)
    if lowest == 0:
        tops = _FLOAT_TOPS if samples.dtype.kind == "f" else _INTEGER_TOPS
        highest = 127 if samples.dtype == np.int8 else next((top for top in tops if highest <= top), highest)
    scaled = np.empty(samples.shape, np.uint8)
    for block in blocks:
        scaled[block] = np.rint((_finite(samples[block]) - lowest) * (255 / (highest - lowest)))
    return scaled


def _finite(samples: Samples) -> NDArray[np.float64]:
    numbers = samples.astype(np.float64)
    numbers[~(np.abs(numbers) < _MOST)] = 0
    return numbers


def _is_of_one_colour(planes: Sequence[MatLike], alpha: GreyImage, highest: float) -> bool:
    """Tell whether all that can be seen has the same colour, so that only the transparency shows what was drawn."""
    seen = np.asarray(alpha >= highest // 2, np.uint8)  # what is nearly transparent has hardly a colour
    ends = (cv2.minMaxLoc(plane, seen)[:2] for plane in planes)
    return all(highest - lowest <= _SAME_COLOUR for lowest, highest in ends)


def _over_white(planes: Sequence[MatLike], alpha: GreyImage) -> GreyImage:
    """Lay planes over white, in their own memory."""
    for plane in planes:
        cv2.bitwise_not(plane, dst=plane)
        cv2.multiply(plane, alpha, dst=plane, scale=1 / 255)
        cv2.bitwise_not(plane, dst=plane)
    return np.asarray(planes[0] if len(planes) == 1 else cv2.merge(planes), np.uint8)
