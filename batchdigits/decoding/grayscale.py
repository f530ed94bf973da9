"""Turn an image as Pillow loads it, of any mode and depth, into a grey page."""

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from batchdigits.records import GreyImage

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
"""Modes whose samples have more than 8 bits."""

_TIFF_BITS = 258


def grey_of(image: Image.Image) -> GreyImage:
    """Turn a loaded image of any mode into grey [H, W]: alpha over white, deep samples scaled and not clipped."""
    if image.mode in DEEP_MODES:
        return _grey_of_deep(image)
    if not image.has_transparency_data:
        return np.asarray(image.convert("L"))
    image = image if image.mode == "RGBA" else image.convert("RGBA")  # which would copy it
    darkness = 255 - np.asarray(image.convert("L"))
    alpha = np.asarray(image.getchannel("A"))
    return 255 - np.asarray(cv2.multiply(darkness, alpha, scale=1 / 255), np.uint8)


def _grey_of_deep(image: Image.Image) -> GreyImage:
    """Scale samples of 16 or 32 bits or floats to 8 bits.

    Of 16-bit samples the whole range counts. Others do not tell their range: it is 0 to the first of 1 (floats
    only), 255 and 65535 that none exceeds, or else their own.
    """
    if image.mode.startswith("I;16"):
        bits = image.tag_v2[_TIFF_BITS][0] if isinstance(image, TiffImageFile) else 16
        words = np.asarray(image).astype(np.uint16)  # [H, W]
        grey = np.asarray(cv2.convertScaleAbs(words, alpha=255 / (2**bits - 1)), np.uint8)
        grey[words == image.info.get("transparency", -1)] = 255
        return grey
    samples = np.asarray(image).astype(np.float64)  # [H, W]
    samples[~np.isfinite(samples)] = 0
    lowest, highest = min(0.0, float(samples.min())), max(0.0, float(samples.max()))
    ranges = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    if lowest == 0:
        highest = next((top for top in ranges if highest <= top), highest)
    samples -= lowest  # in place: a copy of the largest page takes 800 MB
    samples /= highest - lowest
    return np.asarray(cv2.convertScaleAbs(samples, alpha=255), np.uint8)
