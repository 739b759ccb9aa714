"""Small JPEG pictures of images, for the pages; not for diagnosis.

The chain is that of PS3.4 N.2: modality LUT or rescale, VOI LUT or window, then MONOCHROME1 turned round.
Where no window is given, the values between the 1st and the 99th percentile are shown. Only the frame that
is shown is read and decoded. What can't be shown has no picture, and that stops nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from PIL import Image
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pacsbridge.instance import Instance
    from pacsbridge.media.contents import Series

log = structlog.get_logger(__name__)

_SHARED_FUNCTIONAL_GROUPS = 0x52009229
_PER_FRAME_FUNCTIONAL_GROUPS = 0x52009230
_PRESENTATION_LUT_SHAPE = 0x20500020
_TAGS: list[Any] = [_SHARED_FUNCTIONAL_GROUPS, _PER_FRAME_FUNCTIONAL_GROUPS, _PRESENTATION_LUT_SHAPE]

#: The longer side of a picture, in pixels.
PICTURE_SIZE = 640
_QUALITY = 82
#: More pixels in one frame than this take too long for a preview.
_MAX_PIXELS = 80_000_000
#: A picture is drawn from at most this many times its own size along each side.
_OVERSAMPLING = 2
_SHADES = 255.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG picture; width and height in pixels."""

    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a series.

    Parameters
    ----------
    position
        Which instance of the series it is in, from 0.
    index
        Which frame of the instance it is, from 0.
    frames
        How many frames the instance has.
    """

    instance: Instance
    position: int
    index: int
    frames: int


def choose_frames(series: Series, count: int) -> list[Frame]:
    """Choose up to `count` frames of a series, evenly spread; the middle one when it is one."""
    total = sum(series.frames)
    wanted = sorted({(2 * index + 1) * total // (2 * count) for index in range(count)}) if total else []
    chosen = []
    position = at = 0
    for number in wanted:
        while number >= at + series.frames[position]:
            at += series.frames[position]
            position += 1
        chosen.append(Frame(series.instances[position], position, number - at, series.frames[position]))
    return chosen


def draw(frame: Frame) -> Picture | None:
    """Draw one frame; None when it can't be."""
    return draw_file(frame.instance.path, frame.index)


def draw_file(path: str, index: int) -> Picture | None:
    """Draw one frame of a file, from 0; None when it can't be."""
    try:
        return _draw(path, index)
    except Exception as error:  # noqa: BLE001 - decoders raise what they like, and a preview stops nothing
        log.info("no preview", reason=type(error).__name__)
        return None


def _draw(path: str, index: int) -> Picture:
    attributes = Dataset()
    pixels = pixel_array(path, ds_out=attributes, index=index, specific_tags=_TAGS)
    if pixels.shape[0] * pixels.shape[1] > _MAX_PIXELS:
        raise ValueError("too large for a preview")
    step = max(1, max(pixels.shape[:2]) // (PICTURE_SIZE * _OVERSAMPLING))
    pixels = pixels[::step, ::step]
    attributes = _of_frame(attributes, index)
    if attributes.PhotometricInterpretation == "PALETTE COLOR":
        shades = _bytes(apply_color_lut(pixels, attributes))
    elif pixels.ndim == 3:
        shades = _bytes(pixels)
    else:
        shades = _gray(pixels, attributes)
    return _encode(Image.fromarray(np.ascontiguousarray(shades)), _aspect(attributes))


def _encode(image: Image.Image, aspect: float) -> Picture:
    width, height = image.width, image.height * aspect
    scale = min(1.0, PICTURE_SIZE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return Picture(buffer.getvalue(), *size)


def _of_frame(attributes: Dataset, index: int) -> Dataset:
    """Lay the functional groups of an enhanced image's frame over its attributes (PS3.3 C.7.6.16)."""
    groups = list(attributes.get("SharedFunctionalGroupsSequence") or [])[:1]
    groups += list(attributes.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1]
    merged = Dataset()
    merged.update(attributes)
    merged.file_meta = attributes.file_meta  # lookup tables are words, whose order it tells
    for group in groups:
        for name in ("PixelMeasuresSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in list(group.get(name) or [])[:1]:
                merged.update(item)
    return merged


def _aspect(attributes: Dataset) -> float:
    """Return the height of a pixel divided by its width."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        values = attributes.get(keyword)
        if values and len(values) == 2 and float(values[0]) > 0 and float(values[1]) > 0:
            return min(max(float(values[0]) / float(values[1]), 0.1), 10.0)
    return 1.0


def _bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    bits = 8 * pixels.dtype.itemsize
    return (pixels >> (bits - 8)).astype(np.uint8)


def _gray(pixels: NDArray[Any], attributes: Dataset) -> NDArray[np.uint8]:
    values = _rescaled(pixels, attributes)
    shown = _windowed(pixels, values, attributes)
    if shown is None or shown.min() == shown.max():
        shown = _stretched(values)
    inverse = attributes.get("PresentationLUTShape") == "INVERSE"
    if attributes.PhotometricInterpretation == "MONOCHROME1" or inverse:
        shown = 1 - shown
    return np.asarray(shown * _SHADES + 0.5).astype(np.uint8)


def _rescaled(pixels: NDArray[Any], attributes: Dataset) -> NDArray[np.float32]:
    if attributes.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(pixels, attributes), dtype=np.float32)
    slope = np.float32(attributes.get("RescaleSlope") or 1)
    intercept = np.float32(attributes.get("RescaleIntercept") or 0)
    return pixels.astype(np.float32) * slope + intercept


def _windowed(
    pixels: NDArray[Any], values: NDArray[np.float32], attributes: Dataset
) -> NDArray[np.float32] | None:
    """Return the values between 0 and 1 through the first window or VOI LUT; None when there is neither."""
    if attributes.get("VOILUTSequence"):
        source = values.astype(pixels.dtype) if attributes.get("ModalityLUTSequence") else pixels
        return _stretched(np.asarray(apply_voi(source, attributes), dtype=np.float32), 0, 100)
    center, width = (_first_number(attributes, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or width < 1:
        return None
    function = str(attributes.get("VOILUTFunction") or "LINEAR")
    if function == "SIGMOID":
        return np.asarray(
            1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50))), dtype=np.float32
        )
    if function == "LINEAR" and width > 1:
        center, width = center - 0.5, width - 1  # PS3.3 C.11.2.1.2.1
    return _clipped((values - np.float32(center)) / np.float32(width) + np.float32(0.5))


def _first_number(attributes: Dataset, keyword: str) -> float | None:
    value = attributes.get(keyword)
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") else value)


def _stretched(values: NDArray[np.float32], low: float = 1, high: float = 99) -> NDArray[np.float32]:
    sample = values[::4, ::4] if values.size > 10_000 else values
    bottom, top = np.percentile(sample, [low, high])
    if top <= bottom:
        bottom, top = float(values.min()), float(values.max())
    return _clipped((values - np.float32(bottom)) / np.float32(max(top - bottom, 1e-6)))


def _clipped(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.clip(values, 0, 1), dtype=np.float32)
